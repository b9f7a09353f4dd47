// Two-stream attention: which row sees which key, the bias, and what both ways of computing share. Behind
// `common.cuh`; compiled once for each ELEMENT, HEAD_DIM, DROPOUT (0 or 1) and TILE.
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
#ifndef DROPOUT
#define DROPOUT 1
#endif
// Rows, and slots, of a tile.
#ifndef TILE
#define TILE 64
#endif

// Must agree with `Sizes` in attention.rs.
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

#define THREADS 128
#define CHUNK (16 / (int)sizeof(T))  // elements of 16 bytes
#define CHUNKS (HEAD_DIM / CHUNK)    // in a row
#define PITCH (HEAD_DIM + CHUNK)     // elements between rows in shared memory, which are 16 bytes apart in banks
#define TILE_BYTES (TILE * PITCH * (int)sizeof(T))
#define LOG2E 1.4426950408889634f
#define LN2 0.6931471805599453f
#define NEG_INF __int_as_float(0xff800000)

// Where a head of a text begins in a row of all heads, and in one of queries, keys and values.
__device__ __forceinline__ int head_column(const Sizes& z, int b, int head) { return (b * z.heads + head) * HEAD_DIM; }
__device__ __forceinline__ int inner_column(const Sizes& z, int b, int head) { return b * z.text_stride + head * HEAD_DIM; }
__device__ __forceinline__ i64 head_stride(const Sizes& z) { return (i64)z.batch * z.heads * HEAD_DIM; }

// ---------------------------------------------------------------- copies to shared memory

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
__device__ __forceinline__ void load_rows(u32 to, const T* from, i64 stride, Row row) {
    int first = row(0);
    if (THREADS % CHUNKS == 0 && TILE * CHUNKS >= THREADS && first >= 0 && row(TILE - 1) == first + TILE - 1) {
        int r = threadIdx.x / CHUNKS, c = threadIdx.x % CHUNKS;
        const T* source = from + (first + r) * stride + c * CHUNK;
        to += r * (PITCH * (int)sizeof(T)) + c * 16;
#pragma unroll
        for (int i = 0; i < TILE * CHUNKS / THREADS; i++) {
            copy16(to, source, true);
            source += THREADS / CHUNKS * stride;
            to += THREADS / CHUNKS * (PITCH * (int)sizeof(T));
        }
        return;
    }
    for (int i = threadIdx.x; i < TILE * CHUNKS; i += THREADS) {
        int r = i / CHUNKS, c = i % CHUNKS, index = row(r);
        copy16(to + r * (PITCH * (int)sizeof(T)) + c * 16, from + (index < 0 ? 0 : index) * stride + c * CHUNK, index >= 0);
    }
}

// A tile of keys, their values and their records.
__device__ __forceinline__ void load_keys(
    u32 key_tile, u32 value_tile, KeyRecord* info, const T* key, const T* value, const KeyRecord* records,
    const Sizes& z, const KeyTile& t, int b, int head) {
    auto key_of = [&](int i) { return key_at(z, t, i); };
    int inner = inner_column(z, b, head), keys = z.length + z.predicted;
    load_rows(key_tile, key + inner, row_stride(z), key_of);
    load_rows(value_tile, value + inner, row_stride(z), key_of);
    if (threadIdx.x < TILE) {
        int k = key_of(threadIdx.x);
        copy8(shared_address(info + threadIdx.x), records + b * keys + max(k, 0), k >= 0);
    }
    commit();
}

// A tile of queries, the context's gradients and the rows' records.
__device__ __forceinline__ void load_queries(
    u32 query_tile, u32 gradient_tile, RowRecord* info, const T* query, const T* d_context, const RowRecord* records,
    const Sizes& z, const RowTile& t, int b, int head) {
    auto row_of = [&](int i) { return row_at(z, t, i); };
    load_rows(query_tile, query + inner_column(z, b, head), row_stride(z), row_of);
    load_rows(gradient_tile, d_context + head_column(z, b, head), head_stride(z), row_of);
    if (threadIdx.x < TILE) {
        int r = row_of(threadIdx.x);
        const RowRecord* from = records + ((i64)b * z.heads + head) * z.rows + max(r, 0);
        copy16(shared_address(info + threadIdx.x), from, r >= 0);
    }
    commit();
}

// The next tile of keys, from `index` on, of which one of the rows sees something.
__device__ __forceinline__ int next_keys(const Sizes& z, const RowTile& rows, int index, int last) {
    while (index < last && sight(z, rows, key_tile(z, index)) == NOTHING) index++;
    return index;
}

// The next tile of rows, from `index` on, that see something of the keys.
__device__ __forceinline__ int next_rows(const Sizes& z, const KeyTile& t, int index, int last) {
    while (index < last && sight(z, row_tile(z, index), t) == NOTHING) index++;
    return index;
}

// What the bias' gradient is counted in: |x| is at most `bound` / 2, and adding 1.5 * 2^23 rounds up to 2^22 to
// an integer.
#define UNITS 7.5e6f
__device__ __forceinline__ int round_units(float x) { return __float_as_int(x + 12582912.0f) - 0x4b400000; }

// ---------------------------------------------------------------- kernels around the products

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

// What the backward kernels need of every row, [B, H, R], and the largest norm of a row of the
// context's gradient times that of a value, [B, H]: no score's gradient, before the division by the
// keep probability, exceeds half of it. Grid: (H, B).
extern "C" __global__ void __launch_bounds__(256) row_records(
    RowRecord* out, float* largest, const T* context, const T* d_context, const float* lse,
    const T* value, const i64* positions, const u32* head_factors, const u32* row_factors, Sizes z) {
    __shared__ float norms[2][256 / 4];
    int head = blockIdx.x, b = blockIdx.y;
    int keys = z.length + z.predicted, all_rows = keys + z.predicted;
    i64 stride = head_stride(z);
    int column = head_column(z, b, head), inner = inner_column(z, b, head);
    int part = threadIdx.x & 3;  // four threads a row
    float gradient_norm = 0, value_norm = 0;
    for (int first = 0; first < z.rows; first += 64) {
        int row = first + (threadIdx.x >> 2);
        float delta = 0, norm = 0;
        if (row < z.rows) {
            for (int c = part; c < CHUNKS; c += 4) {
                Piece<T, CHUNK> x = load<CHUNK>(context, row * stride + column + c * CHUNK);
                Piece<T, CHUNK> y = load<CHUNK>(d_context, row * stride + column + c * CHUNK);
#pragma unroll
                for (int i = 0; i < CHUNK; i++) {
                    float g = widen(y.x[i]);
                    delta += widen(x.x[i]) * g;
                    norm += g * g;
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
            for (int c = part; c < CHUNKS; c += 4) {
                Piece<T, CHUNK> x = load<CHUNK>(value, row * row_stride(z) + inner + c * CHUNK);
#pragma unroll
                for (int i = 0; i < CHUNK; i++) norm += widen(x.x[i]) * widen(x.x[i]);
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

// Zeros as gradients of what the rows behind the keys have as keys and values, in one tensor with the
// queries, [L + 2P, B, 3, H, HEAD_DIM]. Grid: (P, B).
extern "C" __global__ void __launch_bounds__(THREADS) clear_behind_keys(T* packed, Sizes z) {
    int width = z.heads * HEAD_DIM;
    i64 row = z.length + z.predicted + blockIdx.x;
    uint4* to = (uint4*)(packed + row * row_stride(z) + blockIdx.y * z.text_stride + width);
    for (int i = threadIdx.x; i < 2 * width / CHUNK; i += THREADS) to[i] = make_uint4(0, 0, 0, 0);
}
