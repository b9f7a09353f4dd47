// Two-stream attention, forward and backward, by wgmma: compute capability 9.0 alone (sm_90a), ELEMENT 1 (bf16) or
// 2 (f16), HEAD_DIM 64, TILE 64, two tiles of tokens or more. Behind `two_stream.cuh` and `halves.cuh`.
//
// A block is one warpgroup; its neighbours on a multiprocessor multiply while it computes weights. What limits it is
// shared memory, so lanes read and add the bias without conflicts where they can:
// - Rows of limit 0 are the keys of side A; both are taken by ascending position. Where the positions of a tile follow
//   each other without a gap, which those of whole texts do, its members are permuted so that for two such tiles the
//   32 lanes of a warp have 32 neighbouring distances, and a thread 24 different ones for its 32 scores, 4 apart.
// - A predicted token and its query have one position; the two are rows of one thread.
// Other tiles look up the place of each row and key.

// Blocks that share a multiprocessor, and so its registers.
#define FORWARD_BLOCKS 4
#define BACKWARD_BLOCKS 3

typedef unsigned long long u64;

#define SWIZZLED_TILE (TILE * HEAD_DIM * 2)

// ---------------------------------------------------------------- instructions and operands

// Tiles in shared memory have rows of 128 bytes, whose 16-byte chunk c lies where c ^ (row % 8) would: the 128-byte
// swizzle of wgmma (PTX ISA, "Asynchronous Warpgroup Level Matrix Shared Memory Layout"). Such a tile begins at a
// multiple of 1,024 bytes.
__device__ __forceinline__ u32 swizzled(int row, int chunk) { return row * 128 + ((chunk ^ (row & 7)) << 4); }

// A tile as operand (PTX ISA, "Matrix Descriptor Format"): 1,024 bytes from eight rows to the next eight, 128-byte
// swizzle. Its inner dimension is either a row's columns (16 of them are 32 bytes further) or, transposed, its rows
// (16 of them are 2,048 bytes further).
__device__ __forceinline__ u64 descriptor(u32 address) {
    return (u64)1 << 62 | (u64)(1024 >> 4) << 32 | (u64)1 << 16 | (u64)((address & 0x3ffff) >> 4);
}
#define NEXT_COLUMNS (32 >> 4)
#define NEXT_ROWS (2048 >> 4)

#define RESULTS(how, d) \
    how(d[0][0]), how(d[0][1]), how(d[0][2]), how(d[0][3]), how(d[1][0]), how(d[1][1]), how(d[1][2]), \
    how(d[1][3]), how(d[2][0]), how(d[2][1]), how(d[2][2]), how(d[2][3]), how(d[3][0]), how(d[3][1]), \
    how(d[3][2]), how(d[3][3]), how(d[4][0]), how(d[4][1]), how(d[4][2]), how(d[4][3]), how(d[5][0]), \
    how(d[5][1]), how(d[5][2]), how(d[5][3]), how(d[6][0]), how(d[6][1]), how(d[6][2]), how(d[6][3]), \
    how(d[7][0]), how(d[7][1]), how(d[7][2]), how(d[7][3])
#define CHANGED(x) "+f"(x)
#define WRITTEN(x) "=f"(x)
#define RESULT_NAMES                                                                                                \
    "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,"    \
    "%29,%30,%31}"
#if ELEMENT == 1
#define WGMMA "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "
#else
#define WGMMA "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 "
#endif

__device__ __forceinline__ void products_begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void products_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

// Waits for the results `d`, which at most `LEFT` groups of products follow.
template <int LEFT>
__device__ __forceinline__ void products_wait(float (&d)[8][4]) {
    asm volatile("wgmma.wait_group.sync.aligned %32;" : RESULTS(CHANGED, d) : "n"(LEFT) : "memory");
}

// d = a * b, or that is added to it: 64 rows of one tile with 64 rows of another, 16 columns of theirs.
template <bool ADD>
__device__ __forceinline__ void product(float (&d)[8][4], u64 a, u64 b) {
    if (ADD)
        asm volatile(WGMMA RESULT_NAMES ", %32, %33, 1, 1, 1, 0, 0;" : RESULTS(CHANGED, d) : "l"(a), "l"(b));
    else
        asm volatile(WGMMA RESULT_NAMES ", %32, %33, 0, 1, 1, 0, 0;" : RESULTS(WRITTEN, d) : "l"(a), "l"(b));
}

// d += a * b, with 16 columns of 64 rows in registers and 16 rows of a tile.
__device__ __forceinline__ void product(float (&d)[8][4], const u32 (&a)[4], u64 b) {
    asm volatile(WGMMA RESULT_NAMES ", {%32,%33,%34,%35}, %36, 1, 1, 1, 1;"
                 : RESULTS(CHANGED, d) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

// All rows of a tile with all rows of another. Both stay in shared memory: rows of the left one in registers would be
// a little faster, but ptxas 13.0 writes over them between two rounds of a loop.
__device__ __forceinline__ void scores(float (&d)[8][4], u32 left, u32 right) {
    u64 a = descriptor(left), b = descriptor(right);
    product<false>(d, a, b);
#pragma unroll
    for (int k = 1; k < KSTEPS; k++) product<true>(d, a + k * NEXT_COLUMNS, b + k * NEXT_COLUMNS);
}

// Adds the products of 64 columns of weights with all rows of a tile.
__device__ __forceinline__ void add_products(float (&d)[8][4], const float (&weights)[8][4], u32 tile) {
    u64 b = descriptor(tile);
    u32 a[TILE / 16][4];
#pragma unroll
    for (int k = 0; k < TILE / 16; k++) as_operand(a[k], weights[2 * k], weights[2 * k + 1]);
    products_begin();
#pragma unroll
    for (int k = 0; k < TILE / 16; k++) product(d, a[k], b + k * NEXT_ROWS);
    products_commit();
}

// 16 bytes, `OFFSET` bytes behind `to`.
template <int OFFSET>
__device__ __forceinline__ void copy16(u32 to, const void* from) {
    asm volatile("cp.async.cg.shared.global [%0 + %2], [%1], 16;" ::"r"(to), "l"(from), "n"(OFFSET) : "memory");
}

// What this thread copied to shared memory becomes visible to products, behind the next barrier.
__device__ __forceinline__ void publish_copies() {
    wait_all();
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// ---------------------------------------------------------------- rows and keys in tiles

__device__ __forceinline__ int tiles_of(int n) { return (n + TILE - 1) / TILE; }

// Tiles of keys: side A, then the predicted tokens, side B. The plain tiles of rows have the members of side A; mixed
// ones have 32 predicted tokens and their queries.
__device__ __forceinline__ int side_a(const Sizes& z) { return tiles_of(z.length); }
__device__ __forceinline__ int all_keys(const Sizes& z) { return side_a(z) + tiles_of(z.predicted); }
__device__ __forceinline__ int plain_rows(const Sizes& z) { return queries_only(z) ? 0 : side_a(z); }
__device__ __forceinline__ int all_rows(const Sizes& z) { return plain_rows(z) + tiles_of(2 * z.predicted); }

// The members of tiles are listed as columns of products (side A, then side B), then as rows of products (side A),
// then mixed rows, as either.
__device__ __forceinline__ int lists(const Sizes& z) { return all_keys(z) + side_a(z) + tiles_of(2 * z.predicted); }
__device__ __forceinline__ int lists_of_keys(const Sizes& z) { return all_keys(z) + side_a(z); }
__device__ __forceinline__ int mixed_list(const Sizes& z, int tile) { return tile - plain_rows(z) + lists_of_keys(z); }
__device__ __forceinline__ int row_list(const Sizes& z, int tile) {
    return tile < plain_rows(z) ? all_keys(z) + tile : mixed_list(z, tile);
}
__device__ __forceinline__ int column_list(const Sizes& z, int tile) {
    return tile < plain_rows(z) ? tile : mixed_list(z, tile);
}

// Column 8n + 2t + j of a product is of the member 8n + 4j + t by position, row 16w + 8i + g of the member
// 32i + 4g + w: a thread (warp w, lane 4g + t) then has distances of 4(2n + j - 8i) to that of its first score, and
// these of a warp's lanes are t - 4g.
__device__ __forceinline__ int of_column(int o) { return (o & ~7) + (o & 1) * 4 + ((o >> 1) & 3); }
__device__ __forceinline__ int of_row(int o) { return ((o >> 3) & 1) * 32 + (o & 7) * 4 + (o >> 4); }
__device__ __forceinline__ int column_of(int member) { return (member & ~7) + (member & 3) * 2 + ((member >> 2) & 1); }

// Of a tile of keys: places and factors as in KeyRecord, and marks. A row of limit `l` sees a key of side A with mark
// `m` where l <= m, and one of side B where ~l <= m.
struct KeyInfo {
    int place[TILE];
    u32 factor[TILE];
    u32 mark[TILE];
    // The first position where the tile is full, each position is one above the one before, and everybody may see
    // them; else -1.
    int run, unused[3];
};

// Of a tile of rows and a head, as in RowRecord, and limits; rows that are not there have no weights: their log-sum-exp
// is infinite.
struct RowInfo {
    float lse[TILE], delta[TILE];
    u32 factor[TILE];
    int place[TILE];
    u32 limit[TILE];
    // As a tile of keys has it, but for who may see them.
    int run, unused[3];
};

// What the other kernels need. Of texts (blocks below B): the members of tiles, [B, lists, TILE], -1 behind the last
// one; the keys' info, [B, lists_of_keys]; the runs of plain rows, [B, side_a]; zeros, [B, H, 2]. Of heads (the blocks
// that follow): the tables of the bias. Grid: B + H; shared memory: two words a slot of side A, one a predicted token.
extern "C" __global__ void __launch_bounds__(512) arrange(
    int* members, KeyInfo* infos, int* runs, float* norms, float* tables, const i64* positions, const u8* keep,
    const u32* key_factors, const float* bias, Sizes z) {
    extern __shared__ __align__(16) u8 shared[];
    if (blockIdx.x >= z.batch) {
        int head = blockIdx.x - z.batch, n = 2 * z.positions - 1;
        for (int i = threadIdx.x; i < bias_floats(z); i += blockDim.x) {
            int distance = i - z.positions;
            tables[(i64)head * bias_floats(z) + i] = distance >= 0 && distance < n ? bias[(i64)head * n + distance] * LOG2E : NEG_INF;
        }
        return;
    }
    int b = blockIdx.x, left = z.length - z.predicted, keys = z.length + z.predicted, slots = side_a(z) * TILE;
    u32* tokens = (u32*)shared;
    u32* sorted = tokens + slots;
    int* predicted = (int*)(sorted + slots);
    positions += (i64)b * (keys + z.predicted);
    keep += (i64)b * keys;
    for (int i = threadIdx.x; i < 2 * z.heads; i += blockDim.x) norms[2 * b * z.heads + i] = 0.0f;
    // Side A: tokens that are not predicted, and the masked copies of the others.
    auto number = [&](int i) { return i < left ? i : i + z.predicted; };
    for (int i = threadIdx.x; i < slots; i += blockDim.x)
        tokens[i] = i < z.length ? (u32)positions[number(i)] << 16 | i : 0xffff0000u | i;
    __syncthreads();
    // A token's rank is how many are before it: positions first, then numbers, which differ.
    for (int i = threadIdx.x; i < slots; i += blockDim.x) {
        u32 own = tokens[i];
        int rank = 0;
        for (int j = 0; j < slots; j += 4) {
            uint4 other = *(const uint4*)(tokens + j);
            rank += (other.x < own) + (other.y < own) + (other.z < own) + (other.w < own);
        }
        sorted[rank] = own;
    }
    for (int i = threadIdx.x; i < z.predicted; i += blockDim.x) {
        u32 own = tokens[left + i];
        int rank = 0;
        for (int j = left; j < z.length; j++) rank += tokens[j] < own;
        predicted[rank] = i;
    }
    __syncthreads();
    members += (i64)b * lists(z) * TILE;
    infos += (i64)b * lists_of_keys(z);
    for (int i = threadIdx.x; i < lists(z) * TILE; i += blockDim.x) {
        int list = i / TILE, offset = i % TILE, member = -1;
        u32 mark = 0xffffffffu;
        if (list >= lists_of_keys(z)) {
            int rank = (list - lists_of_keys(z)) * (TILE / 2) + offset / 16 * 8 + offset % 8;
            if (rank < z.predicted) {
                int first = queries_only(z) ? 0 : keys;
                member = offset & 8 ? first + predicted[rank] : queries_only(z) ? -1 : left + predicted[rank];
            }
        } else if (list >= side_a(z) && list < all_keys(z)) {
            int rank = (list - side_a(z)) * TILE + offset;
            if (rank < z.predicted) {
                member = left + predicted[rank];
                mark = 0xfffffffeu - predicted[rank];
            }
        } else {
            bool column = list < side_a(z);
            int rank = (column ? list : list - all_keys(z)) * TILE + (column ? of_column(offset) : of_row(offset));
            if (rank < z.length) {
                member = number(sorted[rank] & 0xffff);
                if (member >= left) mark = member - z.length;
            }
        }
        members[i] = member;
        if (list < lists_of_keys(z)) {
            infos[list].place[offset] = member >= 0 && keep[member] ? 4 * ((int)positions[member] + z.positions) : 0;
            infos[list].factor[offset] = DROPOUT && member >= 0 ? key_factors[member] : 0;
            infos[list].mark[offset] = mark;
        }
    }
    for (int t = threadIdx.x; t < tiles_of(z.predicted); t += blockDim.x) infos[side_a(z) + t].run = -1;
    int lane = threadIdx.x & 31;
    for (int t = threadIdx.x >> 5; t < side_a(z); t += blockDim.x >> 5) {
        bool row = t * TILE + TILE <= z.length, key = row;
        int first = sorted[t * TILE] >> 16;
        if (row)
            for (int i = lane; i < TILE; i += 32) {
                u32 own = sorted[t * TILE + i];
                row &= (int)(own >> 16) == first + i;
                key &= keep[number(own & 0xffff)] != 0;
            }
        row = __all_sync(0xffffffffu, row);
        key = __all_sync(0xffffffffu, row && key);
        if (lane == 0) {
            runs[b * side_a(z) + t] = row ? first : -1;
            infos[t].run = infos[all_keys(z) + t].run = key ? first : -1;
        }
    }
}

// The limit of a row of a mixed tile.
__device__ __forceinline__ u32 limit_of(const Sizes& z, int row) {
    if (queries_only(z)) return row;
    int keys = z.length + z.predicted;
    return row >= keys ? row - keys : row - (z.length - z.predicted) + 1;
}

// What the backward kernels need of rows, [B, H, row tiles], in the order of columns; and the largest square of a norm
// of a row of the context's gradient and of a value, [B, H, 2]: no score's gradient, before the division by the keep
// probability, exceeds half of the product of their roots. Grid: (tiles of rows or of keys, H, B).
extern "C" __global__ void __launch_bounds__(256) row_info(
    RowInfo* out, float* norms, const T* context, const T* d_context, const float* lse, const T* value,
    const i64* positions, const int* lists_of_texts, const int* runs, const u32* head_factors, const u32* row_factors,
    Sizes z) {
    __shared__ float largest[2][8];
    int head = blockIdx.y, b = blockIdx.z, tile = blockIdx.x;
    int part = threadIdx.x & 3, offset = threadIdx.x >> 2;  // four threads a row
    const int* members = lists_of_texts + (i64)b * lists(z) * TILE;
    float gradient_norm = 0, value_norm = 0;
    if (tile < all_rows(z)) {
        int row = members[column_list(z, tile) * TILE + offset];
        float delta = 0;
        if (row >= 0) {
            i64 from = row * head_stride(z) + head_column(z, b, head);
#pragma unroll
            for (int c = 0; c < CHUNKS / 4; c++) {
                Piece<T, CHUNK> x = load<CHUNK>(context, from + (4 * c + part) * CHUNK);
                Piece<T, CHUNK> y = load<CHUNK>(d_context, from + (4 * c + part) * CHUNK);
#pragma unroll
                for (int i = 0; i < CHUNK; i++) {
                    float g = widen(y.x[i]);
                    delta += widen(x.x[i]) * g;
                    gradient_norm += g * g;
                }
            }
        }
        delta = quad_sum(delta);
        if (part == 0) {
            RowInfo& to = out[((i64)b * z.heads + head) * all_rows(z) + tile];
            int first = z.length + 2 * z.predicted - z.rows;
            bool there = row >= 0;
            to.lse[offset] = there ? lse[((i64)b * z.heads + head) * z.rows + row] * LOG2E : -NEG_INF;
            to.delta[offset] = delta * z.keep_probability;
            to.factor[offset] = DROPOUT && there ? head_factors[b * z.heads + head] * row_factors[row] : 0;
            i64 position = there ? positions[(i64)b * (z.length + 2 * z.predicted) + first + row] : 0;
            to.place[offset] = 4 * (z.positions - 1 - (int)position);
            if (offset == 0) to.run = tile < plain_rows(z) ? runs[b * side_a(z) + tile] : -1;
            to.limit[offset] = there && tile >= plain_rows(z) ? limit_of(z, row) : 0;
        }
    }
    if (tile < all_keys(z)) {
        int key = members[tile * TILE + offset];
        if (key >= 0) {
            i64 from = key * row_stride(z) + inner_column(z, b, head);
#pragma unroll
            for (int c = 0; c < CHUNKS / 4; c++) {
                Piece<T, CHUNK> x = load<CHUNK>(value, from + (4 * c + part) * CHUNK);
#pragma unroll
                for (int i = 0; i < CHUNK; i++) value_norm += widen(x.x[i]) * widen(x.x[i]);
            }
        }
    }
    gradient_norm = quad_sum(gradient_norm);
    value_norm = quad_sum(value_norm);
#pragma unroll
    for (int i = 16; i > 2; i >>= 1) {
        gradient_norm = fmaxf(gradient_norm, __shfl_xor_sync(0xffffffffu, gradient_norm, i));
        value_norm = fmaxf(value_norm, __shfl_xor_sync(0xffffffffu, value_norm, i));
    }
    if ((threadIdx.x & 31) == 0) {
        largest[0][threadIdx.x >> 5] = gradient_norm;
        largest[1][threadIdx.x >> 5] = value_norm;
    }
    __syncthreads();
    if (threadIdx.x < 2) {
        float most = 0;
        for (int i = 0; i < 8; i++) most = fmaxf(most, largest[threadIdx.x][i]);
        // Numbers that are not negative have the order of their bits.
        atomicMax((int*)norms + 2 * (b * z.heads + head) + threadIdx.x, __float_as_int(most));
    }
}

// ---------------------------------------------------------------- copies to shared memory

// The members whose rows this thread copies.
struct Members {
    int row[TILE * CHUNKS / THREADS];
};

__device__ __forceinline__ Members members_of(const int* list) {
    Members m;
#pragma unroll
    for (int i = 0; i < TILE * CHUNKS / THREADS; i++) m.row[i] = list[threadIdx.x / CHUNKS + i * (THREADS / CHUNKS)];
    return m;
}

// A thread's part of the rows of a tensor, `OFFSET` bytes behind a tile. Where there is no member, it is the first row:
// its weights are 0.
template <int OFFSET, int I = 0>
__device__ __forceinline__ void load_rows(u32 to, const char* from, u32 stride, const Members& m) {
    if constexpr (I < TILE * CHUNKS / THREADS) {
        copy16<OFFSET + I * (THREADS / CHUNKS) * 128>(to, from + (u64)(u32)max(m.row[I], 0) * stride);
        load_rows<OFFSET, I + 1>(to, from, stride, m);
    }
}

__device__ __forceinline__ u32 own_part(u32 tile) { return tile + swizzled(threadIdx.x / CHUNKS, threadIdx.x % CHUNKS); }
__device__ __forceinline__ const char* own_part(const T* rows) { return (const char*)(rows + threadIdx.x % CHUNKS * CHUNK); }

// Rows of two tensors into neighbouring tiles.
__device__ __forceinline__ void load_two(
    u32 tile, const T* first, u32 first_stride, const T* second, u32 second_stride, const Members& m) {
    u32 to = own_part(tile);
    load_rows<0>(to, own_part(first), first_stride, m);
    load_rows<SWIZZLED_TILE>(to, own_part(second), second_stride, m);
}

template <class Info>
__device__ __forceinline__ void load_info(Info* to, const Info* from) {
    int chunk = threadIdx.x;
    if (chunk < (int)sizeof(Info) / 16) copy16<0>(shared_address(to) + 16 * chunk, (const uint4*)from + chunk);
}

// Bytes between two rows.
__device__ __forceinline__ u32 inner_bytes(const Sizes& z) { return (u32)row_stride(z) * (u32)sizeof(T); }
__device__ __forceinline__ u32 head_bytes(const Sizes& z) { return (u32)head_stride(z) * (u32)sizeof(T); }

// ---------------------------------------------------------------- the bias

// Scores times `scale` and with the bias, for two runs of positions: `at` is of this thread's first score. SIGN 1: rows
// are rows, columns keys; -1: the other way round.
template <int SIGN>
__device__ __forceinline__ void add_bias_of_runs(float (&s)[8][4], const float* at, float scale) {
    float bias[24];
#pragma unroll
    for (int e = 0; e < 24; e++) bias[e] = at[SIGN * 4 * (e - 8)];
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
        for (int i = 0; i < 2; i++)
#pragma unroll
            for (int j = 0; j < 2; j++) s[n][2 * i + j] = s[n][2 * i + j] * scale + bias[2 * n + j - 8 * i + 8];
}

// The same by the places of rows and keys; what a row does not see becomes -inf. PAIRED: both rows of a thread have
// one position.
template <bool PAIRED>
__device__ __forceinline__ void add_bias_of_places(
    float (&s)[8][4], const float* table, const KeyInfo* info, const int (&place)[2], const u32 (&limit)[2], float scale) {
    int column = (threadIdx.x & 3) * 2;
#pragma unroll
    for (int n = 0; n < 8; n++) {
        int2 places = *(const int2*)(info->place + n * 8 + column);
        uint2 marks = *(const uint2*)(info->mark + n * 8 + column);
        float left = at_byte(table, places.x + place[1]), right = at_byte(table, places.y + place[1]);
#pragma unroll
        for (int i = 1; i >= 0; i--) {
            if (!PAIRED && i == 0) {
                left = at_byte(table, places.x + place[0]);
                right = at_byte(table, places.y + place[0]);
            }
            float x = s[n][2 * i] * scale + left, y = s[n][2 * i + 1] * scale + right;
            s[n][2 * i] = limit[i] <= marks.x ? x : NEG_INF;
            s[n][2 * i + 1] = limit[i] <= marks.y ? y : NEG_INF;
        }
    }
}

// ---------------------------------------------------------------- kernels

// Context [R, B, H, HEAD_DIM] and log-sum-exp [B, H, R]. Grid: (row tiles, H, B).
extern "C" __global__ void __launch_bounds__(THREADS, FORWARD_BLOCKS) forward(
    T* context, float* lse, const T* query, const T* key, const T* value, const i64* positions,
    const KeyInfo* key_info, const float* tables, const int* lists_of_texts, const int* runs,
    const u32* head_factors, const u32* row_factors, Sizes z) {
    extern __shared__ __align__(1024) u8 shared[];
    u32 tiles = shared_address(shared);  // two stages of key and value, then query
    KeyInfo* infos = (KeyInfo*)(shared + 5 * SWIZZLED_TILE);  // [2]
    float* table = (float*)(infos + 2);

    int head = blockIdx.y, b = blockIdx.z;
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    int tile = gridDim.x - 1 - blockIdx.x;
    bool mixed = tile >= plain_rows(z);
    int inner = inner_column(z, b, head);
    const int* members = lists_of_texts + (i64)b * lists(z) * TILE;
    const int* own = members + row_list(z, tile) * TILE;
    auto own_row = [&](int i) { return own[i]; };
    key_info += (i64)b * lists_of_keys(z);
    int count = mixed ? all_keys(z) : side_a(z);

    Members upcoming = members_of(members);
    auto load = [&](int index) {
        int stage = index & 1;
        load_two(tiles + 2 * stage * SWIZZLED_TILE, key + inner, inner_bytes(z), value + inner, inner_bytes(z), upcoming);
        load_info(infos + stage, key_info + index);
        commit();
        upcoming = members_of(members + min(index + 1, count - 1) * TILE);
    };
    u32 q_tile = tiles + 4 * SWIZZLED_TILE;
    load_rows<0>(own_part(q_tile), own_part(query + inner), inner_bytes(z), members_of(own));
    load_bias(table, tables, z, head);
    load(0);

    // This thread's rows.
    int place[2];
    u32 limit[2], factor[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
        int row = own[warp * 16 + (lane >> 2) + 8 * i], from = max(row, 0), first = z.length + 2 * z.predicted - z.rows;
        place[i] = 4 * (z.positions - 1 - (int)positions[(i64)b * (z.length + 2 * z.predicted) + first + from]);
        limit[i] = mixed && row >= 0 ? limit_of(z, row) : 0;
        factor[i] = DROPOUT ? head_factors[b * z.heads + head] * row_factors[from] : 0;
    }
    int run = mixed ? -1 : runs[b * side_a(z) + tile];
    // The bias of this thread's first score where the run of keys begins at position 0.
    const float* of_run = table + 2 * z.positions - 1 - run + (lane & 3) - (lane >> 2) * 4 - warp;
    float scale = z.scale * LOG2E;
    float peak[2] = {NEG_INF, NEG_INF}, total[2] = {0, 0};
    float out[8][4] = {};

    // With `for` the compiler is no longer sure which products are under way, and waits for each.
    int index = 0;
    do {
        publish_copies();
        products_wait<0>(out);
        __syncthreads();
        u32 k_tile = tiles + 2 * (index & 1) * SWIZZLED_TILE, v_tile = k_tile + SWIZZLED_TILE;
        const KeyInfo* info = infos + (index & 1);
        float s[8][4];
        products_begin();
        scores(s, q_tile, k_tile);
        products_commit();
        if (index + 1 < count) load(index + 1);
        products_wait<0>(s);
        int run_of_keys = run >= 0 ? info->run : -1;
        if (run_of_keys >= 0) {
            add_bias_of_runs<1>(s, of_run + run_of_keys, scale);
        } else {
            bool predicted = index >= side_a(z);
            u32 limits[2] = {predicted ? ~limit[0] : limit[0], predicted ? ~limit[1] : limit[1]};
            if (mixed)
                add_bias_of_places<true>(s, table, info, place, limits, scale);
            else
                add_bias_of_places<false>(s, table, info, place, limits, scale);
        }
        float top[2] = {NEG_INF, NEG_INF};
#pragma unroll
        for (int n = 0; n < 8; n++)
#pragma unroll
            for (int i = 0; i < 2; i++) top[i] = fmaxf(top[i], fmaxf(s[n][2 * i], s[n][2 * i + 1]));
#pragma unroll
        for (int i = 0; i < 2; i++) top[i] = quad_max(top[i]);
        // What is there is made smaller only where a weight would exceed 2^8.
        if (__any_sync(0xffffffffu, top[0] > peak[0] + 8.0f || top[1] > peak[1] + 8.0f)) {
#pragma unroll
            for (int i = 0; i < 2; i++) {
                top[i] = fmaxf(top[i], peak[i]);
                float shrink = top[i] == NEG_INF ? 1.0f : exp2_fast(peak[i] - top[i]);
                peak[i] = top[i];
                total[i] *= shrink;
#pragma unroll
                for (int n = 0; n < 8; n++) {
                    out[n][2 * i] *= shrink;
                    out[n][2 * i + 1] *= shrink;
                }
            }
        }
        float base[2] = {peak[0] == NEG_INF ? 0.0f : peak[0], peak[1] == NEG_INF ? 0.0f : peak[1]};
#pragma unroll
        for (int n = 0; n < 8; n++) {
            uint2 factors = DROPOUT ? *(const uint2*)(info->factor + n * 8 + (lane & 3) * 2) : make_uint2(0, 0);
#pragma unroll
            for (int i = 0; i < 2; i++)
#pragma unroll
                for (int j = 0; j < 2; j++) {
                    float p = exp2_fast(s[n][2 * i + j] - base[i]);
                    total[i] += p;
                    if (DROPOUT && factor[i] * (j ? factors.y : factors.x) < z.drop_limit) p = 0.0f;
                    s[n][2 * i + j] = p;
                }
        }
        add_products(out, s, v_tile);
    } while (++index < count);
    products_wait<0>(out);
    float inverse[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
        total[i] = quad_sum(total[i]);
        inverse[i] = total[i] > 0.0f ? 1.0f / (total[i] * z.keep_probability) : 0.0f;
        int row = own[warp * 16 + (lane >> 2) + 8 * i];
        if ((lane & 3) == 0 && row >= 0)
            lse[((i64)b * z.heads + head) * z.rows + row] = total[i] > 0.0f ? (peak[i] + log2_fast(total[i])) * LN2 : 0.0f;
    }
    store_rows(context + head_column(z, b, head), head_stride(z), out, inverse[0], inverse[1], warp * 16, own_row);
}

// The bias' gradient is counted in these, so that two scores' gradients may be added before they are rounded.
#define HALF_UNITS (0.5f * UNITS)

// Gradient of the queries [R, B, H, HEAD_DIM], and each tile's part of the bias' gradient,
// [B, row tiles, H, 2 * positions - 1]. Sums of the bias' gradient are integers, so that their order
// changes nothing. Grid: (row tiles, H, B).
extern "C" __global__ void __launch_bounds__(THREADS, BACKWARD_BLOCKS) backward_query(
    T* d_query, float* d_bias_parts, const T* d_context, const T* query, const T* key, const T* value,
    const RowInfo* row_info, const KeyInfo* key_info, const float* norms, const float* tables,
    const int* lists_of_texts, Sizes z) {
    extern __shared__ __align__(1024) u8 shared[];
    u32 tiles = shared_address(shared);  // two stages of key and value, then query and d_context
    KeyInfo* infos = (KeyInfo*)(shared + 6 * SWIZZLED_TILE);  // [2]
    float* table = (float*)(infos + 2);
    int* sums = (int*)(table + bias_floats(z));

    int head = blockIdx.y, b = blockIdx.z;
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    int tile = gridDim.x - 1 - blockIdx.x;
    bool mixed = tile >= plain_rows(z);
    int inner = inner_column(z, b, head);
    const int* members = lists_of_texts + (i64)b * lists(z) * TILE;
    const int* own = members + row_list(z, tile) * TILE;
    auto own_row = [&](int i) { return own[i]; };
    key_info += (i64)b * lists_of_keys(z);
    int count = mixed ? all_keys(z) : side_a(z);

    Members upcoming = members_of(members);
    auto load = [&](int index) {
        int stage = index & 1;
        load_two(tiles + 2 * stage * SWIZZLED_TILE, key + inner, inner_bytes(z), value + inner, inner_bytes(z), upcoming);
        load_info(infos + stage, key_info + index);
        commit();
        upcoming = members_of(members + min(index + 1, count - 1) * TILE);
    };
    u32 q_tile = tiles + 4 * SWIZZLED_TILE, g_tile = q_tile + SWIZZLED_TILE;
    load_two(q_tile, query + inner, inner_bytes(z), d_context + head_column(z, b, head), head_bytes(z), members_of(own));
    load_bias(table, tables, z, head);
    load(0);
    for (int i = threadIdx.x; i < bias_floats(z); i += THREADS) sums[i] = 0;

    int place[2];
    u32 limit[2], factor[2];
    float row_lse[2], delta[2];
    const RowInfo& rows = row_info[((i64)b * z.heads + head) * all_rows(z) + tile];
#pragma unroll
    for (int i = 0; i < 2; i++) {
        int offset = warp * 16 + (lane >> 2) + 8 * i;
        if (!mixed) offset = column_of(of_row(offset));
        place[i] = rows.place[offset];
        factor[i] = rows.factor[offset];
        row_lse[i] = rows.lse[offset];
        delta[i] = rows.delta[offset];
        limit[i] = rows.limit[offset];
    }
    int run = rows.run;
    int of_run = 2 * z.positions - 1 - run + (lane & 3) - (lane >> 2) * 4 - warp;
    float scale = z.scale * LOG2E;
    float bound = sqrtf(norms[2 * (b * z.heads + head)]) * sqrtf(norms[2 * (b * z.heads + head) + 1]);
    float unit = bound > 0.0f ? HALF_UNITS / bound : 0.0f;
    float dq[8][4] = {};

    // With `for` the compiler is no longer sure which products are under way, and waits for each.
    int index = 0;
    do {
        publish_copies();
        products_wait<0>(dq);
        __syncthreads();
        u32 k_tile = tiles + 2 * (index & 1) * SWIZZLED_TILE, v_tile = k_tile + SWIZZLED_TILE;
        const KeyInfo* info = infos + (index & 1);

        float s[8][4], dp[8][4];
        products_begin();
        scores(s, q_tile, k_tile);
        products_commit();
        scores(dp, g_tile, v_tile);
        products_commit();
        if (index + 1 < count) load(index + 1);
        products_wait<1>(s);
        int run_of_keys = run >= 0 ? info->run : -1;
        if (run_of_keys >= 0) {
            add_bias_of_runs<1>(s, table + of_run + run_of_keys, scale);
        } else {
            bool predicted = index >= side_a(z);
            u32 limits[2] = {predicted ? ~limit[0] : limit[0], predicted ? ~limit[1] : limit[1]};
            if (mixed)
                add_bias_of_places<true>(s, table, info, place, limits, scale);
            else
                add_bias_of_places<false>(s, table, info, place, limits, scale);
        }
#pragma unroll
        for (int n = 0; n < 8; n++)
#pragma unroll
            for (int i = 0; i < 2; i++)
#pragma unroll
                for (int j = 0; j < 2; j++) s[n][2 * i + j] = exp2_fast(s[n][2 * i + j] - row_lse[i]);
        products_wait<0>(dp);
#pragma unroll
        for (int n = 0; n < 8; n++) {
            uint2 factors = DROPOUT ? *(const uint2*)(info->factor + n * 8 + (lane & 3) * 2) : make_uint2(0, 0);
#pragma unroll
            for (int i = 0; i < 2; i++)
#pragma unroll
                for (int j = 0; j < 2; j++) {
                    float d = dp[n][2 * i + j];
                    if (DROPOUT && factor[i] * (j ? factors.y : factors.x) < z.drop_limit) d = 0.0f;
                    s[n][2 * i + j] *= d - delta[i];
                }
        }
        add_products(dq, s, k_tile);
        if (run_of_keys >= 0) {
            int* to = sums + of_run + run_of_keys;
#pragma unroll
            for (int e = -8; e < 16; e++) {
                float first = e < 0 ? 0.0f : s[max(e, 0) / 2][max(e, 0) % 2];
                float second = e > 7 ? 0.0f : s[min(e + 8, 15) / 2][2 + min(e + 8, 15) % 2];
                atomicAdd(to + 4 * e, round_units((e < 0 ? second : e > 7 ? first : first + second) * unit));
            }
        } else {
#pragma unroll
            for (int n = 0; n < 8; n++) {
                int2 places = *(const int2*)(info->place + n * 8 + (lane & 3) * 2);
#pragma unroll
                for (int j = 0; j < 2; j++) {
                    u8* to = (u8*)sums + (j ? places.y : places.x);
                    float first = s[n][j], second = s[n][2 + j];
                    if (mixed) {
                        atomicAdd((int*)(to + place[1]), round_units((first + second) * unit));
                    } else {
                        atomicAdd((int*)(to + place[0]), round_units(first * unit));
                        atomicAdd((int*)(to + place[1]), round_units(second * unit));
                    }
                }
            }
        }
    } while (++index < count);
    products_wait<0>(dq);
    float back = z.scale / z.keep_probability;
    store_rows(d_query + inner, row_stride(z), dq, back, back, warp * 16, own_row);
    __syncthreads();
    int columns = 2 * z.positions - 1;
    float* parts = d_bias_parts + (((i64)b * gridDim.x + tile) * z.heads + head) * columns;
    float whole = bound > 0.0f ? bound / (HALF_UNITS * z.keep_probability) : 0.0f;
    for (int i = threadIdx.x; i < columns; i += THREADS) parts[i] = (float)sums[i + z.positions] * whole;
}

// Gradients of the keys and the values, [S, B, H, HEAD_DIM]. Grid: (key tiles, H, B).
extern "C" __global__ void __launch_bounds__(THREADS, BACKWARD_BLOCKS) backward_key_value(
    T* d_key, T* d_value, const T* d_context, const T* query, const T* key, const T* value,
    const RowInfo* row_info, const KeyInfo* key_info, const float* tables, const int* lists_of_texts, Sizes z) {
    extern __shared__ __align__(1024) u8 shared[];
    u32 tiles = shared_address(shared);  // two stages of query and d_context, then key and value
    RowInfo* infos = (RowInfo*)(shared + 6 * SWIZZLED_TILE);  // [2]
    float* table = (float*)(infos + 2);

    int head = blockIdx.y, b = blockIdx.z;
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    int tile = blockIdx.x;
    bool predicted = tile >= side_a(z);
    int list = predicted ? tile : all_keys(z) + tile;
    int inner = inner_column(z, b, head);
    const int* members = lists_of_texts + (i64)b * lists(z) * TILE;
    const int* own = members + list * TILE;
    auto own_key = [&](int i) { return own[i]; };
    row_info += ((i64)b * z.heads + head) * all_rows(z);

    // Predicted tokens are seen by mixed rows alone.
    int first = predicted ? plain_rows(z) : 0, last = all_rows(z);
    Members upcoming = members_of(members + column_list(z, first) * TILE);
    auto load = [&](int index) {
        int stage = index & 1;
        load_two(
            tiles + 2 * stage * SWIZZLED_TILE, query + inner, inner_bytes(z), d_context + head_column(z, b, head),
            head_bytes(z), upcoming);
        load_info(infos + stage, row_info + index);
        commit();
        upcoming = members_of(members + column_list(z, min(index + 1, last - 1)) * TILE);
    };
    u32 k_tile = tiles + 4 * SWIZZLED_TILE, v_tile = k_tile + SWIZZLED_TILE;
    load_two(k_tile, key + inner, inner_bytes(z), value + inner, inner_bytes(z), members_of(own));
    load_bias(table, tables, z, head);
    load(first);

    int place[2];
    u32 mark[2], factor[2];
    const KeyInfo& keys = key_info[(i64)b * lists_of_keys(z) + list];
#pragma unroll
    for (int i = 0; i < 2; i++) {
        int offset = warp * 16 + (lane >> 2) + 8 * i;
        place[i] = keys.place[offset];
        factor[i] = keys.factor[offset];
        mark[i] = keys.mark[offset];
    }
    int run = keys.run;
    const float* of_run = table + 2 * z.positions - 1 + run + (lane >> 2) * 4 + warp - (lane & 3);
    float scale = z.scale * LOG2E;
    float dk[8][4] = {}, dv[8][4] = {};

    int index = first;
    do {
        publish_copies();
        products_wait<0>(dv);
        products_wait<0>(dk);
        __syncthreads();
        bool mixed = index >= plain_rows(z);
        u32 q_tile = tiles + 2 * (index & 1) * SWIZZLED_TILE, g_tile = q_tile + SWIZZLED_TILE;
        const RowInfo* info = infos + (index & 1);
        int column = (lane & 3) * 2;

        float s[8][4], dp[8][4];  // [key, row]
        products_begin();
        scores(s, k_tile, q_tile);
        products_commit();
        scores(dp, v_tile, g_tile);
        products_commit();
        if (index + 1 < last) load(index + 1);
        products_wait<1>(s);
        int run_of_rows = run >= 0 ? info->run : -1;
        if (run_of_rows >= 0) {
            add_bias_of_runs<-1>(s, of_run - run_of_rows, scale);
        } else {
            float bias[2][2];
#pragma unroll
            for (int n = 0; n < 8; n++) {
                // Of a mixed tile eight tokens come first, then their queries, at the same positions.
                if (!mixed || n % 2 == 0) {
                    int2 places = *(const int2*)(info->place + (mixed ? n + 1 : n) * 8 + column);
#pragma unroll
                    for (int i = 0; i < 2; i++) {
                        bias[i][0] = at_byte(table, place[i] + places.x);
                        bias[i][1] = at_byte(table, place[i] + places.y);
                    }
                }
                uint2 limits = *(const uint2*)(info->limit + n * 8 + column);
#pragma unroll
                for (int j = 0; j < 2; j++) {
                    u32 limit = j ? limits.y : limits.x;
                    if (predicted) limit = ~limit;
#pragma unroll
                    for (int i = 0; i < 2; i++) {
                        float x = s[n][2 * i + j] * scale + bias[i][j];
                        s[n][2 * i + j] = limit <= mark[i] ? x : NEG_INF;
                    }
                }
            }
        }
#pragma unroll
        for (int n = 0; n < 8; n++) {
            float2 lse = *(const float2*)(info->lse + n * 8 + column);
#pragma unroll
            for (int i = 0; i < 2; i++) {
                s[n][2 * i] = exp2_fast(s[n][2 * i] - lse.x);
                s[n][2 * i + 1] = exp2_fast(s[n][2 * i + 1] - lse.y);
            }
        }
        products_wait<0>(dp);
#pragma unroll
        for (int n = 0; n < 8; n++) {
            uint2 factors = DROPOUT ? *(const uint2*)(info->factor + n * 8 + column) : make_uint2(0, 0);
            float2 deltas = *(const float2*)(info->delta + n * 8 + column);
#pragma unroll
            for (int i = 0; i < 2; i++)
#pragma unroll
                for (int j = 0; j < 2; j++) {
                    float p = s[n][2 * i + j], kept = p;
                    if (DROPOUT && factor[i] * (j ? factors.y : factors.x) < z.drop_limit) kept = 0.0f;
                    s[n][2 * i + j] = kept;
                    dp[n][2 * i + j] = kept * dp[n][2 * i + j] - p * (j ? deltas.y : deltas.x);
                }
        }
        add_products(dv, s, g_tile);
        add_products(dk, dp, q_tile);
    } while (++index < last);
    products_wait<0>(dv);
    products_wait<0>(dk);
    float back = 1.0f / z.keep_probability;
    store_rows(d_value + inner, row_stride(z), dv, back, back, warp * 16, own_key);
    back *= z.scale;
    store_rows(d_key + inner, row_stride(z), dk, back, back, warp * 16, own_key);
}
