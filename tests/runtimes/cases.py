"""Writes `cases.npz` into an exported folder: ids, masks and what PyTorch computes of them in float64.

usage: cases.py HF_FOLDER EXPORTED [EXPORTED ...]
Needs torch and transformers. An output that the exported model does not have is not looked at by the scripts.
"""
import sys
from pathlib import Path

import numpy as np
import torch
from common import SHAPES
from transformers import MPNetForMaskedLM

source, *folders = sys.argv[1:]
model = MPNetForMaskedLM.from_pretrained(source, attn_implementation="eager").double().eval()
random = np.random.default_rng(7)
arrays = {}
for index, (rows, length) in enumerate(SHAPES):
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
for folder in folders:
    np.savez_compressed(Path(folder) / "cases.npz", **arrays)
