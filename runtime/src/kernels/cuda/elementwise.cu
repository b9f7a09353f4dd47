// What else lies between the matrix products, each in one pass over memory.
//
// Of the layer normalization once for each WIDTH.

#ifndef WIDTH
#define WIDTH 768
#endif

#define THREADS 256

#if ELEMENT == 0
#define VECTOR 4
#else
#define VECTOR 8
#endif

typedef Piece<T, VECTOR> Vector;

// `one(i, j)` for every element of `count`, VECTOR at a time: j is its place in `vectors`' vector.
template <class Load, class One, class Store>
__device__ __forceinline__ void each(i64 count, bool aligned, Load load, One one, Store store) {
    i64 step = (i64)gridDim.x * THREADS;
    i64 first = (i64)blockIdx.x * THREADS + threadIdx.x;
    i64 whole = aligned ? count / VECTOR : 0;
    for (i64 v = first; v < whole; v += step) {
        load(v);
#pragma unroll
        for (int j = 0; j < VECTOR; j++) one(v * VECTOR + j, j);
        store(v);
    }
    for (i64 i = whole * VECTOR + first; i < count; i += step) one(i, -1);
}

// y = x / (1 - ratio) where the hash of an element's row and column is not below `limit`, else 0. `rows` is
// [count / width], `columns` [width].
extern "C" __global__ void __launch_bounds__(THREADS) factor_dropout(
    T* y, const T* x, const u32* rows, const u32* columns, i64 count, int width, u32 limit, float scale) {
    Vector in, out;
    u32 row_factor = 0;
    int column = 0;
    auto kept = [&](float value, u32 row, u32 column) { return row * column < limit ? 0.0f : value * scale; };
    each(
        count, width % VECTOR == 0,
        [&](i64 v) {
            in = ((const Vector*)x)[v];
            i64 row = v * VECTOR / width;
            row_factor = rows[row];
            column = (int)(v * VECTOR - row * width);
        },
        [&](i64 i, int j) {
            if (j >= 0) out.x[j] = narrow(kept(widen(in.x[j]), row_factor, columns[column + j]));
            else y[i] = narrow(kept(widen(x[i]), rows[i / width], columns[i % width]));
        },
        [&](i64 v) { ((Vector*)y)[v] = out; });
}

__device__ __forceinline__ float gelu_slope(float x, bool approximate) {
    if (approximate) {
        float square = x * x;
        float t = tanhf(0.7978845608f * (x + 0.044715f * x * square));
        return 0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * 0.7978845608f * (1.0f + 0.134145f * square);
    }
    return 0.5f * (1.0f + erff(x * 0.70710678f)) + x * 0.39894228f * __expf(-0.5f * x * x);
}

// dx = dy times the slope of GELU at x.
extern "C" __global__ void __launch_bounds__(THREADS) gelu_grad(T* dx, const T* dy, const T* x, i64 count, int approximate) {
    Vector slopes, gradients, out;
    each(
        count, true,
        [&](i64 v) {
            slopes = ((const Vector*)x)[v];
            gradients = ((const Vector*)dy)[v];
        },
        [&](i64 i, int j) {
            if (j >= 0) out.x[j] = narrow(widen(gradients.x[j]) * gelu_slope(widen(slopes.x[j]), approximate));
            else dx[i] = narrow(widen(dy[i]) * gelu_slope(widen(x[i]), approximate));
        },
        [&](i64 v) { ((Vector*)dx)[v] = out; });
}

#define WARPS (THREADS / 32)
#define EACH ((WIDTH + 31) / 32)  // columns of a lane

// Derivative of layer normalization: dx [rows, WIDTH], and every block's sums for scale and bias,
// [blocks, 2, WIDTH]. A warp takes a row; what it gathers for scale and bias stays in registers.
extern "C" __global__ void __launch_bounds__(THREADS) layer_norm_grad(
    float* dx, float* parts, const float* dy, const float* x, const float* scale, const float* mean,
    const float* inverse, i64 rows) {
    __shared__ float gathered[WARPS][32];
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    float d_scale[EACH] = {}, d_bias[EACH] = {};
    for (i64 row = (i64)blockIdx.x * WARPS + warp; row < rows; row += (i64)gridDim.x * WARPS) {
        float centre = mean[row], factor = inverse[row];
        float g[EACH], normal[EACH], sum = 0, product = 0;
#pragma unroll
        for (int i = 0; i < EACH; i++) {
            int c = i * 32 + lane;
            bool in = WIDTH % 32 == 0 || c < WIDTH;
            float gradient = in ? dy[row * WIDTH + c] : 0.0f;
            normal[i] = in ? (x[row * WIDTH + c] - centre) * factor : 0.0f;
            g[i] = in ? gradient * scale[c] : 0.0f;
            d_scale[i] += gradient * normal[i];
            d_bias[i] += gradient;
            sum += g[i];
            product += g[i] * normal[i];
        }
        sum = warp_sum(sum) * (1.0f / WIDTH);
        product = warp_sum(product) * (1.0f / WIDTH);
#pragma unroll
        for (int i = 0; i < EACH; i++) {
            int c = i * 32 + lane;
            if (WIDTH % 32 == 0 || c < WIDTH) dx[row * WIDTH + c] = (g[i] - sum - normal[i] * product) * factor;
        }
    }
    for (int which = 0; which < 2; which++) {
#pragma unroll
        for (int i = 0; i < EACH; i++) {
            int c = i * 32 + lane;
            gathered[warp][lane] = which ? d_bias[i] : d_scale[i];
            __syncthreads();
            if (warp == 0 && (WIDTH % 32 == 0 || c < WIDTH)) {
                float sum = 0;
                for (int w = 0; w < WARPS; w++) sum += gathered[w][lane];
                parts[((i64)blockIdx.x * 2 + which) * WIDTH + c] = sum;
            }
            __syncthreads();
        }
    }
}
