// Two-stream attention, forward and backward, by mma.sync: sm_80 and newer, ELEMENT 1 (bf16) or 2 (f16), HEAD_DIM
// 32, 64, 96 or 128, TILE 64. Behind `two_stream.cuh` and `halves.cuh`.

// Blocks that share a multiprocessor, and so its registers; more spill, fewer wait.
#define FORWARD_BLOCKS (HEAD_DIM <= 64 ? 4 : 2)
#define BACKWARD_BLOCKS (HEAD_DIM <= 64 ? 3 : 2)

// ---------------------------------------------------------------- instructions and operands

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
#if ELEMENT == 1
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
#else
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
#endif
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
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

// Adds the products of weights, 16 columns of them, with 16 rows of a tile from `row` on.
__device__ __forceinline__ void add_products(
    float (&out)[NTILES][4], const float (&left)[4], const float (&right)[4], u32 tile, int row) {
    u32 a[4];
    as_operand(a, left, right);
#pragma unroll
    for (int n = 0; n < NTILES / 2; n++) {
        u32 r[4];
        load4_transposed(r, block_address(tile, row, n * 16));
        mma(out[2 * n], a, r[0], r[1]);
        mma(out[2 * n + 1], a, r[2], r[3]);
    }
}

// ---------------------------------------------------------------- kernels

// Context [R, B, H, HEAD_DIM] and log-sum-exp [B, H, R]. Grid: (row tiles, H, B).
extern "C" __global__ void __launch_bounds__(THREADS, FORWARD_BLOCKS) forward(
    T* context, float* lse, const T* query, const T* key, const T* value,
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
    int inner = inner_column(z, b, head);
    auto row_of = [&](int i) { return row_at(z, rows, i); };

    auto load = [&](int index, int stage) {
        u32 k_tile = tiles + (1 + 2 * stage) * TILE_BYTES;
        load_keys(k_tile, k_tile + TILE_BYTES, key_info + stage * TILE, key, value, records, z, key_tile(z, index), b, head);
    };
    int last = key_tiles(z);
    auto next = [&](int index) { return next_keys(z, rows, index, last); };

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
            add_products(out, s[2 * k], s[2 * k + 1], v_tile, k * 16);
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
    store_rows(context + head_column(z, b, head), head_stride(z), out, inverse[0], inverse[1], warp * 16, row_of);
}

// With few registers to spare the operands that stay are read from shared memory each time.
#define RESIDENT (HEAD_DIM <= 64)

// Gradient of the queries [R, B, H, HEAD_DIM], and each tile's part of the bias' gradient,
// [B, row tiles, H, 2 * positions - 1]. Sums of the bias' gradient are integers, so that their order
// changes nothing. Grid: (row tiles, H, B).
extern "C" __global__ void __launch_bounds__(THREADS, BACKWARD_BLOCKS) backward_query(
    T* d_query, float* d_bias_parts, const T* d_context, const T* query, const T* key, const T* value,
    RowRecord* row_info, const KeyRecord* records, const float* largest, const float* tables, Sizes z) {
    extern __shared__ __align__(16) u8 shared[];
    u32 tiles = shared_address(shared);  // query, d_context, then two stages of key and value
    KeyRecord* key_info = (KeyRecord*)(shared + 6 * TILE_BYTES);  // [2][TILE]
    float* table = (float*)(key_info + 2 * TILE);
    int* sums = (int*)(table + bias_floats(z));

    int head = blockIdx.y, b = blockIdx.z;
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    int tile = gridDim.x - 1 - blockIdx.x;
    RowTile rows = row_tile(z, tile);
    int inner = inner_column(z, b, head);
    auto row_of = [&](int i) { return row_at(z, rows, i); };

    auto load = [&](int index, int stage) {
        u32 k_tile = tiles + (2 + 2 * stage) * TILE_BYTES;
        load_keys(k_tile, k_tile + TILE_BYTES, key_info + stage * TILE, key, value, records, z, key_tile(z, index), b, head);
    };
    int last = key_tiles(z);
    auto next = [&](int index) { return next_keys(z, rows, index, last); };

    load_rows(tiles, query + inner, row_stride(z), row_of);
    load_rows(tiles + TILE_BYTES, d_context + head_column(z, b, head), head_stride(z), row_of);
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
        delta[i] = z.length <= TILE ? 0.0f : record.delta;
        limit[i] = limit_at(z, rows, offset);
    }
    float scale = z.scale * LOG2E;
    // The context of a row of few keys is as large as their values, and so is what its rounding takes from the sum of
    // the scores' gradients: here it is made anew, by a first pass over the keys.
    bool summing = z.length <= TILE;
    float sum[2] = {};
    float bound = largest[b * z.heads + head];
    float unit = bound > 0.0f ? UNITS / bound : 0.0f;
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
        bool again = summing && following >= last;
        if (again) following = next(0);
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
                        if (summing)
                            sum[i] += ds;
                        else
                            atomicAdd((int*)((char*)sums + at), round_units(ds * unit));
                    }
                }
            if (!summing) add_products(dq, s[0], s[1], k_tile, c * 16);
        }
        if (again) {
            summing = false;
#pragma unroll
            for (int i = 0; i < 2; i++) {
                delta[i] = quad_sum(sum[i]);
                int row = row_of(warp * 16 + (lane >> 2) + 8 * i);
                if ((lane & 3) == 0 && row >= 0) row_info[((i64)b * z.heads + head) * z.rows + row].delta = delta[i];
            }
        }
    }
    float back = z.scale / z.keep_probability;
    store_rows(d_query + inner, row_stride(z), dq, back, back, warp * 16, row_of);
    __syncthreads();
    int columns = 2 * z.positions - 1;
    float* parts = d_bias_parts + (((i64)b * gridDim.x + tile) * z.heads + head) * columns;
    float whole = bound > 0.0f ? bound / (UNITS * z.keep_probability) : 0.0f;
    for (int i = threadIdx.x; i < columns; i += THREADS) parts[i] = (float)sums[i + z.positions] * whole;
}

// Gradients of the keys and the values, [S, B, H, HEAD_DIM]. Grid: (key tiles, H, B).
extern "C" __global__ void __launch_bounds__(THREADS, BACKWARD_BLOCKS) backward_key_value(
    T* d_key, T* d_value, const T* d_context, const T* query, const T* key, const T* value,
    const RowRecord* row_info, const KeyRecord* records, const float* tables, Sizes z) {
    extern __shared__ __align__(16) u8 shared[];
    u32 tiles = shared_address(shared);  // key, value, then two stages of query and d_context
    RowRecord* row_records = (RowRecord*)(shared + 6 * TILE_BYTES);  // [2][TILE]
    float* table = (float*)(row_records + 2 * TILE);

    int head = blockIdx.y, b = blockIdx.z;
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    int keys = z.length + z.predicted;
    KeyTile t = key_tile(z, blockIdx.x);
    int inner = inner_column(z, b, head);
    auto key_of = [&](int i) { return key_at(z, t, i); };

    auto load = [&](int index, int stage) {
        u32 q_tile = tiles + (2 + 2 * stage) * TILE_BYTES;
        load_queries(q_tile, q_tile + TILE_BYTES, row_records + stage * TILE, query, d_context, row_info, z, row_tile(z, index), b, head);
    };
    int last = row_tiles(z);
    auto next = [&](int index) { return next_rows(z, t, index, last); };

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
            add_products(dv, s[0], s[1], g_tile, c * 16);
            add_products(dk, dp[0], dp[1], q_tile, c * 16);
        }
    }
    float back = 1.0f / z.keep_probability;
    store_rows(d_value + inner, row_stride(z), dv, back, back, warp * 16, key_of);
    back *= z.scale;
    store_rows(d_key + inner, row_stride(z), dk, back, back, warp * 16, key_of);
}
