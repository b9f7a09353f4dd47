"""Latency of the encoder that `mpnet export` writes beside Optimum's export of the same model.

usage: latency.py OURS THEIRS [RUNS]
  OURS, THEIRS  folders with a model.onnx each

Both in one process by turns, so that other load on the machine meets both alike; prints medians and
the fastest of RUNS (30) runs, two threads, and the median, lowest and highest ratio of a pair.
"""
import statistics
import sys
import time

import numpy as np
import onnxruntime as ort

ours, theirs = sys.argv[1:3]
runs = int(sys.argv[3]) if len(sys.argv) > 3 else 30
options = ort.SessionOptions()
options.intra_op_num_threads = 2
sessions = {
    name: ort.InferenceSession(f"{folder}/model.onnx", options, providers=["CPUExecutionProvider"])
    for name, folder in (("ours", ours), ("Optimum's", theirs))
}
for rows in (1, 8):
    ids = np.random.default_rng(0).integers(4, 30000, (rows, 128))
    feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    times = {name: [] for name in sessions}
    found = {}
    for run in range(runs + 2):
        # Now one is first, now the other.
        for name, session in list(sessions.items())[:: 1 - 2 * (run % 2)]:
            start = time.perf_counter()
            found[name] = session.run(["last_hidden_state"], feeds)[0]
            if run >= 2:
                times[name].append(1e3 * (time.perf_counter() - start))
    apart = np.abs(found["ours"] - found["Optimum's"]).max()
    said = ", ".join(f"{n} {statistics.median(t):.1f} ms (fastest {min(t):.1f})" for n, t in times.items())
    ratios = sorted(a / b for a, b in zip(times["ours"], times["Optimum's"]))
    ratio = f"ratio {statistics.median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})"
    print(f"{rows} × 128: {said}; {ratio}; apart by {apart:.2g}", flush=True)
