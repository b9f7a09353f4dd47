// Cross entropy of logits x + bias against targets, with every row's best class; its derivative.

#ifndef PIECE
#define PIECE 8
#endif

#define THREADS 256
#define LOG2E 1.4426950408889634f
#define LN2 0.6931471805599453f

// A row's largest logit, its first place, and the sum of exponentials below it.
struct Peak {
    float logit, sum;
    int place;
};

__device__ __forceinline__ Peak join(Peak a, Peak b) {
    bool first = a.logit > b.logit || (a.logit == b.logit && a.place < b.place);
    Peak high = first ? a : b, low = first ? b : a;
    if (low.sum > 0.0f) high.sum += low.sum * exp2_fast((low.logit - high.logit) * LOG2E);
    return high;
}

// Each row's best class, logarithm of the sum of exponentials and loss, 0 where the target is ignored. A
// NaN makes the row's sum and loss NaN. Grid: rows.
extern "C" __global__ void __launch_bounds__(THREADS) cross_entropy(
    i64* best, float* sums, float* losses, const T* x, const float* bias, const i64* targets, int classes, i64 ignored) {
    __shared__ Peak peaks[THREADS / 32];
    const T* row = x + (i64)blockIdx.x * classes;
    Peak peak = {__int_as_float(0xff800000), 0.0f, 0x7fffffff};
    float poison = 0.0f;
    for (int at = threadIdx.x * PIECE; at < classes; at += THREADS * PIECE) {
        Piece<T, PIECE> in = load<PIECE>(row, at);
        float logits[PIECE], top = peak.logit;
        int place = peak.place;
#pragma unroll
        for (int j = 0; j < PIECE; j++) {
            logits[j] = widen(in.x[j]) + bias[at + j];
            if (logits[j] != logits[j]) poison = logits[j];
            if (logits[j] > top) {
                top = logits[j];
                place = at + j;
            }
        }
        if (top == __int_as_float(0xff800000)) continue;
        if (peak.sum > 0.0f) peak.sum *= exp2_fast((peak.logit - top) * LOG2E);
        peak.logit = top;
        peak.place = place;
#pragma unroll
        for (int j = 0; j < PIECE; j++) peak.sum += exp2_fast((logits[j] - top) * LOG2E);
    }
    peak.sum += poison;
#pragma unroll
    for (int i = 16; i; i >>= 1) {
        Peak other;
        other.logit = __shfl_xor_sync(0xffffffffu, peak.logit, i);
        other.sum = __shfl_xor_sync(0xffffffffu, peak.sum, i);
        other.place = __shfl_xor_sync(0xffffffffu, peak.place, i);
        float bad = other.sum * 0.0f + peak.sum * 0.0f;
        peak = join(peak, other);
        peak.sum += bad;
    }
    if ((threadIdx.x & 31) == 0) peaks[threadIdx.x >> 5] = peak;
    __syncthreads();
    if (threadIdx.x == 0) {
        for (int i = 1; i < THREADS / 32; i++) {
            float bad = peaks[i].sum * 0.0f + peak.sum * 0.0f;
            peak = join(peak, peaks[i]);
            peak.sum += bad;
        }
        i64 target = targets[blockIdx.x];
        float sum = peak.logit + __logf(peak.sum);
        float of_target = target >= 0 && target < classes ? widen(row[target]) + bias[target] : __int_as_float(0x7fc00000);
        best[blockIdx.x] = peak.place < classes ? peak.place : 0;
        sums[blockIdx.x] = sum;
        losses[blockIdx.x] = target == ignored ? 0.0f : sum - of_target;
    }
}

// The sum of the rows' losses, always in the same order. One block.
extern "C" __global__ void __launch_bounds__(THREADS) sum_losses(float* loss, const float* losses, int rows) {
    __shared__ float partial[THREADS / 32];
    float sum = 0;
    for (int i = threadIdx.x; i < rows; i += THREADS) sum += losses[i];
    sum = warp_sum(sum);
    if ((threadIdx.x & 31) == 0) partial[threadIdx.x >> 5] = sum;
    __syncthreads();
    if (threadIdx.x == 0) {
        for (int i = 1; i < THREADS / 32; i++) sum += partial[i];
        loss[0] = sum;
    }
}

// dx [rows, classes], and each row of blocks' sums for the bias, [blocks, classes]. A thread keeps PIECE
// classes. Grid: (blocks for all classes, blocks that share the rows).
extern "C" __global__ void __launch_bounds__(THREADS) cross_entropy_grad(
    T* dx, float* parts, const float* d_loss, const T* x, const float* bias, const i64* targets, const float* sums,
    int rows, int classes, i64 ignored) {
    int column = (blockIdx.x * THREADS + threadIdx.x) * PIECE;
    if (column >= classes) return;
    float b[PIECE], d_bias[PIECE] = {}, weight = d_loss[0];
#pragma unroll
    for (int j = 0; j < PIECE; j++) b[j] = bias[column + j];
    for (int row = blockIdx.y; row < rows; row += gridDim.y) {
        i64 target = targets[row];
        float sum = sums[row];
        Piece<T, PIECE> in = load<PIECE>(x, (i64)row * classes + column), out;
#pragma unroll
        for (int j = 0; j < PIECE; j++) {
            float d = exp2_fast((widen(in.x[j]) + b[j] - sum) * LOG2E);
            if (target == column + j) d -= 1.0f;
            d = target == ignored ? 0.0f : d * weight;
            d_bias[j] += d;
            out.x[j] = narrow(d);
        }
        store(dx, (i64)row * classes + column, out);
    }
#pragma unroll
    for (int j = 0; j < PIECE; j++) parts[(i64)blockIdx.y * classes + column + j] = d_bias[j];
}
