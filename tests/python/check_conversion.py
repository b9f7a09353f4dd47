"""Checks that `transformers` and `sentence-transformers` load what `convert-to-hf` writes, without a warning, and
compute what our own graphs compute.

usage: check_conversion.py MPNET CONVERT_TO_HF CHECKPOINT
  MPNET, CONVERT_TO_HF  the binaries
  CHECKPOINT            a native checkpoint, or the folder of a run
needs: requirements.txt beside this file; sentence-transformers

1. AutoModelForMaskedLM, the fill-mask pipeline (--head mlm), AutoModel (--head none) and SentenceTransformer
   (--head sentence) find every weight and no other, and log no warning; AutoTokenizer loads.
2. Logits, the pipeline's scores, hidden states and embeddings agree with those of our own graphs to 1e-4 of the
   largest.
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
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer, pipeline
from warned import warned

mpnet, convert, checkpoint = sys.argv[1:4]
checkpoint = Path(checkpoint)
if (checkpoint / "best").exists():
    checkpoint = checkpoint / (checkpoint / "best").read_text().strip()
TEXTS = ["in the beginning <mask> created the heaven and the earth", "and <mask> said"]
FIELDS = ("input_ids", "attention_mask")
failed = False


def check(what, passed):
    global failed
    failed |= not passed
    print(f"{'ok  ' if passed else 'FAIL'} {what}", flush=True)


def load(what, function, *arguments, **options):
    """The loaded object; checks that nothing was warned of."""
    loaded, told = warned(function, *arguments, **options)
    check(f"{what} loads, warnings {told}", not told)
    return loaded


def complete(what, info):
    """Whether no weight was missing, left over or of another shape."""
    strange = {k: sorted(info[k]) for k in ("missing_keys", "unexpected_keys", "mismatched_keys") if info[k]}
    check(f"{what}: every weight and no other {strange or ''}", not strange)


def agrees(what, ours, theirs):
    apart = np.abs(ours - theirs).max() / max(1, np.abs(theirs).max())
    check(f"{what} {theirs.shape}: {apart:.3g} (at most 0.0001)", bool(apart <= 1e-4))


def run(*command):
    subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)


with tempfile.TemporaryDirectory() as root:
    for head in ("mlm", "none", "sentence"):
        target = ("--hf-model-folder-path", f"{root}/{head}")
        run(convert, "--mpnet-checkpoint-path", checkpoint, "--head", head, *target)
        run(mpnet, "export", checkpoint, "--head", head, "--output", f"{root}/onnx-{head}")

    def ours(head, batch):
        session = ort.InferenceSession(f"{root}/onnx-{head}/model.onnx", providers=["CPUExecutionProvider"])
        outputs = [o.name for o in session.get_outputs()]
        return dict(zip(outputs, session.run(outputs, {f: batch[f].numpy() for f in FIELDS})))

    tokenizer = load("AutoTokenizer", AutoTokenizer.from_pretrained, f"{root}/mlm")
    check(f"{type(tokenizer).__name__}: {tokenizer.mask_token}", tokenizer.mask_token == "<mask>")
    batch = tokenizer(TEXTS, padding=True, return_tensors="pt")
    inputs = {f: batch[f] for f in FIELDS}
    real = batch["attention_mask"].numpy().astype(bool)

    model, info = load("AutoModelForMaskedLM", AutoModelForMaskedLM.from_pretrained, f"{root}/mlm", output_loading_info=True)
    complete("AutoModelForMaskedLM", info)
    with torch.no_grad():
        logits = model.eval()(**inputs).logits.numpy()
    agrees("logits", ours("mlm", batch)["logits"][real], logits[real])
    # The graph that training evaluates with, by the checkpoint's own weights.
    run(mpnet, "compile", "--checkpoint", checkpoint, "--target", "encoder", "--output", f"{root}/graph")
    session = ort.InferenceSession(f"{root}/graph/encoder.onnx", providers=["CPUExecutionProvider"])
    feeds = {f: batch[f].numpy() for f in FIELDS} | load_file(checkpoint / "model.safetensors")
    wanted = {i.name for i in session.get_inputs()}
    found = session.run(["logits"], {n: v for n, v in feeds.items() if n in wanted})[0]
    found = found.reshape(*logits.shape[:2], -1)[..., : logits.shape[-1]]
    agrees("logits of our evaluation", found[real], logits[real])

    fill = load("pipeline fill-mask", pipeline, "fill-mask", model=f"{root}/mlm")
    place = batch["input_ids"][0].tolist().index(tokenizer.mask_token_id)
    scores = ours("mlm", batch)["logits"][0, place]
    scores = np.exp(scores - scores.max())
    scores /= scores.sum()
    said = fill(TEXTS[0], top_k=5)
    agrees("scores of the pipeline", np.array([scores[s["token"]] for s in said]), np.array([s["score"] for s in said]))

    model, info = load("AutoModel", AutoModel.from_pretrained, f"{root}/none", output_loading_info=True)
    complete("AutoModel", info)
    with torch.no_grad():
        hidden = model.eval()(**inputs).last_hidden_state.numpy()
    agrees("hidden states", ours("none", batch)["last_hidden_state"][real], hidden[real])

    sentences = load("SentenceTransformer", SentenceTransformer, f"{root}/sentence", device="cpu")
    agrees("embeddings", ours("sentence", batch)["sentence_embedding"], sentences.encode(TEXTS))
sys.exit(failed)
