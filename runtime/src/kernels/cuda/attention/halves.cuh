// Results of products in 16 bits, as the operands of others and in memory: what the kernels on tensor cores share.
// Behind `two_stream.cuh`, ELEMENT 1 (bf16) or 2 (f16).

#define NTILES (HEAD_DIM / 8)
#define KSTEPS (HEAD_DIM / 16)

__device__ __forceinline__ u32 pack(float low, float high) {
    u32 r;
#if ELEMENT == 1
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
#else
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
#endif
    return r;
}

// Two results of products, 8 columns each, as A operand of the next.
__device__ __forceinline__ void as_operand(u32 (&a)[4], const float (&left)[4], const float (&right)[4]) {
    a[0] = pack(left[0], left[1]);
    a[1] = pack(left[2], left[3]);
    a[2] = pack(right[0], right[1]);
    a[3] = pack(right[2], right[3]);
}

// A warp's 16 rows of results to memory.
template <class Row>
__device__ __forceinline__ void store_rows(T* to, i64 stride, float (&c)[NTILES][4], float first, float second, int offset, Row row) {
    int lane = threadIdx.x & 31;
    int above = row(offset + (lane >> 2)), below = row(offset + (lane >> 2) + 8);
#pragma unroll
    for (int n = 0; n < NTILES; n++) {
        int column = n * 8 + (lane & 3) * 2;
        if (above >= 0) *(u32*)(to + above * stride + column) = pack(c[n][0] * first, c[n][1] * first);
        if (below >= 0) *(u32*)(to + below * stride + column) = pack(c[n][2] * second, c[n][3] * second);
    }
}
