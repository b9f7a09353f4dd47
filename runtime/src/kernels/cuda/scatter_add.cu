// Rows added to those of a table that their indices name, each row's sum in the order of the indices: the numbers of
// those that go to one row are counted, listed and put in order, and lists that are long are summed in chunks.

#define THREADS 256
#define CHUNK 64  // rows that one block adds up
#define SCANNING 1024

// counts[height] += 1 for each index; indices outside the table go nowhere.
extern "C" __global__ void __launch_bounds__(THREADS) count_indices(int* counts, const i64* indices, int count, int height) {
    int i = blockIdx.x * THREADS + threadIdx.x;
    if (i >= count) return;
    i64 row = indices[i];
    if (row >= 0 && row < height) atomicAdd(&counts[row], 1);
}

// Where each row's list begins, and the first of its chunks, both [height + 1]. One block.
extern "C" __global__ void __launch_bounds__(SCANNING) begin_lists(int* begins, int* chunks, const int* counts, int height) {
    __shared__ int entries[SCANNING], pieces[SCANNING];
    int each = (height + SCANNING - 1) / SCANNING;
    int first = min(threadIdx.x * each, height), last = min(first + each, height);
    int entry = 0, piece = 0;
    for (int row = first; row < last; row++) {
        entry += counts[row];
        if (counts[row] > CHUNK) piece += (counts[row] + CHUNK - 1) / CHUNK;
    }
    entries[threadIdx.x] = entry;
    pieces[threadIdx.x] = piece;
    __syncthreads();
    for (int step = 1; step < SCANNING; step *= 2) {
        int e = threadIdx.x >= step ? entries[threadIdx.x - step] : 0;
        int p = threadIdx.x >= step ? pieces[threadIdx.x - step] : 0;
        __syncthreads();
        entries[threadIdx.x] += e;
        pieces[threadIdx.x] += p;
        __syncthreads();
    }
    entry = entries[threadIdx.x] - entry;
    piece = pieces[threadIdx.x] - piece;
    for (int row = first; row < last; row++) {
        begins[row] = entry;
        chunks[row] = piece;
        entry += counts[row];
        if (counts[row] > CHUNK) piece += (counts[row] + CHUNK - 1) / CHUNK;
    }
    if (threadIdx.x == SCANNING - 1) {
        begins[height] = entry;
        chunks[height] = piece;
    }
}

// The numbers of the indices, list by list, in any order within one. `counts` is used up.
extern "C" __global__ void __launch_bounds__(THREADS) list_indices(
    int* listed, int* counts, const int* begins, const i64* indices, int count, int height) {
    int i = blockIdx.x * THREADS + threadIdx.x;
    if (i >= count) return;
    i64 row = indices[i];
    if (row >= 0 && row < height) listed[begins[row] + atomicAdd(&counts[row], -1) - 1] = i;
}

// The same in ascending order within each list.
extern "C" __global__ void __launch_bounds__(THREADS) order_lists(
    int* ordered, const int* listed, const int* begins, const i64* indices, int height) {
    int i = blockIdx.x * THREADS + threadIdx.x;
    if (i >= begins[height]) return;
    int number = listed[i];
    i64 row = indices[number];
    int first = begins[row], last = begins[row + 1], before = 0;
    for (int other = first; other < last; other++) before += listed[other] < number;
    ordered[first + before] = number;
}

// The sums of the chunks of lists that have more than one, [chunks, width]. Grid: as many chunks as there may be.
extern "C" __global__ void __launch_bounds__(THREADS) sum_chunks(
    float* sums, const int* ordered, const int* begins, const int* chunks, const float* rows, int height, int width) {
    int chunk = blockIdx.x;
    if (chunk >= chunks[height]) return;
    // The last row whose chunks do not begin behind this one.
    int row = 0, behind = height;
    while (behind - row > 1) {
        int middle = (row + behind) / 2;
        if (chunks[middle] <= chunk) row = middle;
        else behind = middle;
    }
    int begin = begins[row] + (chunk - chunks[row]) * CHUNK, end = min(begin + CHUNK, begins[row + 1]);
    for (int column = threadIdx.x; column < width; column += THREADS) {
        float sum = 0;
#pragma unroll 8
        for (int i = begin; i < end; i++) sum += rows[(i64)ordered[i] * width + column];
        sums[(i64)chunk * width + column] = sum;
    }
}

// table + its rows' sums, [height, width]; the result may lie where the table does. Grid: rows of the table.
extern "C" __global__ void __launch_bounds__(THREADS) add_lists(
    float* result, const float* table, const float* sums, const int* ordered, const int* begins, const int* chunks,
    const float* rows, int width) {
    int row = blockIdx.x;
    int begin = begins[row], end = begins[row + 1], first = chunks[row], last = chunks[row + 1];
    if (begin == end && result == table) return;
    for (int column = threadIdx.x; column < width; column += THREADS) {
        i64 at = (i64)row * width + column;
        float sum = table[at];
        if (first == last) {
#pragma unroll 4
            for (int i = begin; i < end; i++) sum += rows[(i64)ordered[i] * width + column];
        } else {
#pragma unroll 8
            for (int chunk = first; chunk < last; chunk++) sum += sums[(i64)chunk * width + column];
        }
        result[at] = sum;
    }
}
