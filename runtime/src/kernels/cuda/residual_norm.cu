// Bias, dropout, residual and layer normalization of rows of WIDTH, and their derivative. A warp takes a
// row and keeps it in registers.

#ifndef WIDTH
#define WIDTH 768
#endif

// Numbers that a lane loads at once: of f32 16 bytes at most, so that what a warp loads is in one piece.
#define PIECE (WIDTH % 4 == 0 ? 4 : WIDTH % 2 == 0 ? 2 : 1)
#define PIECES (WIDTH / PIECE)
#define EACH ((PIECES + 31) / 32)  // pieces of a lane
#define WHOLE (PIECES % 32 == 0)
#define WARPS 4
#define THREADS (32 * WARPS)
// Blocks that share a multiprocessor: what they gather stays in registers.
#define GRAD_BLOCKS (WIDTH <= 1024 ? 2 : 1)

// normal, copy and sum [rows, WIDTH] of residual + dropout(branch + bias); an element is dropped where
// the product of its row's and its column's factor is below `limit`. Any result may be absent.
extern "C" __global__ void __launch_bounds__(THREADS) residual_norm(
    float* normal, T* copy, T* sum, float* mean, float* inverse, const float* residual, const T* branch,
    const float* bias, const float* scale, const float* shift, const u32* row_factors, const u32* column_factors,
    i64 rows, u32 limit, float keep, float epsilon) {
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    for (i64 row = (i64)blockIdx.x * WARPS + warp; row < rows; row += (i64)gridDim.x * WARPS) {
        u32 factor = limit ? row_factors[row] : 0;
        float x[EACH][PIECE], total = 0;
        Piece<float, PIECE> old[EACH];
        Piece<T, PIECE> added[EACH];
#pragma unroll
        for (int i = 0; i < EACH; i++) {
            int at = (i * 32 + lane) * PIECE;
            if (!WHOLE && at >= WIDTH) continue;
            old[i] = load<PIECE>(residual, row * WIDTH + at);
            added[i] = load<PIECE>(branch, row * WIDTH + at);
        }
#pragma unroll
        for (int i = 0; i < EACH; i++) {
            int at = (i * 32 + lane) * PIECE;
            bool in = WHOLE || at < WIDTH;
            Piece<T, PIECE> kept;
#pragma unroll
            for (int j = 0; j < PIECE; j++) {
                x[i][j] = 0;
                if (!in) continue;
                float y = widen(added[i].x[j]) + bias[at + j];
                if (limit) y = factor * column_factors[at + j] < limit ? 0.0f : y * keep;
                x[i][j] = old[i].x[j] + y;
                kept.x[j] = narrow(x[i][j]);
                total += x[i][j];
            }
            if (in && sum) store(sum, row * WIDTH + at, kept);
        }
        float centre = warp_sum(total) * (1.0f / WIDTH), squares = 0;
#pragma unroll
        for (int i = 0; i < EACH; i++)
#pragma unroll
            for (int j = 0; j < PIECE; j++) {
                bool in = WHOLE || (i * 32 + lane) * PIECE < WIDTH;
                x[i][j] -= centre;
                if (in) squares += x[i][j] * x[i][j];
            }
        float spread = rsqrtf(warp_sum(squares) * (1.0f / WIDTH) + epsilon);
        if (lane == 0) {
            if (mean) mean[row] = centre;
            if (inverse) inverse[row] = spread;
        }
#pragma unroll
        for (int i = 0; i < EACH; i++) {
            int at = (i * 32 + lane) * PIECE;
            if (!WHOLE && at >= WIDTH) continue;
            Piece<float, PIECE> wide;
            Piece<T, PIECE> low;
#pragma unroll
            for (int j = 0; j < PIECE; j++) {
                wide.x[j] = x[i][j] * spread * scale[at + j] + shift[at + j];
                low.x[j] = narrow(wide.x[j]);
            }
            if (normal) store(normal, row * WIDTH + at, wide);
            if (copy) store(copy, row * WIDTH + at, low);
        }
    }
}

// copy [rows, WIDTH] once more, from the sum and its statistics.
extern "C" __global__ void __launch_bounds__(THREADS) normalized_again(
    T* copy, const T* sum, const float* mean, const float* inverse, const float* scale, const float* shift, i64 rows) {
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    for (i64 row = (i64)blockIdx.x * WARPS + warp; row < rows; row += (i64)gridDim.x * WARPS) {
        float centre = mean[row], spread = inverse[row];
#pragma unroll
        for (int i = 0; i < EACH; i++) {
            int at = (i * 32 + lane) * PIECE;
            if (!WHOLE && at >= WIDTH) continue;
            Piece<T, PIECE> x = load<PIECE>(sum, row * WIDTH + at), y;
#pragma unroll
            for (int j = 0; j < PIECE; j++)
                y.x[j] = narrow((widen(x.x[j]) - centre) * spread * scale[at + j] + shift[at + j]);
            store(copy, row * WIDTH + at, y);
        }
    }
}

// d_residual and d_branch [rows, WIDTH], and every block's sums for bias, scale and shift,
// [blocks, 3, WIDTH]. Either gradient may be absent.
extern "C" __global__ void __launch_bounds__(THREADS, GRAD_BLOCKS) residual_norm_grad(
    float* d_residual, T* d_branch, float* parts, const float* d_normal, const T* d_copy, const T* sum,
    const float* scale, const float* mean, const float* inverse, const u32* row_factors, const u32* column_factors,
    i64 rows, u32 limit, float keep) {
    __shared__ float gathered[WARPS][32 * PIECE];
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    float d_bias[EACH][PIECE] = {}, d_scale[EACH][PIECE] = {}, d_shift[EACH][PIECE] = {};
    for (i64 row = (i64)blockIdx.x * WARPS + warp; row < rows; row += (i64)gridDim.x * WARPS) {
        float centre = mean[row], spread = inverse[row];
        u32 factor = limit ? row_factors[row] : 0;
        float g[EACH][PIECE], unit[EACH][PIECE], total = 0, product = 0;
#pragma unroll
        for (int i = 0; i < EACH; i++) {
            int at = (i * 32 + lane) * PIECE;
            bool in = WHOLE || at < WIDTH;
            Piece<float, PIECE> wide = {};
            Piece<T, PIECE> low = {}, x = {};
            if (in && d_normal) wide = load<PIECE>(d_normal, row * WIDTH + at);
            if (in && d_copy) low = load<PIECE>(d_copy, row * WIDTH + at);
            if (in) x = load<PIECE>(sum, row * WIDTH + at);
#pragma unroll
            for (int j = 0; j < PIECE; j++) {
                g[i][j] = wide.x[j] + widen(low.x[j]);
                unit[i][j] = in ? (widen(x.x[j]) - centre) * spread : 0.0f;
            }
        }
#pragma unroll
        for (int i = 0; i < EACH; i++) {
            int at = (i * 32 + lane) * PIECE;
#pragma unroll
            for (int j = 0; j < PIECE; j++) {
                d_scale[i][j] += g[i][j] * unit[i][j];
                d_shift[i][j] += g[i][j];
                g[i][j] *= WHOLE || at < WIDTH ? scale[at + j] : 0.0f;
                total += g[i][j];
                product += g[i][j] * unit[i][j];
            }
        }
        total = warp_sum(total) * (1.0f / WIDTH);
        product = warp_sum(product) * (1.0f / WIDTH);
#pragma unroll
        for (int i = 0; i < EACH; i++) {
            int at = (i * 32 + lane) * PIECE;
            if (!WHOLE && at >= WIDTH) continue;
            Piece<float, PIECE> wide;
            Piece<T, PIECE> low;
#pragma unroll
            for (int j = 0; j < PIECE; j++) {
                float dx = (g[i][j] - total - unit[i][j] * product) * spread;
                wide.x[j] = dx;
                if (limit) dx = factor * column_factors[at + j] < limit ? 0.0f : dx * keep;
                low.x[j] = narrow(dx);
                d_bias[i][j] += dx;
            }
            store(d_residual, row * WIDTH + at, wide);
            store(d_branch, row * WIDTH + at, low);
        }
    }
    for (int which = 0; which < 3; which++) {
#pragma unroll
        for (int i = 0; i < EACH; i++) {
#pragma unroll
            for (int j = 0; j < PIECE; j++)
                gathered[warp][lane * PIECE + j] = which == 0 ? d_bias[i][j] : which == 1 ? d_scale[i][j] : d_shift[i][j];
            __syncthreads();
            for (int c = threadIdx.x; c < 32 * PIECE; c += THREADS) {
                int column = i * 32 * PIECE + c;
                float all = 0;
                for (int w = 0; w < WARPS; w++) all += gathered[w][c];
                if (column < WIDTH) parts[((i64)blockIdx.x * 3 + which) * WIDTH + column] = all;
            }
            __syncthreads();
        }
    }
}
