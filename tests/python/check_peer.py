"""Checks both ways between annotated-mpnet and this program, by annotated-mpnet's own converter.

usage: check_peer.py ANNOTATED_MPNET MPNET CONVERT_TO_HF GOLDEN
  ANNOTATED_MPNET       a checkout of annotated-mpnet (commit 01a9b09)
  MPNET, CONVERT_TO_HF  the binaries
  GOLDEN                tests/data/golden
needs: requirements.txt beside this file, and annotated-mpnet's own requirements

1. The checkpoint that its converter makes of a golden case's HuggingFace model is imported: the weights are
   the case's, bit for bit, and the exported model gives the case's logits (1e-4).
2. Its converter makes of our HuggingFace folder a checkpoint with the weights of ours, bit for bit.
Prints a line a check; exits 1 where one fails.
"""
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

annotated, mpnet, convert, golden = sys.argv[1:5]
golden = Path(golden)
sys.path.insert(0, annotated)
import numpy as np
import onnxruntime as ort
import torch
from cli_tools.convert_hf_model_to_mpnet import convert_hf_model_to_mpnet
from golden_tokenizer import golden_tokenizer
from safetensors.numpy import load_file

failed = False


def check(what, passed):
    global failed
    failed |= not passed
    print(f"{'ok  ' if passed else 'FAIL'} {what}", flush=True)


def run(*command):
    subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)


def same(found, expected):
    return found.dtype == expected.dtype and found.tobytes() == expected.tobytes()


for name in ("postln-gelu", "postln-padded"):
    case = golden / name
    model = json.loads((case / "case.json").read_text())["model"]
    weights = load_file(case / "weights.safetensors")
    with tempfile.TemporaryDirectory() as root:
        root = Path(root)
        for file in ("config.json", "model.safetensors"):
            (root / "theirs").mkdir(exist_ok=True)
            shutil.copyfile(case / "hf" / file, root / "theirs" / file)
        golden_tokenizer(model).save_pretrained(root / "theirs")
        convert_hf_model_to_mpnet(root / "theirs", root / "theirs.pt")
        run(mpnet, "import", root / "theirs.pt", "--tokenizer", root / "theirs", "--output", root / "run")
        imported = load_file(next((root / "run").glob("checkpoint-*")) / "model.safetensors")
        equal = [n for n in weights if n in imported and same(imported[n], weights[n])]
        check(f"{name}: {len(equal)} of {len(weights)} imported tensors equal", len(equal) == len(weights) == len(imported))

        run(mpnet, "export", root / "theirs.pt", "--head", "mlm", "--output", root / "onnx")
        expected = load_file(case / "hf_expected.safetensors")
        session = ort.InferenceSession(root / "onnx/model.onnx", providers=["CPUExecutionProvider"])
        logits = session.run(["logits"], {n: expected[n] for n in ("input_ids", "attention_mask")})[0]
        real = expected["attention_mask"].astype(bool)
        apart = np.abs(logits - expected["logits"])[real].max() / max(1, np.abs(expected["logits"][real]).max())
        check(f"{name}: logits {logits.shape} apart by {apart:.2g} (at most 0.0001)", bool(apart <= 1e-4))

        run(convert, "--mpnet-checkpoint-path", root / "run", "--hf-model-folder-path", root / "ours")
        convert_hf_model_to_mpnet(root / "ours", root / "back.pt")
        states = torch.load(root / "back.pt", weights_only=True)["model_states"]
        tied = {"lm_head.weight": "sentence_encoder.embed_tokens.weight"}
        equal = [n for n, tensor in states.items() if same(tensor.numpy(), weights[tied.get(n, n)])]
        complete = len(equal) == len(states) and set(weights) <= set(states)
        check(f"{name}: {len(equal)} of {len(states)} tensors of its reverse converter equal", complete)
sys.exit(failed)
