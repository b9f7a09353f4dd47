// What becomes of gradients: sums over micro-batches, and the sum of all their squares.

#define THREADS 256

// sum = so_far + gradient; the new sum may lie where the old one does.
extern "C" __global__ void __launch_bounds__(THREADS) add_gradient(
    float* sum, const float* so_far, const float* gradient, i64 count, int aligned) {
    i64 thread = (i64)blockIdx.x * THREADS + threadIdx.x, threads = (i64)gridDim.x * THREADS;
    i64 whole = aligned ? count / 4 * 4 : 0;
    for (i64 i = thread * 4; i < whole; i += threads * 4) {
        Piece<float, 4> a = load<4>(so_far, i), b = load<4>(gradient, i);
#pragma unroll
        for (int j = 0; j < 4; j++) a.x[j] += b.x[j];
        store(sum, i, a);
    }
    for (i64 i = whole + thread; i < count; i += threads) sum[i] = so_far[i] + gradient[i];
}

__device__ __forceinline__ float block_sum(float x) {
    __shared__ float of_warps[THREADS / 32];
    x = warp_sum(x);
    if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = x;
    __syncthreads();
    x = 0;
    if (threadIdx.x == 0)
        for (int i = 0; i < THREADS / 32; i++) x += of_warps[i];
    return x;
}

// The sum of the squares that each block reads, in an order that follows from count and grid alone.
extern "C" __global__ void __launch_bounds__(THREADS) sum_squares(float* parts, const float* x, i64 count, int aligned) {
    i64 thread = (i64)blockIdx.x * THREADS + threadIdx.x, threads = (i64)gridDim.x * THREADS;
    float sums[4] = {0, 0, 0, 0};
    i64 whole = aligned ? count / 4 * 4 : 0;
    for (i64 i = thread * 4; i < whole; i += threads * 4) {
        Piece<float, 4> a = load<4>(x, i);
#pragma unroll
        for (int j = 0; j < 4; j++) sums[j] += a.x[j] * a.x[j];
    }
    for (i64 i = whole + thread; i < count; i += threads) sums[0] += x[i] * x[i];
    float sum = block_sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
    if (threadIdx.x == 0) parts[blockIdx.x] = sum;
}

// The sum of the parts, by one block.
extern "C" __global__ void __launch_bounds__(THREADS) sum_of_parts(float* total, const float* parts, int count) {
    float sum = 0;
    for (int i = threadIdx.x; i < count; i += THREADS) sum += parts[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) total[0] = sum;
}
