// What the kernels between the matrix products share. Compiled by NVRTC without any header, in front of
// each of them, once for each ELEMENT (0: f32, 1: bf16, 2: f16).

#ifndef ELEMENT
#define ELEMENT 1
#endif

typedef unsigned int u32;
typedef unsigned short u16;
typedef unsigned char u8;
typedef long long i64;

#if ELEMENT == 0
typedef float T;
#else
typedef u16 T;
#endif

// Numbers that are loaded and stored at once, 16 bytes at a time.
template <class E, int N>
struct __align__(sizeof(E) * N < 16 ? sizeof(E) * N : 16) Piece {
    E x[N];
};

template <int N, class E>
__device__ __forceinline__ Piece<E, N> load(const E* from, i64 index) {
    return *(const Piece<E, N>*)(from + index);
}

template <int N, class E>
__device__ __forceinline__ void store(E* to, i64 index, const Piece<E, N>& piece) {
    *(Piece<E, N>*)(to + index) = piece;
}

__device__ __forceinline__ float widen(T x) {
#if ELEMENT == 0
    return x;
#elif ELEMENT == 1
    return __uint_as_float((u32)x << 16);
#else
    float f;
    asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(x));
    return f;
#endif
}

__device__ __forceinline__ T narrow(float x) {
#if ELEMENT == 0
    return x;
#else
    T r;
#if ELEMENT == 1
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(r) : "f"(x));
#else
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(r) : "f"(x));
#endif
    return r;
#endif
}

__device__ __forceinline__ float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
    for (int i = 16; i; i >>= 1) x += __shfl_xor_sync(0xffffffffu, x, i);
    return x;
}

// Sums over the parts of [parts, columns], the first `first` columns to one vector, the next `first` to
// another and so on, always in the same order. 256 threads; grid: enough blocks for 32 columns each.
extern "C" __global__ void __launch_bounds__(256) sum_parts(
    float* a, float* b, float* c, const float* parts, int count, int columns, int first) {
    __shared__ float partial[8][33];
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    int column = blockIdx.x * 32 + lane;
    float sum = 0;
    if (column < columns)
        for (int i = warp; i < count; i += 8) sum += parts[(i64)i * columns + column];
    partial[warp][lane] = sum;
    __syncthreads();
    if (warp == 0 && column < columns) {
        for (int i = 1; i < 8; i++) sum += partial[i][lane];
        float* to = column < first ? a : column < 2 * first ? b : c;
        to[column % first] = sum;
    }
}
