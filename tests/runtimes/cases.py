"""Writes `cases.npz` into an exported folder: ids, masks and what PyTorch computes of them in float64.

usage: cases.py HF_FOLDER EXPORTED [EXPORTED ...] [--batch N] [--length N]
With sizes, cases of these alone. `cases.json` has the same for JavaScript; `texts.json` has texts in the words of
`tokenizer.py` and their embeddings. Needs torch and transformers. An output that the exported model does not have is
not looked at by the scripts.
"""
import argparse
import json
from pathlib import Path

import numpy as np
import torch
from common import SHAPES
from transformers import MPNetForMaskedLM

parser = argparse.ArgumentParser()
parser.add_argument("source")
parser.add_argument("folders", nargs="+", type=Path)
parser.add_argument("--batch", type=int)
parser.add_argument("--length", type=int)
arguments = parser.parse_args()
source, folders = arguments.source, arguments.folders
fitting = [shape for shape in SHAPES if arguments.batch in (None, shape[0]) and arguments.length in (None, shape[1])]
model = MPNetForMaskedLM.from_pretrained(source, attn_implementation="eager").double().eval()
random = np.random.default_rng(7)
arrays = {}
for index, (rows, length) in enumerate(fitting):
    ids = random.integers(4, model.config.vocab_size, (rows, length))
    mask = np.ones_like(ids)
    for row in range(1, rows):
        end = length - row * length // (2 * rows)
        ids[row, end:] = model.config.pad_token_id
        mask[row, end:] = 0
    inputs = {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}
    with torch.no_grad():
        states = model.mpnet(**inputs).last_hidden_state
        logits = model.lm_head(states)
    weights = inputs["attention_mask"][..., None]
    arrays |= {
        f"{index}.input_ids": ids,
        f"{index}.attention_mask": mask,
        f"{index}.last_hidden_state": states.numpy(),
        f"{index}.logits": logits.numpy(),
        f"{index}.sentence_embedding": ((states * weights).sum(1) / weights.sum(1)).numpy(),
    }
TEXTS = ["w10 w20 w30", "w44 w45 w46 w47 w48 w49 w50", "w5"]
ids = [[0, *(int(word[1:]) for word in text.split()), 2] for text in TEXTS]
with torch.no_grad():
    embeddings = [model.mpnet(input_ids=torch.tensor([row])).last_hidden_state[0].mean(0).tolist() for row in ids]
lines = []
for index, shape in enumerate(fitting):
    case = {key.split(".", 1)[1]: arrays[key] for key in arrays if key.startswith(f"{index}.")}
    line = {"dims": shape} | {name: case.pop(name).ravel().tolist() for name in ("input_ids", "attention_mask")}
    line["outputs"] = {name: {"dims": value.shape, "data": value.ravel().tolist()} for name, value in case.items()}
    lines.append(line)
for folder in folders:
    np.savez_compressed(folder / "cases.npz", **arrays)
    (folder / "cases.json").write_text(json.dumps(lines))
    (folder / "texts.json").write_text(json.dumps({"texts": TEXTS, "embeddings": embeddings}))
