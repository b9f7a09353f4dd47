// GELU of rows with a bias, and dropout behind it; their derivative. A thread keeps PIECE columns and goes
// down the rows, so that bias and factors are read once and sums over rows stay in registers.

#ifndef PIECE
#define PIECE 8
#endif

#define THREADS 128
#define AHEAD 2  // rows that are loaded before the first is used

struct Gelu {
    float value, slope;
};

// GELU and its slope: x times the normal distribution's cdf, or the approximation by tanh.
__device__ __forceinline__ Gelu gelu(float x, bool approximate) {
    if (approximate) {
        float square = x * x;
        float u = 0.7978845608f * x * (1.0f + 0.044715f * square);
        // tanh(u) = 1 - 2 / (1 + e^2u)
        float t = 1.0f - __fdividef(2.0f, 1.0f + __expf(2.0f * u));
        if (u > 15.0f) t = 1.0f;
        float half = 0.5f * (1.0f + t);
        return {x * half, half + 0.5f * x * (1.0f - t * t) * 0.7978845608f * (1.0f + 0.134145f * square)};
    }
    float bell = exp2_fast(x * x * -0.7213475204f);  // e^(-x^2 / 2)
#if ELEMENT == 0
    float cdf = 0.5f * (1.0f + erff(x * 0.70710678f));
#else
    // Abramowitz and Stegun 7.1.26, within 1.5e-7, for the bell's sake.
    float u = fabsf(x) * 0.70710678f;
    float t = __fdividef(1.0f, 1.0f + 0.3275911f * u);
    float tail = t * (0.254829592f + t * (-0.284496736f + t * (1.421413741f + t * (-1.453152027f + t * 1.061405429f))));
    float cdf = 0.5f * tail * bell;
    if (x >= 0.0f) cdf = 1.0f - cdf;
#endif
    return {x * cdf, cdf + x * 0.39894228f * bell};
}

// y [rows, width]. Grid: (blocks for all columns, blocks that share the rows).
extern "C" __global__ void __launch_bounds__(THREADS) bias_gelu(
    T* __restrict__ y, const T* __restrict__ x, const float* __restrict__ bias, const u32* __restrict__ row_factors,
    const u32* __restrict__ column_factors, int rows, int width, u32 limit, float keep, int approximate) {
    int column = (blockIdx.x * THREADS + threadIdx.x) * PIECE;
    if (column >= width) return;
    float b[PIECE];
    u32 factors[PIECE];
#pragma unroll
    for (int j = 0; j < PIECE; j++) {
        b[j] = bias[column + j];
        factors[j] = limit ? column_factors[column + j] : 0;
    }
    for (int first = blockIdx.y; first < rows; first += gridDim.y * AHEAD) {
        Piece<T, PIECE> in[AHEAD];
        u32 own[AHEAD];
#pragma unroll
        for (int k = 0; k < AHEAD; k++) {
            int row = first + k * gridDim.y;
            if (row >= rows) break;
            in[k] = load<PIECE>(x, (i64)row * width + column);
            own[k] = limit ? row_factors[row] : 0;
        }
#pragma unroll
        for (int k = 0; k < AHEAD; k++) {
            int row = first + k * gridDim.y;
            if (row >= rows) break;
            Piece<T, PIECE> out;
#pragma unroll
            for (int j = 0; j < PIECE; j++) {
                float v = gelu(widen(in[k].x[j]) + b[j], approximate).value;
                if (limit) v = own[k] * factors[j] < limit ? 0.0f : v * keep;
                out.x[j] = narrow(v);
            }
            store(y, (i64)row * width + column, out);
        }
    }
}

// dx, and y once more, [rows, width]; each row of blocks' sums for the bias, [blocks, width]. Grid as above.
extern "C" __global__ void __launch_bounds__(THREADS) bias_gelu_grad(
    T* __restrict__ dx, T* __restrict__ y, float* __restrict__ parts, const T* __restrict__ dy,
    const T* __restrict__ x, const float* __restrict__ bias, const u32* __restrict__ row_factors,
    const u32* __restrict__ column_factors, int rows, int width, u32 limit, float keep, int approximate) {
    int column = (blockIdx.x * THREADS + threadIdx.x) * PIECE;
    if (column >= width) return;
    float b[PIECE], d_bias[PIECE] = {};
    u32 factors[PIECE];
#pragma unroll
    for (int j = 0; j < PIECE; j++) {
        b[j] = bias[column + j];
        factors[j] = limit ? column_factors[column + j] : 0;
    }
    for (int first = blockIdx.y; first < rows; first += gridDim.y * AHEAD) {
        Piece<T, PIECE> in[AHEAD], above[AHEAD];
        u32 own[AHEAD];
#pragma unroll
        for (int k = 0; k < AHEAD; k++) {
            int row = first + k * gridDim.y;
            if (row >= rows) break;
            in[k] = load<PIECE>(x, (i64)row * width + column);
            above[k] = load<PIECE>(dy, (i64)row * width + column);
            own[k] = limit ? row_factors[row] : 0;
        }
#pragma unroll
        for (int k = 0; k < AHEAD; k++) {
            int row = first + k * gridDim.y;
            if (row >= rows) break;
            Piece<T, PIECE> out, again;
#pragma unroll
            for (int j = 0; j < PIECE; j++) {
                Gelu at = gelu(widen(in[k].x[j]) + b[j], approximate);
                float factor = 1.0f;
                if (limit) factor = own[k] * factors[j] < limit ? 0.0f : keep;
                float d = widen(above[k].x[j]) * factor * at.slope;
                d_bias[j] += d;
                out.x[j] = narrow(d);
                again.x[j] = narrow(at.value * factor);
            }
            store(dx, (i64)row * width + column, out);
            if (y) store(y, (i64)row * width + column, again);
        }
    }
#pragma unroll
    for (int j = 0; j < PIECE; j++) parts[(i64)blockIdx.y * width + column + j] = d_bias[j];
}
