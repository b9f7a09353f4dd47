"""Sums up a trace of trace.cpp: time by kind of kernel, copies, and how long the GPU stood idle.

usage: classes.py TRACE [STEPS]   the last STEPS steps (default 5) of the program are counted; a step ends with a
                                  copy of a few bytes to the host after the longest stretch of kernels
"""
import collections
import re
import sys

CLASSES = [
    ("attention, ours", r"^(forward|backward_query|backward_key_value|row_records|row_info|prepare|arrange|clear_behind_keys)$"),
    ("residual and LayerNorm, ours", r"^(residual_norm|normalized_again)"),
    ("bias, GELU, dropout, ours", r"^bias_gelu"),
    ("loss, ours", r"^(cross_entropy|sum_losses)"),
    ("AdamW, ours", r"^adamw$"),
    ("other kernels of ours", r"^(sum_parts|factor_dropout|gelu_grad|layer_norm_grad)$"),
    ("matrix products", r"gemm|nvjet|cutlass|xmma|cublas|splitKreduce|sm90_|sm80_"),
    ("softmax", r"[Ss]oftmax|dispatch_softmax"),
    ("layer normalization", r"LayerNorm|cuApplyLayerNorm|ComputePartGrad|ComputeGradGammaBeta"),
    ("cross entropy", r"CrossEntropy|LogSoftmax"),
    ("gather, scatter", r"[Gg]ather|[Ss]catter|OneHot"),
    ("reductions", r"[Rr]educ|matrix_columns|matrix_rows"),
    ("transpositions", r"[Tt]ranspose"),
    ("casts", r"[Cc]ast"),
    ("choices (Where)", r"Where|Ternary"),
    ("GELU", r"[Gg]elu|[Ee]rf"),
    ("copies, slices, concatenations", r"[Ss]lice|[Cc]oncat|[Ss]plit|Expand|Pad|Tile|memcpy|Fill"),
    ("other elementwise", r"[Bb]inary|[Uu]nary|Elementwise|Less|Compare"),
]


def kind(name):
    return next((title for title, pattern in CLASSES if re.search(pattern, name)), "other")


def main():
    steps = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    events = []
    for line in open(sys.argv[1]):
        what, start, end, size, name = line.rstrip("\n").split("\t", 4)
        events.append((int(start), int(end), what, int(size), name))
    events.sort()
    # AdamW's kernels run once a step: the gaps between the reads of its norm are the steps.
    ends = [e[1] for e in events if e[2] == "copy" and e[4] == "2" and e[3] == 4]
    longest = max((b - a for a, b in zip(ends[-20:], ends[-19:])), default=0)
    marks = [b for a, b in zip(ends, ends[1:]) if b - a > longest / 2]
    marks = marks[-steps - 1:]
    first, last = marks[0], marks[-1]
    window = [e for e in events if first <= e[0] < last]
    span, steps = last - first, len(marks) - 1
    times, counts, names = collections.Counter(), collections.Counter(), collections.Counter()
    copies = collections.Counter()
    busy, reached = 0, first
    for start, end, what, size, name in window:
        title = kind(name) if what == "kernel" else "copies to and from the host"
        if what == "copy" and name == "8":
            title = "copies, slices, concatenations"
        times[title] += end - start
        counts[title] += 1
        if what == "kernel":
            names[name[:150]] += end - start
        else:
            copies[({"1": "to device", "2": "to host", "8": "on device"}.get(name, name), size)] += 1
        busy += max(0, end - max(start, reached))
        reached = max(reached, end)
    print(f"{steps} steps of {span / steps / 1e6:.2f} ms, GPU idle {100 * (1 - busy / span):.2f} %")
    print(f"{'kind':34}{'ms a step':>10}{'share':>8}{'launches':>10}")
    for title, time in times.most_common():
        print(f"{title:34}{time / steps / 1e6:10.3f}{100 * time / span:7.1f}%{counts[title] / steps:10.1f}")
    print("longest kernels, ms a step")
    for name, time in names.most_common(28):
        print(f"{time / steps / 1e6:8.3f}  {name}")
    print("copies: direction, bytes, number a step")
    for (direction, size), count in sorted(copies.items()):
        print(f"{direction:10}{size:>12}{count / steps:8.1f}")


main()
