// AdamW's update of a segment in one pass. What is written may lie where it was read.

#define THREADS 256

struct Numbers {
    float factor, step, decay, correction;
};

__device__ __forceinline__ void update(
    float& p, float g, float& m, float& v, const Numbers& n, float beta1, float beta2, float epsilon) {
    g *= n.factor;
    m = beta1 * m + (1.0f - beta1) * g;
    v = beta2 * v + (1.0f - beta2) * (g * g);
    p = p * n.decay - m / (sqrtf(v) * n.correction + epsilon) * n.step;
}

// The old values where the norm is not finite.
extern "C" __global__ void __launch_bounds__(THREADS) adamw(
    float* new_p, float* new_m, float* new_v, const float* p, const float* g, const float* m, const float* v,
    const float* norm, const float* factor, const float* step, const float* decay, const float* correction, i64 count,
    float beta1, float beta2, float epsilon) {
    Numbers n = {factor[0], step[0], decay[0], correction[0]};
    bool finite = norm[0] < __int_as_float(0x7f800000);
    i64 thread = (i64)blockIdx.x * THREADS + threadIdx.x, threads = (i64)gridDim.x * THREADS;
    for (i64 i = thread * 4; i + 4 <= count; i += threads * 4) {
        Piece<float, 4> a = load<4>(p, i), d = load<4>(g, i), b = load<4>(m, i), c = load<4>(v, i);
#pragma unroll
        for (int j = 0; j < 4; j++)
            if (finite) update(a.x[j], d.x[j], b.x[j], c.x[j], n, beta1, beta2, epsilon);
        store(new_p, i, a);
        store(new_m, i, b);
        store(new_v, i, c);
    }
    i64 i = count / 4 * 4 + thread;
    if (i < count) {
        float a = p[i], b = m[i], c = v[i];
        if (finite) update(a, g[i], b, c, n, beta1, beta2, epsilon);
        new_p[i] = a;
        new_m[i] = b;
        new_v[i] = c;
    }
}
