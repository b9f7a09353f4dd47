// Two-stream attention, forward and backward, by mma.sync: sm_80 and newer.
//
// Compiled by NVRTC without any header, once for each HEAD_DIM (32, 64, 96, 128), BF16 (1: bf16,
// 0: f16) and DROPOUT (0 or 1).
//
// Rows are L tokens (left = L - P not predicted, then P predicted), their P masked copies and, after
// the S = L + P content rows, P queries. A row has a limit u: it sees predicted key m where m < u and
// masked key m where m >= u; u is 0 for left tokens and masked copies, i + 1 for predicted token i,
// i for query i. So every row sees exactly one key in each of L slots: slot s < left is token s, slot
// left + m is either masked copy m (side A) or predicted token m (side B). Rows with limit 0 see side
// A alone; they go first, and the others follow in the order of their limits, so that a tile of rows
// skips nearly all of what none of them sees.

#ifndef HEAD_DIM
#define HEAD_DIM 64
#endif
#ifndef BF16
#define BF16 1
#endif
#ifndef DROPOUT
#define DROPOUT 1
#endif

typedef unsigned int u32;
typedef unsigned short u16;
typedef unsigned char u8;
typedef long long i64;

// Must agree with `Sizes` in two_stream.rs.
struct Sizes {
    int batch, heads;
    // Tokens of a row and how many are predicted; P = 0: a single stream.
    int length, predicted;
    // Rows of `query`: L + 2P, or only the last P of them.
    int rows;
    // Positions are below this; `bias` has 2 * positions - 1 columns.
    int positions;
    // Elements between two texts of a row of query, key and value, and of their gradients: the width of
    // all heads, or thrice that where the three are one tensor.
    int text_stride;
    float scale;  // head_dim ^ -0.5
    float keep_probability;
    u32 drop_limit;  // an element whose hash is below is dropped
};

// Elements between two rows of query, key, value and their gradients.
__device__ __forceinline__ i64 row_stride(const Sizes& z) { return (i64)z.batch * z.text_stride; }

// Blocks that share a multiprocessor, and so its registers; more spill, fewer wait.
#define FORWARD_BLOCKS (HEAD_DIM <= 64 ? 4 : 2)
#define BACKWARD_BLOCKS (HEAD_DIM <= 64 ? 3 : 2)

#define TILE 64
#define THREADS 128
#define PITCH (HEAD_DIM + 8)  // elements; rows 16 bytes apart in banks
#define TILE_BYTES (TILE * PITCH * 2)
#define KSTEPS (HEAD_DIM / 16)
#define NTILES (HEAD_DIM / 8)
#define CHUNKS (HEAD_DIM / 8)  // of 16 bytes in a row
#define LOG2E 1.4426950408889634f
#define LN2 0.6931471805599453f
#define NEG_INF __int_as_float(0xff800000)

// ---------------------------------------------------------------- instructions

__device__ __forceinline__ u32 shared_address(const void* p) {
    return (u32)__cvta_generic_to_shared(p);
}

// 16 bytes, or zeros where `valid` is false.
__device__ __forceinline__ void copy16(u32 to, const void* from, bool valid) {
    int bytes = valid ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
}

__device__ __forceinline__ void copy8(u32 to, const void* from, bool valid) {
    int bytes = valid ? 8 : 0;
    asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
}

__device__ __forceinline__ void commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
__device__ __forceinline__ void wait_all() { asm volatile("cp.async.wait_group 0;" ::: "memory"); }

__device__ __forceinline__ void load4(u32 (&r)[4], u32 address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(address) : "memory");
}

__device__ __forceinline__ void load4_transposed(u32 (&r)[4], u32 address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(address) : "memory");
}

// c += a (16 x 16) * b (16 x 8)
__device__ __forceinline__ void mma(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
#if BF16
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
#else
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
#endif
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ __forceinline__ u32 pack(float low, float high) {
    u32 r;
#if BF16
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

__device__ __forceinline__ float low_half(u32 x) {
#if BF16
    return __uint_as_float(x << 16);
#else
    float f;
    asm("{.reg .b16 a, b; mov.b32 {a, b}, %1; cvt.f32.f16 %0, a;}" : "=f"(f) : "r"(x));
    return f;
#endif
}

__device__ __forceinline__ float high_half(u32 x) {
#if BF16
    return __uint_as_float(x & 0xffff0000u);
#else
    float f;
    asm("{.reg .b16 a, b; mov.b32 {a, b}, %1; cvt.f32.f16 %0, b;}" : "=f"(f) : "r"(x));
    return f;
#endif
}

__device__ __forceinline__ float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

__device__ __forceinline__ float log2_fast(float x) {
    float y;
    asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

__device__ __forceinline__ float quad_max(float x) {
    x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
    return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
}

__device__ __forceinline__ float quad_sum(float x) {
    x += __shfl_xor_sync(0xffffffffu, x, 1);
    return x + __shfl_xor_sync(0xffffffffu, x, 2);
}

// ---------------------------------------------------------------- rows, slots, tiles

// Where a tile of rows is: `first` counts the rows of limit 0 or those of the other limits.
struct RowTile {
    bool mixed;
    int first, low, high;  // limits of its rows
};

__device__ __forceinline__ bool queries_only(const Sizes& z) { return z.rows == z.predicted && z.predicted > 0; }
__device__ __forceinline__ int plain_tiles(const Sizes& z) { return queries_only(z) ? 0 : (z.length + TILE - 1) / TILE; }
__device__ __forceinline__ int mixed_rows(const Sizes& z) { return queries_only(z) ? z.predicted : 2 * z.predicted; }
__device__ __forceinline__ int row_tiles(const Sizes& z) { return plain_tiles(z) + (mixed_rows(z) + TILE - 1) / TILE; }

__device__ __forceinline__ int mixed_limit(const Sizes& z, int x) { return queries_only(z) ? x : (x + 1) >> 1; }

__device__ __forceinline__ RowTile row_tile(const Sizes& z, int index) {
    RowTile t;
    int plain = plain_tiles(z);
    t.mixed = index >= plain;
    t.first = (t.mixed ? index - plain : index) * TILE;
    t.low = t.high = 0;
    if (t.mixed) {
        t.low = mixed_limit(z, t.first);
        t.high = mixed_limit(z, min(t.first + TILE, mixed_rows(z)) - 1);
    }
    return t;
}

// The row of `query` that is `offset` in the tile, or -1.
__device__ __forceinline__ int row_at(const Sizes& z, const RowTile& t, int offset) {
    int x = t.first + offset;
    if (!t.mixed) {
        if (x >= z.length) return -1;
        return x < z.length - z.predicted ? x : x + z.predicted;
    }
    if (x >= mixed_rows(z)) return -1;
    if (queries_only(z)) return x;
    return x & 1 ? z.length - z.predicted + (x >> 1) : z.length + z.predicted + (x >> 1);
}

__device__ __forceinline__ int limit_at(const Sizes& z, const RowTile& t, int offset) {
    return t.mixed ? mixed_limit(z, t.first + offset) : 0;
}

// A tile of slots on one side.
struct KeyTile {
    bool predicted;  // side B
    int first;
};

__device__ __forceinline__ int plain_key_tiles(const Sizes& z) { return (z.length + TILE - 1) / TILE; }
__device__ __forceinline__ int key_tiles(const Sizes& z) {
    int all = plain_key_tiles(z);
    return z.predicted ? 2 * all - (z.length - z.predicted) / TILE : all;
}

__device__ __forceinline__ KeyTile key_tile(const Sizes& z, int index) {
    int plain = plain_key_tiles(z);
    KeyTile t;
    t.predicted = index >= plain;
    t.first = (t.predicted ? index - plain + (z.length - z.predicted) / TILE : index) * TILE;
    return t;
}

// The key in a slot, or -1.
__device__ __forceinline__ int key_at(const Sizes& z, const KeyTile& t, int offset) {
    int slot = t.first + offset, left = z.length - z.predicted;
    if (slot >= z.length) return -1;
    if (t.predicted) return slot < left ? -1 : slot;
    return slot < left ? slot : slot + z.predicted;
}

// The number m of a slot's predicted token; larger than any limit where it has none.
__device__ __forceinline__ int mark_at(const Sizes& z, const KeyTile& t, int offset) {
    int m = t.first + offset - (z.length - z.predicted);
    return m < 0 ? 0x7fffffff : m;
}

enum Sight { NOTHING, SOME, ALL };

__device__ __forceinline__ Sight sight(const Sizes& z, const RowTile& r, const KeyTile& k) {
    int left = z.length - z.predicted;
    int end = min(k.first + TILE, z.length);
    bool marked = k.first >= left;  // every slot is of a predicted token
    int low = max(k.first - left, 0), high = end - 1 - left;
    if (k.predicted) {
        if (high < 0 || low >= r.high) return NOTHING;
        return marked && high < r.low ? ALL : SOME;
    }
    if (marked && high < r.low) return NOTHING;
    return high >= 0 && low < r.high ? SOME : ALL;
}

// ---------------------------------------------------------------- the bias in shared memory

// What is needed of a key: 4 * (position + positions), or 0 where nobody may see it, and its factor
// of the dropout hash.
struct KeyRecord {
    int place;
    u32 factor;
};

// What is needed of a row: 4 * (positions - 1 - position), its factor of the hash, log-sum-exp in
// base 2, and the sum of its scores' gradients.
struct RowRecord {
    int place;
    u32 factor;
    float lse, delta;
};

// Floats of a head's table: -inf for keys that nobody may see, the bias by distance in base 2, and filling up to
// 16 bytes.
__device__ __forceinline__ int bias_floats(const Sizes& z) { return (3 * z.positions + 3) & ~3; }

__device__ __forceinline__ void load_bias(float* to, const float* tables, const Sizes& z, int head) {
    int n = bias_floats(z);
    for (int i = threadIdx.x * 4; i < n; i += THREADS * 4) copy16(shared_address(to + i), tables + (i64)head * n + i, true);
}

__device__ __forceinline__ float at_byte(const float* base, int offset) {
    return *(const float*)((const char*)base + offset);
}

// ---------------------------------------------------------------- tiles from and to memory

// Rows of [*, B, H, HEAD_DIM] into shared memory; rows that are not there become zeros.
template <class Row>
__device__ __forceinline__ void load_rows(u32 to, const u16* from, i64 stride, Row row) {
    int first = row(0);
    if (THREADS % CHUNKS == 0 && first >= 0 && row(TILE - 1) == first + TILE - 1) {
        int r = threadIdx.x / CHUNKS, c = threadIdx.x % CHUNKS;
        const u16* source = from + (first + r) * stride + c * 8;
        to += r * (PITCH * 2) + c * 16;
#pragma unroll
        for (int i = 0; i < TILE * CHUNKS / THREADS; i++) {
            copy16(to, source, true);
            source += THREADS / CHUNKS * stride;
            to += THREADS / CHUNKS * (PITCH * 2);
        }
        return;
    }
    for (int i = threadIdx.x; i < TILE * CHUNKS; i += THREADS) {
        int r = i / CHUNKS, c = i % CHUNKS, index = row(r);
        copy16(to + r * (PITCH * 2) + c * 16, from + (index < 0 ? 0 : index) * stride + c * 8, index >= 0);
    }
}

// The address of this lane's row for ldmatrix of a 16 x 16 block: as A operand (or, transposed, as
// B operand with the 16 rows as its inner dimension).
__device__ __forceinline__ u32 block_address(u32 tile, int row, int column) {
    int lane = threadIdx.x & 31;
    return tile + ((row + (lane & 15)) * PITCH + column + (lane >> 4) * 8) * 2;
}

// The same as B operand with the 16 rows as columns of the product: r[0], r[1] for the first eight.
__device__ __forceinline__ u32 column_address(u32 tile, int row, int column) {
    int lane = threadIdx.x & 31;
    return tile + ((row + (lane & 7) + ((lane >> 4) << 3)) * PITCH + column + ((lane >> 3) & 1) * 8) * 2;
}

// A warp's 16 rows of results to memory.
template <class Row>
__device__ __forceinline__ void store_rows(u16* to, i64 stride, float (&c)[NTILES][4], float first, float second, int offset, Row row) {
    int lane = threadIdx.x & 31;
    int above = row(offset + (lane >> 2)), below = row(offset + (lane >> 2) + 8);
#pragma unroll
    for (int n = 0; n < NTILES; n++) {
        int column = n * 8 + (lane & 3) * 2;
        if (above >= 0) *(u32*)(to + above * stride + column) = pack(c[n][0] * first, c[n][1] * first);
        if (below >= 0) *(u32*)(to + below * stride + column) = pack(c[n][2] * second, c[n][3] * second);
    }
}

// ---------------------------------------------------------------- kernels

// Records of the keys, [B, S], and the heads' tables of the bias. `positions` [B, L + 2P], `keep` [B, S], `bias`
// [H, 2 * positions - 1]. Grid: enough threads for both, one behind the other.
extern "C" __global__ void __launch_bounds__(THREADS) prepare(
    KeyRecord* out, float* tables, const i64* positions, const u8* keep, const u32* key_factors, const float* bias,
    Sizes z) {
    int keys = z.length + z.predicted;
    int i = blockIdx.x * THREADS + threadIdx.x;
    if (i < z.batch * keys) {
        int b = i / keys, key = i % keys;
        KeyRecord record;
        record.place = keep[i] ? 4 * ((int)positions[(i64)b * (keys + z.predicted) + key] + z.positions) : 0;
        record.factor = DROPOUT ? key_factors[key] : 0;
        out[i] = record;
        return;
    }
    i -= z.batch * keys;
    if (i >= z.heads * bias_floats(z)) return;
    int head = i / bias_floats(z), distance = i % bias_floats(z) - z.positions, n = 2 * z.positions - 1;
    tables[i] = distance >= 0 && distance < n ? bias[(i64)head * n + distance] * LOG2E : NEG_INF;
}

// Context [R, B, H, HEAD_DIM] and log-sum-exp [B, H, R]. Grid: (row tiles, H, B).
extern "C" __global__ void __launch_bounds__(THREADS, FORWARD_BLOCKS) forward(
    u16* context, float* lse, const u16* query, const u16* key, const u16* value,
    const i64* positions, const KeyRecord* records, const float* tables,
    const u32* head_factors, const u32* row_factors, Sizes z) {
    extern __shared__ __align__(16) u8 shared[];
    u32 tiles = shared_address(shared);  // query, then two stages of key and value
    KeyRecord* key_info = (KeyRecord*)(shared + 5 * TILE_BYTES);  // [2][TILE]
    float* table = (float*)(key_info + 2 * TILE);

    int head = blockIdx.y, b = blockIdx.z;
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    int keys = z.length + z.predicted, all_rows = keys + z.predicted;
    RowTile rows = row_tile(z, gridDim.x - 1 - blockIdx.x);
    int column = (b * z.heads + head) * HEAD_DIM, inner = b * z.text_stride + head * HEAD_DIM;
    auto row_of = [&](int i) { return row_at(z, rows, i); };

    auto load = [&](int index, int stage) {
        KeyTile t = key_tile(z, index);
        auto key_of = [&](int i) { return key_at(z, t, i); };
        load_rows(tiles + (1 + 2 * stage) * TILE_BYTES, key + inner, row_stride(z), key_of);
        load_rows(tiles + (2 + 2 * stage) * TILE_BYTES, value + inner, row_stride(z), key_of);
        if (threadIdx.x < TILE) {
            int k = key_of(threadIdx.x);
            copy8(shared_address(key_info + stage * TILE + threadIdx.x), records + b * keys + max(k, 0), k >= 0);
        }
        commit();
    };
    int last = key_tiles(z);
    auto next = [&](int index) {
        while (index < last && sight(z, rows, key_tile(z, index)) == NOTHING) index++;
        return index;
    };

    load_rows(tiles, query + inner, row_stride(z), row_of);
    load_bias(table, tables, z, head);
    int current = next(0);
    load(current, 0);

    // This lane's rows.
    int place[2], limit[2];
    u32 factor[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
        int offset = warp * 16 + (lane >> 2) + 8 * i, row = max(row_of(offset), 0);
        int index = row + all_rows - z.rows;
        place[i] = 4 * (z.positions - 1 - (int)positions[(i64)b * all_rows + index]);
        limit[i] = limit_at(z, rows, offset);
        factor[i] = DROPOUT ? head_factors[b * z.heads + head] * row_factors[row] : 0;
    }
    float scale = z.scale * LOG2E;
    float peak[2] = {NEG_INF, NEG_INF}, total[2] = {0, 0};
    float out[NTILES][4] = {};
    u32 q[KSTEPS][4];

    wait_all();
    __syncthreads();
#pragma unroll
    for (int k = 0; k < KSTEPS; k++) load4(q[k], block_address(tiles, warp * 16, k * 16));

    for (int stage = 0; current < last; stage ^= 1) {
        wait_all();
        __syncthreads();
        int following = next(current + 1);
        if (following < last) load(following, stage ^ 1);
        KeyTile t = key_tile(z, current);
        bool partly = sight(z, rows, t) == SOME;
        current = following;
        u32 k_tile = tiles + (1 + 2 * stage) * TILE_BYTES, v_tile = k_tile + TILE_BYTES;
        const KeyRecord* info = key_info + stage * TILE;

        float s[TILE / 8][4] = {};
#pragma unroll
        for (int n = 0; n < TILE / 16; n++)
#pragma unroll
            for (int k = 0; k < KSTEPS; k++) {
                u32 r[4];
                load4(r, column_address(k_tile, n * 16, k * 16));
                mma(s[2 * n], q[k], r[0], r[1]);
                mma(s[2 * n + 1], q[k], r[2], r[3]);
            }
        float top[2] = {peak[0], peak[1]};
#pragma unroll
        for (int n = 0; n < TILE / 8; n++)
#pragma unroll
            for (int j = 0; j < 2; j++) {
                int key_place = info[n * 8 + (lane & 3) * 2 + j].place;
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    float x = s[n][2 * i + j] * scale + at_byte(table, key_place + place[i]);
                    s[n][2 * i + j] = x;
                }
            }
        if (partly) {
#pragma unroll
            for (int n = 0; n < TILE / 8; n++)
#pragma unroll
                for (int j = 0; j < 2; j++) {
                    int mark = mark_at(z, t, n * 8 + (lane & 3) * 2 + j);
#pragma unroll
                    for (int i = 0; i < 2; i++)
                        if ((limit[i] <= mark) == t.predicted) s[n][2 * i + j] = NEG_INF;
                }
        }
#pragma unroll
        for (int n = 0; n < TILE / 8; n++)
#pragma unroll
            for (int i = 0; i < 2; i++) top[i] = fmaxf(top[i], fmaxf(s[n][2 * i], s[n][2 * i + 1]));
#pragma unroll
        for (int i = 0; i < 2; i++) {
            top[i] = quad_max(top[i]);
            float base = top[i] == NEG_INF ? 0.0f : top[i];
            float shrink = exp2_fast(peak[i] - base);
            peak[i] = top[i];
            top[i] = base;
            total[i] *= shrink;
#pragma unroll
            for (int n = 0; n < NTILES; n++) {
                out[n][2 * i] *= shrink;
                out[n][2 * i + 1] *= shrink;
            }
        }
#pragma unroll
        for (int n = 0; n < TILE / 8; n++)
#pragma unroll
            for (int j = 0; j < 2; j++) {
                u32 key_factor = DROPOUT ? info[n * 8 + (lane & 3) * 2 + j].factor : 0;
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    float p = exp2_fast(s[n][2 * i + j] - top[i]);
                    total[i] += p;
                    if (DROPOUT && factor[i] * key_factor < z.drop_limit) p = 0.0f;
                    s[n][2 * i + j] = p;
                }
            }
#pragma unroll
        for (int k = 0; k < TILE / 16; k++) {
            u32 a[4];
            as_operand(a, s[2 * k], s[2 * k + 1]);
#pragma unroll
            for (int n = 0; n < NTILES / 2; n++) {
                u32 r[4];
                load4_transposed(r, block_address(v_tile, k * 16, n * 16));
                mma(out[2 * n], a, r[0], r[1]);
                mma(out[2 * n + 1], a, r[2], r[3]);
            }
        }
    }
    float inverse[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
        total[i] = quad_sum(total[i]);
        inverse[i] = total[i] > 0.0f ? 1.0f / (total[i] * z.keep_probability) : 0.0f;
        int row = row_of(warp * 16 + (lane >> 2) + 8 * i);
        if ((lane & 3) == 0 && row >= 0)
            lse[((i64)b * z.heads + head) * z.rows + row] = total[i] > 0.0f ? (peak[i] + log2_fast(total[i])) * LN2 : 0.0f;
    }
    store_rows(context + column, (i64)z.batch * z.heads * HEAD_DIM, out, inverse[0], inverse[1], warp * 16, row_of);
}

// What the backward kernels need of every row, [B, H, R], and the largest norm of a row of the
// context's gradient times that of a value, [B, H]: no score's gradient, before the division by the
// keep probability, exceeds half of it. Grid: (H, B).
extern "C" __global__ void __launch_bounds__(256) row_records(
    RowRecord* out, float* largest, const u16* context, const u16* d_context, const float* lse,
    const u16* value, const i64* positions, const u32* head_factors, const u32* row_factors, Sizes z) {
    __shared__ float norms[2][256 / 4];
    int head = blockIdx.x, b = blockIdx.y;
    int keys = z.length + z.predicted, all_rows = keys + z.predicted;
    i64 stride = (i64)z.batch * z.heads * HEAD_DIM;
    int column = (b * z.heads + head) * HEAD_DIM, inner = b * z.text_stride + head * HEAD_DIM;
    int part = threadIdx.x & 3;  // four threads a row
    float gradient_norm = 0, value_norm = 0;
    for (int first = 0; first < z.rows; first += 64) {
        int row = first + (threadIdx.x >> 2);
        float delta = 0, norm = 0;
        if (row < z.rows) {
            const uint4* o = (const uint4*)(context + row * stride + column);
            const uint4* g = (const uint4*)(d_context + row * stride + column);
            for (int c = part; c < CHUNKS; c += 4) {
                uint4 x = o[c], y = g[c];
                const u32 xs[4] = {x.x, x.y, x.z, x.w}, ys[4] = {y.x, y.y, y.z, y.w};
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    float lo = low_half(ys[i]), hi = high_half(ys[i]);
                    delta += low_half(xs[i]) * lo + high_half(xs[i]) * hi;
                    norm += lo * lo + hi * hi;
                }
            }
        }
        delta = quad_sum(delta);
        gradient_norm = fmaxf(gradient_norm, quad_sum(norm));
        if (row < z.rows && part == 0) {
            i64 index = ((i64)b * z.heads + head) * z.rows + row;
            RowRecord record;
            record.place = 4 * (z.positions - 1 - (int)positions[(i64)b * all_rows + row + all_rows - z.rows]);
            record.factor = DROPOUT ? head_factors[b * z.heads + head] * row_factors[row] : 0;
            record.lse = lse[index] * LOG2E;
            record.delta = delta * z.keep_probability;
            out[index] = record;
        }
    }
    for (int first = 0; first < keys; first += 64) {
        int row = first + (threadIdx.x >> 2);
        float norm = 0;
        if (row < keys) {
            const uint4* v = (const uint4*)(value + row * row_stride(z) + inner);
            for (int c = part; c < CHUNKS; c += 4) {
                uint4 x = v[c];
                const u32 xs[4] = {x.x, x.y, x.z, x.w};
#pragma unroll
                for (int i = 0; i < 4; i++) norm += low_half(xs[i]) * low_half(xs[i]) + high_half(xs[i]) * high_half(xs[i]);
            }
        }
        value_norm = fmaxf(value_norm, quad_sum(norm));
    }
    if (part == 0) {
        norms[0][threadIdx.x >> 2] = gradient_norm;
        norms[1][threadIdx.x >> 2] = value_norm;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        for (int i = 1; i < 64; i++) {
            gradient_norm = fmaxf(gradient_norm, norms[0][i]);
            value_norm = fmaxf(value_norm, norms[1][i]);
        }
        largest[b * z.heads + head] = sqrtf(gradient_norm) * sqrtf(value_norm);
    }
}

// With few registers to spare the operands that stay are read from shared memory each time.
#define RESIDENT (HEAD_DIM <= 64)

// Gradient of the queries [R, B, H, HEAD_DIM], and each tile's part of the bias' gradient,
// [B, row tiles, H, 2 * positions - 1]. Sums of the bias' gradient are integers, so that their order
// changes nothing. Grid: (row tiles, H, B).
extern "C" __global__ void __launch_bounds__(THREADS, BACKWARD_BLOCKS) backward_query(
    u16* d_query, float* d_bias_parts, const u16* d_context, const u16* query, const u16* key, const u16* value,
    const RowRecord* row_info, const KeyRecord* records, const float* largest, const float* tables, Sizes z) {
    extern __shared__ __align__(16) u8 shared[];
    u32 tiles = shared_address(shared);  // query, d_context, then two stages of key and value
    KeyRecord* key_info = (KeyRecord*)(shared + 6 * TILE_BYTES);  // [2][TILE]
    float* table = (float*)(key_info + 2 * TILE);
    int* sums = (int*)(table + bias_floats(z));

    int head = blockIdx.y, b = blockIdx.z;
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    int keys = z.length + z.predicted;
    int tile = gridDim.x - 1 - blockIdx.x;
    RowTile rows = row_tile(z, tile);
    i64 stride = (i64)z.batch * z.heads * HEAD_DIM;
    int column = (b * z.heads + head) * HEAD_DIM, inner = b * z.text_stride + head * HEAD_DIM;
    auto row_of = [&](int i) { return row_at(z, rows, i); };

    auto load = [&](int index, int stage) {
        KeyTile t = key_tile(z, index);
        auto key_of = [&](int i) { return key_at(z, t, i); };
        load_rows(tiles + (2 + 2 * stage) * TILE_BYTES, key + inner, row_stride(z), key_of);
        load_rows(tiles + (3 + 2 * stage) * TILE_BYTES, value + inner, row_stride(z), key_of);
        if (threadIdx.x < TILE) {
            int k = key_of(threadIdx.x);
            copy8(shared_address(key_info + stage * TILE + threadIdx.x), records + b * keys + max(k, 0), k >= 0);
        }
        commit();
    };
    int last = key_tiles(z);
    auto next = [&](int index) {
        while (index < last && sight(z, rows, key_tile(z, index)) == NOTHING) index++;
        return index;
    };

    load_rows(tiles, query + inner, row_stride(z), row_of);
    load_rows(tiles + TILE_BYTES, d_context + column, stride, row_of);
    load_bias(table, tables, z, head);
    int current = next(0);
    load(current, 0);
    for (int i = threadIdx.x; i < bias_floats(z); i += THREADS) sums[i] = 0;

    int place[2], limit[2];
    u32 factor[2];
    float row_lse[2], delta[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
        int offset = warp * 16 + (lane >> 2) + 8 * i, row = row_of(offset);
        RowRecord record = {0, 0, 0.0f, 0.0f};
        if (row >= 0) record = row_info[((i64)b * z.heads + head) * z.rows + row];
        place[i] = record.place;
        factor[i] = record.factor;
        row_lse[i] = record.lse;
        delta[i] = record.delta;
        limit[i] = limit_at(z, rows, offset);
    }
    float scale = z.scale * LOG2E;
    // |x| is at most largest / 2, and adding 1.5 * 2^23 rounds up to 2^22 to an integer.
    float bound = largest[b * z.heads + head];
    float unit = bound > 0.0f ? 7.5e6f / bound : 0.0f;
    const float magic = 12582912.0f;
    float dq[NTILES][4] = {};
    u32 q[RESIDENT ? KSTEPS : 1][4], g[RESIDENT ? KSTEPS : 1][4];

    wait_all();
    __syncthreads();
    if (RESIDENT) {
#pragma unroll
        for (int k = 0; k < KSTEPS; k++) {
            load4(q[RESIDENT ? k : 0], block_address(tiles, warp * 16, k * 16));
            load4(g[RESIDENT ? k : 0], block_address(tiles + TILE_BYTES, warp * 16, k * 16));
        }
    }

    for (int stage = 0; current < last; stage ^= 1) {
        wait_all();
        __syncthreads();
        int following = next(current + 1);
        if (following < last) load(following, stage ^ 1);
        KeyTile t = key_tile(z, current);
        bool partly = sight(z, rows, t) == SOME;
        current = following;
        u32 k_tile = tiles + (2 + 2 * stage) * TILE_BYTES, v_tile = k_tile + TILE_BYTES;
        const KeyRecord* info = key_info + stage * TILE;

#pragma unroll
        for (int c = 0; c < TILE / 16; c++) {
            float s[2][4] = {}, dp[2][4] = {};
#pragma unroll
            for (int k = 0; k < KSTEPS; k++) {
                u32 r[4], rows_q[4], rows_g[4];
                if (!RESIDENT) {
                    load4(rows_q, block_address(tiles, warp * 16, k * 16));
                    load4(rows_g, block_address(tiles + TILE_BYTES, warp * 16, k * 16));
                }
                load4(r, column_address(k_tile, c * 16, k * 16));
                mma(s[0], RESIDENT ? q[RESIDENT ? k : 0] : rows_q, r[0], r[1]);
                mma(s[1], RESIDENT ? q[RESIDENT ? k : 0] : rows_q, r[2], r[3]);
                load4(r, column_address(v_tile, c * 16, k * 16));
                mma(dp[0], RESIDENT ? g[RESIDENT ? k : 0] : rows_g, r[0], r[1]);
                mma(dp[1], RESIDENT ? g[RESIDENT ? k : 0] : rows_g, r[2], r[3]);
            }
#pragma unroll
            for (int n = 0; n < 2; n++)
#pragma unroll
                for (int j = 0; j < 2; j++) {
                    int offset = c * 16 + n * 8 + (lane & 3) * 2 + j;
                    KeyRecord record = info[offset];
                    int mark = partly ? mark_at(z, t, offset) : 0;
#pragma unroll
                    for (int i = 0; i < 2; i++) {
                        int at = record.place + place[i];
                        float x = s[n][2 * i + j] * scale + at_byte(table, at) - row_lse[i];
                        float p = exp2_fast(x);
                        if (partly && (limit[i] <= mark) == t.predicted) p = 0.0f;
                        float d = dp[n][2 * i + j];
                        if (DROPOUT && factor[i] * record.factor < z.drop_limit) d = 0.0f;
                        float ds = p * (d - delta[i]);
                        s[n][2 * i + j] = ds;
                        int units = __float_as_int(ds * unit + magic) - 0x4b400000;
                        atomicAdd((int*)((char*)sums + at), units);
                    }
                }
            u32 a[4];
            as_operand(a, s[0], s[1]);
#pragma unroll
            for (int n = 0; n < NTILES / 2; n++) {
                u32 r[4];
                load4_transposed(r, block_address(k_tile, c * 16, n * 16));
                mma(dq[2 * n], a, r[0], r[1]);
                mma(dq[2 * n + 1], a, r[2], r[3]);
            }
        }
    }
    float back = z.scale / z.keep_probability;
    store_rows(d_query + inner, row_stride(z), dq, back, back, warp * 16, row_of);
    __syncthreads();
    int columns = 2 * z.positions - 1;
    float* parts = d_bias_parts + (((i64)b * gridDim.x + tile) * z.heads + head) * columns;
    float whole = bound > 0.0f ? bound / (7.5e6f * z.keep_probability) : 0.0f;
    for (int i = threadIdx.x; i < columns; i += THREADS) parts[i] = (float)sums[i + z.positions] * whole;
}

// The parts of the bias' gradient, [parts, H * (2 * positions - 1)], summed. Grid: enough warps for
// 32 columns each; a block's warps share out the parts.
extern "C" __global__ void __launch_bounds__(256) sum_bias(float* d_bias, const float* parts, int count, int columns) {
    __shared__ float partial[8][33];
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    int c = blockIdx.x * 32 + lane;
    float sum = 0;
    if (c < columns)
        for (int i = warp; i < count; i += 8) sum += parts[(i64)i * columns + c];
    partial[warp][lane] = sum;
    __syncthreads();
    if (warp == 0 && c < columns) {
        for (int i = 1; i < 8; i++) sum += partial[i][lane];
        d_bias[c] = sum;
    }
}

// Zeros as gradients of what the rows behind the keys have as keys and values, in one tensor with the
// queries, [L + 2P, B, 3, H, HEAD_DIM]. Grid: (P, B).
extern "C" __global__ void __launch_bounds__(THREADS) clear_behind_keys(u16* packed, Sizes z) {
    int width = z.heads * HEAD_DIM;
    i64 row = z.length + z.predicted + blockIdx.x;
    uint4* to = (uint4*)(packed + row * row_stride(z) + blockIdx.y * z.text_stride + width);
    for (int i = threadIdx.x; i < 2 * width / 8; i += THREADS) to[i] = make_uint4(0, 0, 0, 0);
}

// Gradients of the keys and the values, [S, B, H, HEAD_DIM]. Grid: (key tiles, H, B).
extern "C" __global__ void __launch_bounds__(THREADS, BACKWARD_BLOCKS) backward_key_value(
    u16* d_key, u16* d_value, const u16* d_context, const u16* query, const u16* key, const u16* value,
    const RowRecord* row_info, const KeyRecord* records, const float* tables, Sizes z) {
    extern __shared__ __align__(16) u8 shared[];
    u32 tiles = shared_address(shared);  // key, value, then two stages of query and d_context
    RowRecord* row_records = (RowRecord*)(shared + 6 * TILE_BYTES);  // [2][TILE]
    float* table = (float*)(row_records + 2 * TILE);

    int head = blockIdx.y, b = blockIdx.z;
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    int keys = z.length + z.predicted;
    KeyTile t = key_tile(z, blockIdx.x);
    i64 stride = (i64)z.batch * z.heads * HEAD_DIM;
    int column = (b * z.heads + head) * HEAD_DIM, inner = b * z.text_stride + head * HEAD_DIM;
    auto key_of = [&](int i) { return key_at(z, t, i); };

    auto load = [&](int index, int stage) {
        RowTile rows = row_tile(z, index);
        auto row_of = [&](int i) { return row_at(z, rows, i); };
        load_rows(tiles + (2 + 2 * stage) * TILE_BYTES, query + inner, row_stride(z), row_of);
        load_rows(tiles + (3 + 2 * stage) * TILE_BYTES, d_context + column, stride, row_of);
        if (threadIdx.x < TILE) {
            int r = row_of(threadIdx.x);
            const RowRecord* from = row_info + ((i64)b * z.heads + head) * z.rows + max(r, 0);
            copy16(shared_address(row_records + stage * TILE + threadIdx.x), from, r >= 0);
        }
        commit();
    };
    int last = row_tiles(z);
    auto next = [&](int index) {
        while (index < last && sight(z, row_tile(z, index), t) == NOTHING) index++;
        return index;
    };

    load_rows(tiles, key + inner, row_stride(z), key_of);
    load_rows(tiles + TILE_BYTES, value + inner, row_stride(z), key_of);
    load_bias(table, tables, z, head);
    int current = next(0);
    if (current < last) load(current, 0);

    int place[2], mark[2];
    u32 factor[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
        int offset = warp * 16 + (lane >> 2) + 8 * i, k = key_of(offset);
        KeyRecord record = {0, 0};
        if (k >= 0) record = records[b * keys + k];
        place[i] = record.place;
        factor[i] = record.factor;
        mark[i] = mark_at(z, t, offset);
    }
    float scale = z.scale * LOG2E;
    float dk[NTILES][4] = {}, dv[NTILES][4] = {};
    u32 k_rows[RESIDENT ? KSTEPS : 1][4], v_rows[RESIDENT ? KSTEPS : 1][4];

    commit();
    wait_all();
    __syncthreads();
    if (RESIDENT) {
#pragma unroll
        for (int k = 0; k < KSTEPS; k++) {
            load4(k_rows[RESIDENT ? k : 0], block_address(tiles, warp * 16, k * 16));
            load4(v_rows[RESIDENT ? k : 0], block_address(tiles + TILE_BYTES, warp * 16, k * 16));
        }
    }

    for (int stage = 0; current < last; stage ^= 1) {
        wait_all();
        __syncthreads();
        int following = next(current + 1);
        if (following < last) load(following, stage ^ 1);
        RowTile rows = row_tile(z, current);
        bool partly = sight(z, rows, t) == SOME;
        current = following;
        u32 q_tile = tiles + (2 + 2 * stage) * TILE_BYTES, g_tile = q_tile + TILE_BYTES;
        const RowRecord* info = row_records + stage * TILE;

#pragma unroll
        for (int c = 0; c < TILE / 16; c++) {
            float s[2][4] = {}, dp[2][4] = {};  // [key, row]
#pragma unroll
            for (int k = 0; k < KSTEPS; k++) {
                u32 r[4], own_k[4], own_v[4];
                if (!RESIDENT) {
                    load4(own_k, block_address(tiles, warp * 16, k * 16));
                    load4(own_v, block_address(tiles + TILE_BYTES, warp * 16, k * 16));
                }
                load4(r, column_address(q_tile, c * 16, k * 16));
                mma(s[0], RESIDENT ? k_rows[RESIDENT ? k : 0] : own_k, r[0], r[1]);
                mma(s[1], RESIDENT ? k_rows[RESIDENT ? k : 0] : own_k, r[2], r[3]);
                load4(r, column_address(g_tile, c * 16, k * 16));
                mma(dp[0], RESIDENT ? v_rows[RESIDENT ? k : 0] : own_v, r[0], r[1]);
                mma(dp[1], RESIDENT ? v_rows[RESIDENT ? k : 0] : own_v, r[2], r[3]);
            }
#pragma unroll
            for (int n = 0; n < 2; n++)
#pragma unroll
                for (int j = 0; j < 2; j++) {
                    int offset = c * 16 + n * 8 + (lane & 3) * 2 + j;
                    RowRecord record = info[offset];
                    int limit = partly ? limit_at(z, rows, offset) : 0;
#pragma unroll
                    for (int i = 0; i < 2; i++) {
                        float x = s[n][2 * i + j] * scale + at_byte(table, place[i] + record.place) - record.lse;
                        float p = exp2_fast(x);
                        if (partly && (limit <= mark[i]) == t.predicted) p = 0.0f;
                        float d = dp[n][2 * i + j];
                        bool drop = DROPOUT && factor[i] * record.factor < z.drop_limit;
                        if (drop) d = 0.0f;
                        dp[n][2 * i + j] = p * (d - record.delta);
                        s[n][2 * i + j] = drop ? 0.0f : p;
                    }
                }
            u32 a[4], e[4];
            as_operand(a, s[0], s[1]);
            as_operand(e, dp[0], dp[1]);
#pragma unroll
            for (int n = 0; n < NTILES / 2; n++) {
                u32 r[4];
                load4_transposed(r, block_address(g_tile, c * 16, n * 16));
                mma(dv[2 * n], a, r[0], r[1]);
                mma(dv[2 * n + 1], a, r[2], r[3]);
                load4_transposed(r, block_address(q_tile, c * 16, n * 16));
                mma(dk[2 * n], e, r[0], r[1]);
                mma(dk[2 * n + 1], e, r[2], r[3]);
            }
        }
    }
    float back = 1.0f / z.keep_probability;
    store_rows(d_value + inner, row_stride(z), dv, back, back, warp * 16, key_of);
    back *= z.scale;
    store_rows(d_key + inner, row_stride(z), dk, back, back, warp * 16, key_of);
}
