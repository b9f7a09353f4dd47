"""What every script here does: seven shapes in one loaded model, against values that PyTorch computed.

A script is called `python RUNTIME.py FOLDER`; FOLDER is what `mpnet export` wrote, with `cases.npz` from
`cases.py` in it. It prints one line of JSON: what happened.
"""
import json
import sys
import traceback
from importlib import metadata
from pathlib import Path

import numpy as np

SHAPES = [(1, 5), (1, 16), (2, 16), (3, 40), (4, 7), (1, 48), (2, 33)]


def cases(folder):
    """(ids, mask, {output: values}) of each shape."""
    stored = np.load(Path(folder) / "cases.npz")
    for index in range(sum(key.endswith(".input_ids") for key in stored)):
        wanted = {key.split(".", 1)[1]: stored[key] for key in stored if key.startswith(f"{index}.")}
        yield wanted.pop("input_ids"), wanted.pop("attention_mask"), wanted


def difference(found, wanted, mask):
    """The largest difference of an output; of padding nothing is asked."""
    found = np.asarray(found, dtype=np.float64)
    if found.shape != wanted.shape:
        return float("inf")
    apart = np.abs(found - wanted)
    if apart.ndim == 3:
        apart = apart[mask.astype(bool)]
    return float(apart.max())


def report(packages, run, fresh=False, note=""):
    """Calls `run(model)`, which gives a function from ids and mask to {output: values}, and prints what came of it.

    `fresh`: the runtime takes one shape a loaded model, so the model is loaded for each."""
    folder = Path(sys.argv[1])
    versions = {name: metadata.version(name) for name in packages}
    asked = list(cases(folder))
    line = {"versions": versions, "loads": False, "shapes": 0, "of": len(asked), "difference": 0.0, "note": note}
    try:
        infer = None
        for ids, mask, wanted in asked:
            if infer is None or fresh:
                infer = run(str(folder / "model.onnx"))
                line["loads"] = True
            found = infer(ids, mask)
            missing = [name for name in wanted if name in found]
            if not missing:
                raise RuntimeError(f"outputs {list(found)}")
            apart = max(difference(found[name], wanted[name], mask) for name in missing)
            line["difference"] = max(line["difference"], apart)
            line["shapes"] += 1
    except Exception as error:  # what another program says of our file is what the table tells
        traceback.print_exc()
        line["error"] = f"{type(error).__name__}: {error}".strip().splitlines()[0][:300]
    print(json.dumps(line))


def report_texts(packages, embed, note=""):
    """The same for what takes texts: `embed(folder, texts)` gives their embeddings."""
    folder = Path(sys.argv[1])
    versions = {name: metadata.version(name) for name in packages}
    asked = json.loads((folder / "texts.json").read_text())
    count = len(asked["texts"])
    line = {"versions": versions, "loads": False, "shapes": 0, "of": count, "difference": 0.0, "note": note, "what": "texts"}
    try:
        found = np.asarray(embed(folder, asked["texts"]), dtype=np.float64)
        line |= {"loads": True, "difference": float(np.abs(found - np.array(asked["embeddings"])).max()), "shapes": len(found)}
    except Exception as error:
        traceback.print_exc()
        line["error"] = f"{type(error).__name__}: {error}".strip().splitlines()[0][:300]
    print(json.dumps(line))
