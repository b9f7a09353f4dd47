// The sum of all rows, in an order that follows from the sizes alone. A thread keeps PIECE columns and goes down the
// rows of its block; the blocks' sums are then added one after another.

#ifndef PIECE
#define PIECE 8
#endif

#define THREADS 96
#define AHEAD 8  // rows that are loaded before the first is used

// Each row of blocks' sums, [blocks, width]. Grid: (blocks for all columns, blocks that share the rows).
extern "C" __global__ void __launch_bounds__(THREADS) sum_rows(
    float* __restrict__ parts, const T* __restrict__ x, int rows, int width) {
    int column = (blockIdx.x * THREADS + threadIdx.x) * PIECE;
    if (column >= width) return;
    float sums[PIECE] = {};
    for (int first = blockIdx.y; first < rows; first += gridDim.y * AHEAD) {
        Piece<T, PIECE> in[AHEAD];
#pragma unroll
        for (int k = 0; k < AHEAD; k++) {
            int row = first + k * gridDim.y;
            if (row < rows) in[k] = load<PIECE>(x, (i64)row * width + column);
        }
#pragma unroll
        for (int k = 0; k < AHEAD; k++) {
            int row = first + k * gridDim.y;
            if (row >= rows) break;
#pragma unroll
            for (int j = 0; j < PIECE; j++) sums[j] += widen(in[k].x[j]);
        }
    }
#pragma unroll
    for (int j = 0; j < PIECE; j++) parts[(i64)blockIdx.y * width + column + j] = sums[j];
}

// Their sum, [width]. 256 threads; grid: enough blocks for 32 columns each.
extern "C" __global__ void __launch_bounds__(256) sum_of_blocks(T* y, const float* parts, int count, int width) {
    __shared__ float partial[8][33];
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    int column = blockIdx.x * 32 + lane;
    float sum = 0;
    if (column < width)
        for (int i = warp; i < count; i += 8) sum += parts[(i64)i * width + column];
    partial[warp][lane] = sum;
    __syncthreads();
    if (warp == 0 && column < width) {
        for (int i = 1; i < 8; i++) sum += partial[i][lane];
        y[column] = narrow(sum);
    }
}
