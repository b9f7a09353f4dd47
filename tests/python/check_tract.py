"""Checks that tract computes of what `mpnet export` writes what transformers computes.

usage: check_tract.py MPNET HF_FOLDER [--every N]
  MPNET      the binary
  HF_FOLDER  a HuggingFace model (of convert-to-hf, say), of 512 positions and a vocabulary of some hundreds:
             every logit is stored
needs: requirements.txt beside this file; cargo

Exports the model, head by head, and has tests/tract compare tract with transformers over lengths 1 to 512, or
each Nth and the last, padded and unpadded, to 1e-4. Prints a line a check; exits 1 where one fails.
"""
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from reference import HEADS, stored
from safetensors.numpy import save_file
from transformers import AutoModelForMaskedLM

mpnet, hf = sys.argv[1:3]
every = int(sys.argv[4]) if sys.argv[3:4] == ["--every"] else 1
repository = Path(__file__).resolve().parents[2]
failed = False

model = AutoModelForMaskedLM.from_pretrained(hf, dtype=torch.float32).eval()
longest = model.config.max_position_embeddings - 2
lengths = sorted({*range(1, longest + 1, every), longest})
for head, outputs in HEADS.items():
    with tempfile.TemporaryDirectory() as root:
        save_file(stored(model, outputs, lengths), f"{root}/batches.safetensors")
        command = [mpnet, "export", hf, "--head", head, "--output", f"{root}/onnx"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        command = ["cargo", "run", "--quiet", "--", f"{root}/onnx/model.onnx", f"{root}/batches.safetensors"]
        done = subprocess.run(command, cwd=repository / "tests/tract", text=True, stdout=subprocess.PIPE)
    failed |= done.returncode != 0
    said = [line for line in done.stdout.splitlines() if "tract: " in line]
    print(f"{'FAIL' if done.returncode or not said else 'ok  '} --head {head}: {''.join(said) or done.stdout}", flush=True)
sys.exit(failed)
