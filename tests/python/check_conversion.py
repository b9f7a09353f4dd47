"""Checks that `transformers` loads what `convert-to-hf` writes, and computes what our own graph computes.

usage: check_conversion.py MPNET CONVERT_TO_HF CHECKPOINT
  MPNET, CONVERT_TO_HF  the binaries
  CHECKPOINT            a native checkpoint, or the folder of a run
needs: requirements.txt beside this file

1. AutoModelForMaskedLM and AutoModel find every key and no other; AutoTokenizer loads.
2. The logits agree with those of our encoder graph to 1e-4 of the largest.
Prints a line a check; exits 1 where one fails.
"""
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from safetensors.numpy import load_file
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer

mpnet, convert, checkpoint = sys.argv[1:4]
checkpoint = Path(checkpoint)
if (checkpoint / "best").exists():
    checkpoint = checkpoint / (checkpoint / "best").read_text().strip()
failed = False


def check(what, passed):
    global failed
    failed |= not passed
    print(f"{'ok  ' if passed else 'FAIL'} {what}")


with tempfile.TemporaryDirectory() as root:
    hf, graph = f"{root}/hf", f"{root}/graph"
    for command in (
        [convert, "--mpnet-checkpoint-path", checkpoint, "--hf-model-folder-path", hf],
        [mpnet, "compile", "--checkpoint", checkpoint, "--target", "encoder", "--output", graph],
    ):
        subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)
    model, info = AutoModelForMaskedLM.from_pretrained(hf, output_loading_info=True)
    check(f"AutoModelForMaskedLM: {info}", not any(info[k] for k in ("missing_keys", "unexpected_keys", "mismatched_keys")))
    _, info = AutoModel.from_pretrained(hf, output_loading_info=True, add_pooling_layer=False)
    foreign = {k for k in info["unexpected_keys"] if not k.startswith("lm_head.")}
    check(f"AutoModel: missing {set(info['missing_keys'])}, unexpected {foreign}", not info["missing_keys"] and not foreign)
    tokenizer = AutoTokenizer.from_pretrained(hf)
    check(f"AutoTokenizer: {type(tokenizer).__name__}", tokenizer.mask_token == "<mask>")

    batch = tokenizer(
        ["in the beginning <mask> created the heaven and the earth", "and <mask> said"], padding=True, return_tensors="pt"
    )
    fields = ("input_ids", "attention_mask")
    with torch.no_grad():
        theirs = model.eval()(**{f: batch[f] for f in fields}).logits.numpy()
    session = ort.InferenceSession(f"{graph}/encoder.onnx", providers=["CPUExecutionProvider"])
    feeds = {f: batch[f].numpy() for f in fields} | load_file(checkpoint / "model.safetensors")
    wanted = {i.name for i in session.get_inputs()}
    found = session.run(["logits"], {n: v for n, v in feeds.items() if n in wanted})[0]
    ours = found.reshape(*theirs.shape[:2], -1)[..., : theirs.shape[-1]]
    real = batch["attention_mask"].numpy().astype(bool)
    difference = np.abs(ours - theirs)[real].max() / np.abs(theirs[real]).max()
    check(f"logits of {theirs.shape}: {difference:.3g} of the largest (at most 0.0001)", bool(difference <= 1e-4))
sys.exit(failed)
