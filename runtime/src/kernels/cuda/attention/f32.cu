// Two-stream attention, forward and backward, in f32 throughout: ELEMENT 0, HEAD_DIM any multiple of 4 up to 128,
// TILE 64 or 32. Behind `two_stream.cuh`.
//
// 16 threads share rows: a thread has ROWS neighbouring rows, of their scores those of every 16th column, and of
// their results every 16th pair of dimensions. The weights change hands through shared memory, within a half-warp.

#define ROWS (TILE / 8)
#define COLUMNS (TILE / 16)
#define PAIRS ((HEAD_DIM + 31) / 32)
// Floats between two columns of the weights in shared memory, [TILE columns, TILE rows].
#define WEIGHT_PITCH (TILE + 4)
#define WEIGHT_BYTES (TILE * WEIGHT_PITCH * 4)

__device__ __forceinline__ int own_row(int i) { return (threadIdx.x >> 4) * ROWS + i; }
__device__ __forceinline__ int own_column(int j) { return (threadIdx.x & 15) + 16 * j; }

// Where this thread's pair `p` of dimensions begins, and whether heads have it.
__device__ __forceinline__ int own_pair(int p) { return 2 * own_column(0) + 32 * p; }
__device__ __forceinline__ bool has_pair(int p) { return HEAD_DIM % 32 == 0 || own_pair(p) < HEAD_DIM; }

__device__ __forceinline__ float half_warp_max(float x) {
#pragma unroll
    for (int i = 8; i; i >>= 1) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, i));
    return x;
}

__device__ __forceinline__ float half_warp_sum(float x) {
#pragma unroll
    for (int i = 8; i; i >>= 1) x += __shfl_xor_sync(0xffffffffu, x, i);
    return x;
}

// Products of this thread's rows of `a` with its columns, rows of `b`.
__device__ __forceinline__ void multiply(float (&s)[ROWS][COLUMNS], const float* a, const float* b) {
#pragma unroll 2
    for (int k = 0; k < HEAD_DIM; k += 4) {
        float4 y[COLUMNS];
#pragma unroll
        for (int j = 0; j < COLUMNS; j++) y[j] = *(const float4*)(b + own_column(j) * PITCH + k);
#pragma unroll
        for (int i = 0; i < ROWS; i++) {
            float4 x = *(const float4*)(a + own_row(i) * PITCH + k);
#pragma unroll
            for (int j = 0; j < COLUMNS; j++) {
                s[i][j] = fmaf(x.x, y[j].x, s[i][j]);
                s[i][j] = fmaf(x.y, y[j].y, s[i][j]);
                s[i][j] = fmaf(x.z, y[j].z, s[i][j]);
                s[i][j] = fmaf(x.w, y[j].w, s[i][j]);
            }
        }
    }
}

// Hands this thread's weights to those who share its rows.
__device__ __forceinline__ void share(float* weights, const float (&s)[ROWS][COLUMNS]) {
    __syncwarp();
#pragma unroll
    for (int j = 0; j < COLUMNS; j++)
#pragma unroll
        for (int i = 0; i < ROWS; i += 4)
            *(float4*)(weights + own_column(j) * WEIGHT_PITCH + own_row(i)) =
                make_float4(s[i][j], s[i + 1][j], s[i + 2][j], s[i + 3][j]);
    __syncwarp();
}

// Adds the products of the weights of this thread's rows with its dimensions of `b`.
__device__ __forceinline__ void accumulate(float2 (&out)[ROWS][PAIRS], const float* weights, const float* b) {
#pragma unroll 2
    for (int c = 0; c < TILE; c++) {
        float2 y[PAIRS];
#pragma unroll
        for (int p = 0; p < PAIRS; p++) y[p] = has_pair(p) ? *(const float2*)(b + c * PITCH + own_pair(p)) : make_float2(0.0f, 0.0f);
#pragma unroll
        for (int i = 0; i < ROWS; i += 4) {
            float4 four = *(const float4*)(weights + c * WEIGHT_PITCH + own_row(i));
            const float x[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
            for (int n = 0; n < 4; n++)
#pragma unroll
                for (int p = 0; p < PAIRS; p++) {
                    out[i + n][p].x = fmaf(x[n], y[p].x, out[i + n][p].x);
                    out[i + n][p].y = fmaf(x[n], y[p].y, out[i + n][p].y);
                }
        }
    }
}

// This thread's results, each row times its factor, to memory.
template <class Row, class Factor>
__device__ __forceinline__ void store_own(float* to, i64 stride, const float2 (&out)[ROWS][PAIRS], Row row, Factor factor) {
#pragma unroll
    for (int i = 0; i < ROWS; i++) {
        int index = row(own_row(i));
        if (index < 0) continue;
#pragma unroll
        for (int p = 0; p < PAIRS; p++) {
            float2 x = make_float2(out[i][p].x * factor(i), out[i][p].y * factor(i));
            if (has_pair(p)) *(float2*)(to + index * stride + own_pair(p)) = x;
        }
    }
}

// Context [R, B, H, HEAD_DIM] and log-sum-exp [B, H, R]. Grid: (row tiles, H, B).
extern "C" __global__ void __launch_bounds__(THREADS, 2) forward(
    float* context, float* lse, const float* query, const float* key, const float* value,
    const i64* positions, const KeyRecord* records, const float* tables,
    const u32* head_factors, const u32* row_factors, Sizes z) {
    extern __shared__ __align__(16) u8 shared[];
    u32 tiles = shared_address(shared);
    const float* q_tile = (const float*)shared;
    const float* k_tile = q_tile + TILE * PITCH;
    const float* v_tile = k_tile + TILE * PITCH;
    float* weights = (float*)(shared + 3 * TILE_BYTES);
    KeyRecord* info = (KeyRecord*)(shared + 3 * TILE_BYTES + WEIGHT_BYTES);  // [TILE]
    float* table = (float*)(info + TILE);

    int head = blockIdx.y, b = blockIdx.z;
    int all_rows = z.length + 2 * z.predicted;
    RowTile rows = row_tile(z, gridDim.x - 1 - blockIdx.x);
    auto row_of = [&](int i) { return row_at(z, rows, i); };
    load_rows(tiles, query + inner_column(z, b, head), row_stride(z), row_of);
    load_bias(table, tables, z, head);

    int place[ROWS], limit[ROWS];
    u32 factor[ROWS];
#pragma unroll
    for (int i = 0; i < ROWS; i++) {
        int row = max(row_of(own_row(i)), 0);
        int index = row + all_rows - z.rows;
        place[i] = 4 * (z.positions - 1 - (int)positions[(i64)b * all_rows + index]);
        limit[i] = limit_at(z, rows, own_row(i));
        factor[i] = DROPOUT ? head_factors[b * z.heads + head] * row_factors[row] : 0;
    }
    float scale = z.scale * LOG2E;
    float peak[ROWS], total[ROWS] = {};
    float2 out[ROWS][PAIRS] = {};
#pragma unroll
    for (int i = 0; i < ROWS; i++) peak[i] = NEG_INF;

    int last = key_tiles(z);
    for (int current = next_keys(z, rows, 0, last); current < last; current = next_keys(z, rows, current + 1, last)) {
        KeyTile t = key_tile(z, current);
        bool partly = sight(z, rows, t) == SOME;
        __syncthreads();
        load_keys(tiles + TILE_BYTES, tiles + 2 * TILE_BYTES, info, key, value, records, z, t, b, head);
        wait_all();
        __syncthreads();

        float s[ROWS][COLUMNS] = {};
        multiply(s, q_tile, k_tile);
        KeyRecord record[COLUMNS];
        int mark[COLUMNS];
#pragma unroll
        for (int j = 0; j < COLUMNS; j++) {
            record[j] = info[own_column(j)];
            mark[j] = partly ? mark_at(z, t, own_column(j)) : 0;
        }
#pragma unroll
        for (int i = 0; i < ROWS; i++) {
            float top = peak[i];
#pragma unroll
            for (int j = 0; j < COLUMNS; j++) {
                float x = s[i][j] * scale + at_byte(table, record[j].place + place[i]);
                if (partly && (limit[i] <= mark[j]) == t.predicted) x = NEG_INF;
                s[i][j] = x;
                top = fmaxf(top, x);
            }
            top = half_warp_max(top);
            float base = top == NEG_INF ? 0.0f : top;
            float shrink = exp2_fast(peak[i] - base);
            peak[i] = top;
            total[i] *= shrink;
#pragma unroll
            for (int p = 0; p < PAIRS; p++) {
                out[i][p].x *= shrink;
                out[i][p].y *= shrink;
            }
#pragma unroll
            for (int j = 0; j < COLUMNS; j++) {
                float w = exp2_fast(s[i][j] - base);
                total[i] += w;
                if (DROPOUT && factor[i] * record[j].factor < z.drop_limit) w = 0.0f;
                s[i][j] = w;
            }
        }
        share(weights, s);
        accumulate(out, weights, v_tile);
    }
#pragma unroll
    for (int i = 0; i < ROWS; i++) {
        total[i] = half_warp_sum(total[i]);
        int row = row_of(own_row(i));
        if ((threadIdx.x & 15) == 0 && row >= 0)
            lse[((i64)b * z.heads + head) * z.rows + row] = total[i] > 0.0f ? (peak[i] + log2_fast(total[i])) * LN2 : 0.0f;
    }
    auto factor_of = [&](int i) { return total[i] > 0.0f ? 1.0f / (total[i] * z.keep_probability) : 0.0f; };
    store_own(context + head_column(z, b, head), head_stride(z), out, row_of, factor_of);
}

// Gradient of the queries [R, B, H, HEAD_DIM], and each tile's part of the bias' gradient,
// [B, row tiles, H, 2 * positions - 1]. Sums of the bias' gradient are integers, so that their order
// changes nothing: whole units and 2^-22 of one. Grid: (row tiles, H, B).
extern "C" __global__ void __launch_bounds__(THREADS, 2) backward_query(
    float* d_query, float* d_bias_parts, const float* d_context, const float* query, const float* key, const float* value,
    const RowRecord* row_info, const KeyRecord* records, const float* largest, const float* tables, Sizes z) {
    extern __shared__ __align__(16) u8 shared[];
    u32 tiles = shared_address(shared);
    const float* q_tile = (const float*)shared;
    const float* g_tile = q_tile + TILE * PITCH;
    const float* k_tile = g_tile + TILE * PITCH;
    const float* v_tile = k_tile + TILE * PITCH;
    float* weights = (float*)(shared + 4 * TILE_BYTES);
    KeyRecord* info = (KeyRecord*)(shared + 4 * TILE_BYTES + WEIGHT_BYTES);  // [TILE]
    float* table = (float*)(info + TILE);
    int* wholes = (int*)(table + bias_floats(z));
    int* rests = wholes + bias_floats(z);

    int head = blockIdx.y, b = blockIdx.z;
    int tile = gridDim.x - 1 - blockIdx.x;
    RowTile rows = row_tile(z, tile);
    auto row_of = [&](int i) { return row_at(z, rows, i); };
    load_rows(tiles, query + inner_column(z, b, head), row_stride(z), row_of);
    load_rows(tiles + TILE_BYTES, d_context + head_column(z, b, head), head_stride(z), row_of);
    load_bias(table, tables, z, head);
    for (int i = threadIdx.x; i < 2 * bias_floats(z); i += THREADS) wholes[i] = 0;

    RowRecord own[ROWS];
    int limit[ROWS];
#pragma unroll
    for (int i = 0; i < ROWS; i++) {
        int row = row_of(own_row(i));
        own[i] = {0, 0, 0.0f, 0.0f};
        if (row >= 0) own[i] = row_info[((i64)b * z.heads + head) * z.rows + row];
        limit[i] = limit_at(z, rows, own_row(i));
    }
    float scale = z.scale * LOG2E;
    float bound = largest[b * z.heads + head];
    float unit = bound > 0.0f ? UNITS / bound : 0.0f;
    const float finer = 4194304.0f;
    float2 dq[ROWS][PAIRS] = {};

    int last = key_tiles(z);
    for (int current = next_keys(z, rows, 0, last); current < last; current = next_keys(z, rows, current + 1, last)) {
        KeyTile t = key_tile(z, current);
        bool partly = sight(z, rows, t) == SOME;
        __syncthreads();
        load_keys(tiles + 2 * TILE_BYTES, tiles + 3 * TILE_BYTES, info, key, value, records, z, t, b, head);
        wait_all();
        __syncthreads();

        float s[ROWS][COLUMNS] = {}, dp[ROWS][COLUMNS] = {};
        multiply(s, q_tile, k_tile);
        multiply(dp, g_tile, v_tile);
#pragma unroll
        for (int j = 0; j < COLUMNS; j++) {
            KeyRecord record = info[own_column(j)];
            int mark = partly ? mark_at(z, t, own_column(j)) : 0;
#pragma unroll
            for (int i = 0; i < ROWS; i++) {
                int at = record.place + own[i].place;
                float p = exp2_fast(s[i][j] * scale + at_byte(table, at) - own[i].lse);
                if (partly && (limit[i] <= mark) == t.predicted) p = 0.0f;
                float d = dp[i][j];
                if (DROPOUT && own[i].factor * record.factor < z.drop_limit) d = 0.0f;
                float ds = p * (d - own[i].delta);
                s[i][j] = ds;
                int whole = round_units(ds * unit);
                atomicAdd((int*)((char*)wholes + at), whole);
                atomicAdd((int*)((char*)rests + at), round_units((ds * unit - (float)whole) * finer));
            }
        }
        share(weights, s);
        accumulate(dq, weights, k_tile);
    }
    auto factor_of = [&](int) { return z.scale / z.keep_probability; };
    store_own(d_query + inner_column(z, b, head), row_stride(z), dq, row_of, factor_of);
    __syncthreads();
    int columns = 2 * z.positions - 1;
    float* parts = d_bias_parts + (((i64)b * gridDim.x + tile) * z.heads + head) * columns;
    float worth = bound > 0.0f ? bound / (UNITS * z.keep_probability) : 0.0f;
    for (int i = threadIdx.x; i < columns; i += THREADS)
        parts[i] = ((float)wholes[i + z.positions] + (float)rests[i + z.positions] / finer) * worth;
}

// Gradients of the keys and the values, [S, B, H, HEAD_DIM]; here rows are keys. Grid: (key tiles, H, B).
extern "C" __global__ void __launch_bounds__(THREADS, 2) backward_key_value(
    float* d_key, float* d_value, const float* d_context, const float* query, const float* key, const float* value,
    const RowRecord* row_info, const KeyRecord* records, const float* tables, Sizes z) {
    extern __shared__ __align__(16) u8 shared[];
    u32 tiles = shared_address(shared);
    const float* k_tile = (const float*)shared;
    const float* v_tile = k_tile + TILE * PITCH;
    const float* q_tile = v_tile + TILE * PITCH;
    const float* g_tile = q_tile + TILE * PITCH;
    float* weights = (float*)(shared + 4 * TILE_BYTES);
    RowRecord* info = (RowRecord*)(shared + 4 * TILE_BYTES + WEIGHT_BYTES);  // [TILE]
    float* table = (float*)(info + TILE);

    int head = blockIdx.y, b = blockIdx.z;
    int keys = z.length + z.predicted;
    KeyTile t = key_tile(z, blockIdx.x);
    auto key_of = [&](int i) { return key_at(z, t, i); };
    load_rows(tiles, key + inner_column(z, b, head), row_stride(z), key_of);
    load_rows(tiles + TILE_BYTES, value + inner_column(z, b, head), row_stride(z), key_of);
    load_bias(table, tables, z, head);

    KeyRecord own[ROWS];
    int mark[ROWS];
#pragma unroll
    for (int i = 0; i < ROWS; i++) {
        int k = key_of(own_row(i));
        own[i] = {0, 0};
        if (k >= 0) own[i] = records[b * keys + k];
        mark[i] = mark_at(z, t, own_row(i));
    }
    float scale = z.scale * LOG2E;
    float2 dk[ROWS][PAIRS] = {}, dv[ROWS][PAIRS] = {};

    int last = row_tiles(z);
    for (int current = next_rows(z, t, 0, last); current < last; current = next_rows(z, t, current + 1, last)) {
        RowTile rows = row_tile(z, current);
        bool partly = sight(z, rows, t) == SOME;
        __syncthreads();
        load_queries(tiles + 2 * TILE_BYTES, tiles + 3 * TILE_BYTES, info, query, d_context, row_info, z, rows, b, head);
        wait_all();
        __syncthreads();

        float s[ROWS][COLUMNS] = {}, dp[ROWS][COLUMNS] = {};  // [key, row]
        multiply(s, k_tile, q_tile);
        multiply(dp, v_tile, g_tile);
#pragma unroll
        for (int j = 0; j < COLUMNS; j++) {
            RowRecord record = info[own_column(j)];
            int limit = partly ? limit_at(z, rows, own_column(j)) : 0;
#pragma unroll
            for (int i = 0; i < ROWS; i++) {
                float p = exp2_fast(s[i][j] * scale + at_byte(table, own[i].place + record.place) - record.lse);
                if (partly && (limit <= mark[i]) == t.predicted) p = 0.0f;
                bool drop = DROPOUT && own[i].factor * record.factor < z.drop_limit;
                float d = drop ? 0.0f : dp[i][j];
                dp[i][j] = p * (d - record.delta);
                s[i][j] = drop ? 0.0f : p;
            }
        }
        share(weights, s);
        accumulate(dv, weights, g_tile);
        share(weights, dp);
        accumulate(dk, weights, q_tile);
    }
    wait_all();  // where nobody sees these keys, too
    float back = 1.0f / z.keep_probability;
    store_own(d_value + inner_column(z, b, head), row_stride(z), dv, key_of, [&](int) { return back; });
    store_own(d_key + inner_column(z, b, head), row_stride(z), dk, key_of, [&](int) { return back * z.scale; });
}
