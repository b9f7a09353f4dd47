"""Reads the event files of a run with TensorBoard's own reader and compares them with metrics.jsonl.

    python tests/python/check_tensorboard.py CHECKPOINTS LOG_DIR

CHECKPOINTS is the run's --checkpoint-dir, LOG_DIR its --tensorboard-log-dir.
"""

import json
import pathlib
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

TRAIN = {"acc", "loss", "sbal", "lr", "gnorm", "ttp", "tpb"}


def scalars(folder):
    reader = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    reader.Reload()
    return {tag: {e.step: e.value for e in reader.Scalars(tag)} for tag in reader.Tags()["scalars"]}


def close(a, b):
    return abs(a - b) <= 1e-6 * max(abs(a), abs(b), 1e-30)


checkpoints, logs = map(pathlib.Path, sys.argv[1:])
records = [json.loads(line) for line in (checkpoints / "metrics.jsonl").read_text().splitlines()]
train, valid, test = (scalars(logs / name) for name in ("train", "valid", "test"))
assert set(train) == TRAIN, set(train)
assert {"loss", "acc"} <= set(valid), set(valid)
compared = 0
for record in records:
    step = record["step"]
    if record["kind"] == "train":
        # A line's loss is a mean over updates; rate and norm are those of its last update.
        for name in ("lr", "gnorm"):
            assert close(train[name][step], record[name]), (step, name, train[name][step], record[name])
            compared += 1
    elif record["kind"] in ("valid", "test"):
        found = {"valid": valid, "test": test}[record["kind"]]
        for name in ("loss", "acc"):
            assert close(found[name][step], record[name]), (step, name)
            compared += 1
steps = sorted(train["loss"])
assert steps == list(range(steps[0], steps[-1] + 1)), "every update has its scalars, once"
assert compared > 0
print(f"{compared} values agree; {len(steps)} updates, tags {sorted(train)}")
