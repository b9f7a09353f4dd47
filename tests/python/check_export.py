"""Checks that other programs load what `mpnet export` writes, and compute what transformers computes.

usage: check_export.py MPNET HF_FOLDER [--quick]
  MPNET      the binary
  HF_FOLDER  a HuggingFace model with its tokenizer (of convert-to-hf, say), of 512 positions
needs: requirements.txt beside this file; sentence-transformers and optimum-onnx for the last checks

1. onnx.checker with full shape inference passes, fp32, fp16, int8, with external data, opsets 17 to 23.
2. onnxruntime agrees with transformers to 1e-4 over lengths 1 to 512 (every 37th with --quick), padded
   and unpadded, all three heads; fp16 and int8 to the tolerances printed.
3. Optimum's ORTModels and sentence-transformers' onnx backend load the folders and agree as well.
Prints a line a check; exits 1 where one fails.
"""
import subprocess
import sys
import tempfile
import warnings

import numpy as np
import onnx
import onnxruntime as ort
import torch
from reference import batch, reference
from transformers import AutoModelForMaskedLM, AutoTokenizer

mpnet, hf = sys.argv[1:3]
quick = "--quick" in sys.argv
failed = False
TEXTS = ["the quick brown fox", "in the beginning was the word, and it was long", "yes"]


def check(what, passed):
    global failed
    failed |= not passed
    print(f"{'ok  ' if passed else 'FAIL'} {what}", flush=True)


def export(root, name, *options):
    folder = f"{root}/{name}"
    subprocess.run([mpnet, "export", hf, "--output", folder, *options], check=True, stdout=subprocess.DEVNULL)
    return folder


def session(folder):
    return ort.InferenceSession(f"{folder}/model.onnx", providers=["CPUExecutionProvider"])


def difference(ours, theirs):
    return float(np.abs(ours - theirs).max() / max(1.0, np.abs(theirs).max()))


with tempfile.TemporaryDirectory() as root:
    model = AutoModelForMaskedLM.from_pretrained(hf, dtype=torch.float32).eval()
    vocab = model.config.vocab_size
    longest = model.config.max_position_embeddings - 2
    folders = {
        "none": export(root, "none", "--head", "none"),
        "mlm": export(root, "mlm", "--head", "mlm"),
        "sentence": export(root, "sentence", "--head", "sentence"),
        "external": export(root, "external", "--head", "none", "--external-data"),
        "fp16": export(root, "fp16", "--head", "sentence", "--dtype", "fp16"),
        "int8": export(root, "int8", "--head", "sentence", "--int8"),
        "normalized": export(root, "normalized", "--head", "sentence", "--normalize"),
    } | {f"opset {n}": export(root, f"opset{n}", "--head", "sentence", "--opset", str(n)) for n in range(18, 24)}
    for name, folder in folders.items():
        try:
            onnx.checker.check_model(f"{folder}/model.onnx", full_check=True)
            check(f"onnx.checker, full: {name}", True)
        except Exception as error:
            check(f"onnx.checker, full: {name}: {error}", False)

    tolerances = {"fp16": 1e-2, "int8": 5e-2}
    lengths = range(1, longest + 1, 37 if quick else 1)
    every = {name: lengths for name in ("none", "sentence")} | {"mlm": [n for n in lengths if n % 7 == 1]}
    for name, folder in folders.items():
        running = session(folder)
        worst, runs = {}, 0
        for length in every.get(name, [1, 17, longest]):
            for padded in (False, True):
                ids, mask = batch(length, vocab, padded)
                expected = reference(model, ids, mask)
                unit = np.linalg.norm(expected["sentence_embedding"], axis=-1, keepdims=True)
                if name == "normalized":
                    expected["sentence_embedding"] /= unit
                outputs = [o.name for o in running.get_outputs()]
                found = running.run(outputs, {"input_ids": ids, "attention_mask": mask})
                runs += 1
                real = mask.astype(bool)
                for output, ours in zip(outputs, found):
                    theirs = expected[output]
                    if output != "sentence_embedding":
                        ours, theirs = ours[real], theirs[real]
                    worst[output] = max(worst.get(output, 0.0), difference(ours, theirs))
        limit = tolerances.get(name, 1e-4)
        said = ", ".join(f"{output} {value:.2g}" for output, value in worst.items())
        check(f"onnxruntime, {name}: {runs} batches, {said} (at most {limit})", max(worst.values()) <= limit)

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
            found = kind.from_pretrained(folders[name])(**tokens)[output].numpy()
            value = difference(found[real], expected[output][real])
            check(f"{kind.__name__}: {output} {value:.2g}", value <= 1e-4)
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        print(f"skip sentence-transformers: {error}")
    else:
        for name in ("sentence", "normalized"):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                found = SentenceTransformer(folders[name], backend="onnx").encode(TEXTS)
            told = [str(w.message) for w in caught if "weights" in str(w.message)]
            theirs = expected["sentence_embedding"]
            if name == "normalized":
                theirs = theirs / np.linalg.norm(theirs, axis=-1, keepdims=True)
            value = difference(found, theirs)
            check(f"SentenceTransformer, onnx, {name}: {value:.2g}, warnings {told}", value <= 1e-4 and not told)
sys.exit(failed)
