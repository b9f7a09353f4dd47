"""Has annotated-mpnet load what `mpnet export --format annotated-mpnet` writes.

usage: check_annotated_export.py BIN MODEL ANNOTATED_MPNET
  BIN              folder of the binaries, convert-to-hf and mpnet
  MODEL            a run or another model with a tokenizer, post-LN
  ANNOTATED_MPNET  a checkout of annotated-mpnet (commit 01a9b09)
needs: requirements.txt beside this file, and annotated-mpnet's own requirements

1. torch.load takes the file with weights_only, in memory and mapped.
2. annotated-mpnet's model of its args loads its parameters strictly; its logits of a sentence are those of transformers'
   model of `convert-to-hf`, to 1e-5.
Prints a line a check; exits 1 where one fails.
"""
import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

binaries, source, annotated = sys.argv[1:4]
sys.path.insert(0, annotated)
import torch
from annotated_mpnet.modeling import MPNetForPretraining
from transformers import AutoModelForMaskedLM, AutoTokenizer

failed = False


def check(what, passed):
    global failed
    failed |= not passed
    print(f"{'ok  ' if passed else 'FAIL'} {what}", flush=True)


with tempfile.TemporaryDirectory() as folder:
    theirs, hf = Path(folder) / "theirs", Path(folder) / "hf"
    subprocess.run([f"{binaries}/mpnet", "export", source, "--format", "annotated-mpnet", "--output", theirs], check=True)
    subprocess.run([f"{binaries}/convert-to-hf", "--mpnet-checkpoint-path", source, "--hf-model-folder-path", hf], check=True)
    file = theirs / "best_checkpoint.pt"
    saved = torch.load(file, weights_only=True)
    mapped = torch.load(file, weights_only=True, mmap=True)["model_states"]
    check("mapped as read", all(torch.equal(value, mapped[name]) for name, value in saved["model_states"].items()))
    tokenizer = AutoTokenizer.from_pretrained(theirs / "tokenizer")
    model = MPNetForPretraining(argparse.Namespace(**saved["args"]), tokenizer).eval()
    model.load_state_dict(saved["model_states"], strict=True)
    check(f"{len(saved['model_states'])} tensors, loaded strictly", True)

    ids = tokenizer("the word of the lord came unto me", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        expected = AutoModelForMaskedLM.from_pretrained(hf).eval()(ids).logits
        states, _ = model.sentence_encoder(ids, last_state_only=True)
        found = model.output_layer(states[-1])  # [1, L, V]
    worst = (found - expected).abs().max().item()
    check(f"logits differ from transformers' by {worst:.1e}", worst < 1e-5)
sys.exit(failed)
