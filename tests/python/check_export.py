"""Checks that other programs load what `mpnet export` writes, and compute what transformers computes.

usage: check_export.py MPNET HF_FOLDER [--every N]
  MPNET      the binary
  HF_FOLDER  a HuggingFace model with its tokenizer (of convert-to-hf, say), of 512 positions
needs: requirements.txt beside this file; for the last checks optimum-onnx (0.1.0 takes transformers 4.57 and,
       of datasets, at most 4.4)

1. onnx.checker with full shape inference passes: three heads in fp32, fp16 and int8, each in opsets 17 and 20.
2. onnxruntime agrees with transformers to 1e-4 over lengths 1 to 512, or each Nth and the last, padded
   and unpadded, all three heads; fp16 and int8 to the tolerances printed.
3. Optimum's ORTModels and sentence-transformers' onnx backend load the folders and agree as well.
Prints a line a check; exits 1 where one fails.
"""
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime as ort
import torch
from reference import HEADS, batch, reference
from transformers import AutoModelForMaskedLM, AutoTokenizer
from warned import warned

mpnet, hf = sys.argv[1:3]
every = int(sys.argv[4]) if sys.argv[3:4] == ["--every"] else 1
failed = False
OPSETS = (17, 20)
TOLERANCES = {"fp16": 1e-2, "int8": 5e-2}
TEXTS = ["the quick brown fox", "in the beginning was the word, and it was long", "yes"]


def check(what, passed):
    global failed
    failed |= not passed
    print(f"{'ok  ' if passed else 'FAIL'} {what}", flush=True)


def export(root, name, *options):
    folder = f"{root}/{name}"
    subprocess.run([mpnet, "export", hf, "--output", folder, *options], check=True, stdout=subprocess.DEVNULL)
    return folder


def invalid(folder):
    """What onnx.checker finds wrong: nothing or one error."""
    try:
        onnx.checker.check_model(f"{folder}/model.onnx", full_check=True)
        return []
    except Exception as error:
        return [str(error)]


def difference(ours, theirs):
    """The largest, relative to the largest value where that is above 1; infinite where one is no number."""
    apart = np.abs(ours - theirs).max() / max(1.0, np.abs(theirs).max())
    return float(np.nan_to_num(apart, nan=np.inf))


def compare(names, lengths):
    """Runs exports in ONNX Runtime on batches of these lengths and checks them against transformers."""
    sessions = {n: ort.InferenceSession(f"{folders[n]}/model.onnx", providers=["CPUExecutionProvider"]) for n in names}
    worst = {name: {} for name in names}
    for length in lengths:
        for padded in (False, True):
            ids, mask = batch(length, vocab, padded)
            expected = reference(model, ids, mask)
            real = mask.astype(bool)
            for name, running in sessions.items():
                outputs = [o.name for o in running.get_outputs()]
                found = running.run(outputs, {"input_ids": ids, "attention_mask": mask})
                for output, ours in zip(outputs, found):
                    theirs = expected[output]
                    if output != "sentence_embedding":
                        ours, theirs = ours[real], theirs[real]
                    elif name == "normalized":
                        theirs = theirs / np.linalg.norm(theirs, axis=-1, keepdims=True)
                    worst[name][output] = max(worst[name].get(output, 0.0), difference(ours, theirs))
    for name, differences in worst.items():
        limit = TOLERANCES.get(name, 1e-4)
        said = ", ".join(f"{output} {value:.2g}" for output, value in differences.items())
        passed = all(value <= limit for value in differences.values())
        check(f"onnxruntime, {name}: {2 * len(lengths)} batches, {said} (at most {limit})", passed)


with tempfile.TemporaryDirectory() as root:
    model = AutoModelForMaskedLM.from_pretrained(hf, dtype=torch.float32).eval()
    vocab = model.config.vocab_size
    longest = model.config.max_position_embeddings - 2
    for head in HEADS:
        for kind in ([], ["--dtype", "fp16"], ["--int8"]):
            failing = []
            for opset in OPSETS:
                with tempfile.TemporaryDirectory(dir=root) as folder:
                    export(folder, "", "--head", head, "--opset", str(opset), *kind)
                    failing += [f"{opset}: {error}" for error in invalid(folder)]
            what = " ".join(["--head", head, *kind])
            check(f"onnx.checker, full, {what}, opsets {OPSETS} {failing or ''}", not failing)
    sentence = ("--head", "sentence")
    folders = {
        "none": export(root, "none", "--head", "none"),
        "mlm": export(root, "mlm", "--head", "mlm"),
        "sentence": export(root, "sentence", *sentence),
        "external": export(root, "external", "--head", "none", "--external-data"),
        "normalized": export(root, "normalized", *sentence, "--normalize"),
        "fp16": export(root, "fp16", *sentence, "--dtype", "fp16"),
        "int8": export(root, "int8", *sentence, "--int8"),
    } | {f"opset {n}": export(root, f"opset{n}", *sentence, "--opset", str(n)) for n in OPSETS[1:]}
    for name in ("external", "normalized"):
        errors = invalid(folders[name])
        check(f"onnx.checker, full, {name} {errors or ''}", not errors)

    compare(HEADS, sorted({*range(1, longest + 1, every), longest}))
    for name in folders:
        if name not in HEADS:
            compare([name], [1, 17, longest])

    tokenizer = AutoTokenizer.from_pretrained(hf)
    tokens = tokenizer(TEXTS, padding=True, return_tensors="pt", return_token_type_ids=False)
    ids, mask = tokens["input_ids"].numpy(), tokens["attention_mask"].numpy()
    expected = reference(model, ids, mask)
    real = mask.astype(bool)
    try:
        from optimum.onnxruntime import ORTModelForFeatureExtraction, ORTModelForMaskedLM
    except ImportError as error:
        print(f"skip Optimum: {error}")
    else:
        for kind, name, output in (
            (ORTModelForFeatureExtraction, "none", "last_hidden_state"),
            (ORTModelForMaskedLM, "mlm", "logits"),
        ):
            loaded, told = warned(kind.from_pretrained, folders[name])
            found = loaded(**tokens)[output].numpy()
            value = difference(found[real], expected[output][real])
            check(f"{kind.__name__}: {output} {value:.2g}, warnings {told}", value <= 1e-4 and not told)
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        print(f"skip sentence-transformers: {error}")
    else:
        for name in ("sentence", "normalized"):
            loaded, told = warned(SentenceTransformer, folders[name], backend="onnx")
            found = loaded.encode(TEXTS)
            theirs = expected["sentence_embedding"]
            if name == "normalized":
                theirs = theirs / np.linalg.norm(theirs, axis=-1, keepdims=True)
            value = difference(found, theirs)
            check(f"SentenceTransformer, onnx, {name}: {value:.2g}, warnings {told}", value <= 1e-4 and not told)
sys.exit(failed)
