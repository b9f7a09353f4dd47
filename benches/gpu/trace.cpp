// Records every kernel and copy of a CUDA program into a file of tab-separated lines, through CUPTI.
//
//   g++ -O2 -shared -fPIC -I$CUPTI/include trace.cpp -o trace.so -L$CUPTI/lib64 -lcupti -DKERNEL=CUpti_ActivityKernel9 \
//       -DMEMCPY=CUpti_ActivityMemcpy6
//   CUDA_INJECTION64_PATH=$PWD/trace.so TRACE_OUT=trace.tsv PROGRAM …
//
// KERNEL and MEMCPY are the newest structures of the installed cupti_activity.h. `classes.py` sums the lines up.
#include <cupti.h>
#include <cstdio>
#include <cstdlib>

static FILE *out;

static void CUPTIAPI request(uint8_t **buffer, size_t *size, size_t *records) {
    *size = 8 << 20;
    *buffer = static_cast<uint8_t *>(aligned_alloc(8, *size));
    *records = 0;
}

static void CUPTIAPI complete(CUcontext, uint32_t, uint8_t *buffer, size_t, size_t valid) {
    CUpti_Activity *record = nullptr;
    while (cuptiActivityGetNextRecord(buffer, valid, &record) == CUPTI_SUCCESS) {
        if (record->kind == CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL) {
            auto *k = reinterpret_cast<KERNEL *>(record);
            fprintf(out, "kernel\t%llu\t%llu\t0\t%s\n", (unsigned long long)k->start, (unsigned long long)k->end, k->name);
        } else if (record->kind == CUPTI_ACTIVITY_KIND_MEMCPY) {
            auto *m = reinterpret_cast<MEMCPY *>(record);
            // 1 host to device, 2 device to host, 8 device to device
            fprintf(out, "copy\t%llu\t%llu\t%llu\t%d\n", (unsigned long long)m->start, (unsigned long long)m->end,
                    (unsigned long long)m->bytes, m->copyKind);
        }
    }
    free(buffer);
}

static void finish() {
    cuptiActivityFlushAll(1);
    fclose(out);
}

extern "C" int InitializeInjection(void) {
    const char *path = getenv("TRACE_OUT");
    out = fopen(path ? path : "trace.tsv", "w");
    if (!out) return 0;
    cuptiActivityRegisterCallbacks(request, complete);
    cuptiActivityEnable(CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL);
    cuptiActivityEnable(CUPTI_ACTIVITY_KIND_MEMCPY);
    atexit(finish);
    return 1;
}
