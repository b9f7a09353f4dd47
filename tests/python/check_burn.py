"""Checks that Burn computes of `mpnet export --format burn` what transformers computes.

usage: check_burn.py MPNET HF_FOLDER [--every N]
  MPNET      the binary
  HF_FOLDER  a HuggingFace model (of convert-to-hf, say), of 512 positions and a vocabulary of some hundreds:
             every logit is stored
needs: requirements.txt beside this file; cargo

Exports the model to examples/burn/encoder, head by head, builds and runs examples/burn, and compares with
transformers over lengths 1 to 512, or each Nth and the last, padded and unpadded, to 1e-4. Then puts the golden
encoder back and has the example compare itself with what ONNX Runtime makes of it, kept in
examples/burn/expected.safetensors and stored anew where it is no longer that.
Prints a line a check; exits 1 where one fails.
"""
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from reference import HEADS, batch, stored
from safetensors.numpy import load_file, save_file
from transformers import AutoModelForMaskedLM

mpnet, hf = sys.argv[1:3]
every = int(sys.argv[4]) if sys.argv[3:4] == ["--every"] else 1
repository = Path(__file__).resolve().parents[2]
example = repository / "examples/burn"
GOLDEN_LENGTHS, GOLDEN_VOCABULARY = (1, 2, 7, 30, 48), 197
failed = False


def export(model, *options):
    command = [mpnet, "export", model, "--format", "burn", "--output", example / "encoder", *options]
    subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)


def run(what, *arguments):
    global failed
    command = ["cargo", "run", "--release", "--quiet", "--", *arguments]
    done = subprocess.run(command, cwd=example, text=True, stdout=subprocess.PIPE)
    failed |= done.returncode != 0
    print(f"{'FAIL' if done.returncode else 'ok  '} Burn, {what}: {done.stdout.strip()}", flush=True)


try:
    model = AutoModelForMaskedLM.from_pretrained(hf, dtype=torch.float32).eval()
    longest = model.config.max_position_embeddings - 2
    lengths = sorted({*range(1, longest + 1, every), longest})
    for head, outputs in HEADS.items():
        with tempfile.TemporaryDirectory() as root:
            save_file(stored(model, outputs, lengths), f"{root}/batches.safetensors")
            export(hf, "--head", head)
            run(f"--head {head}, beside transformers", f"{root}/batches.safetensors")
finally:
    export(repository / "tests/data/golden/postln-gelu/hf")
session = ort.InferenceSession(example / "encoder/model.onnx", providers=["CPUExecutionProvider"])
tensors = {}
for index, (length, padded) in enumerate((n, p) for n in GOLDEN_LENGTHS for p in (False, True)):
    ids, mask = batch(length, GOLDEN_VOCABULARY, padded)
    (hidden,) = session.run(["last_hidden_state"], {"input_ids": ids, "attention_mask": mask})
    tensors |= {f"{index}.input_ids": ids, f"{index}.attention_mask": mask, f"{index}.last_hidden_state": hidden}
expected = example / "expected.safetensors"
kept = load_file(expected)
# Builds of ONNX Runtime differ in the last bits.
if kept.keys() != tensors.keys() or not all(np.allclose(kept[name], tensors[name], atol=1e-5) for name in kept):
    save_file(tensors, expected)
run("the golden encoder, beside ONNX Runtime")
sys.exit(failed)
