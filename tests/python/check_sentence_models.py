"""Makes sentence-transformers models of every pooling, takes them through this program, and compares embeddings.

usage: check_sentence_models.py BIN TOKENIZER
  BIN        folder of the binaries, convert-to-hf and mpnet
  TOKENIZER  a folder with tokenizer.json (examples/tokenizer, say)
needs: torch, sentence-transformers (6.2 was tried), onnxruntime

1. For each way of pooling, for joined ones, and for Dense and Normalize behind them: sentence-transformers makes
   the same embeddings of what `convert-to-hf --head sentence` writes of the model, and so does ONNX Runtime of
   what `mpnet export --head sentence` writes, to 1e-5.
2. A folder with tokenizer.json alone, in several kinds, becomes one in which AutoTokenizer makes the tokens that
   the tokenizers library makes of the definition.
Prints a line a check; exits 1 where one fails.
"""
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from sentence_transformers import SentenceTransformer, models
from tokenizers import Tokenizer
from transformers import AutoTokenizer, MPNetConfig, MPNetModel

LIMIT = 1e-5
TEXTS = ["in the beginning", "and the earth was without form, and void; and darkness", "yes", "Ärger UND Straße " * 30]
POOLINGS = ["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken", ("mean", "max"), ("mean", "cls")]
binaries, source = sys.argv[1:3]
failed = False


def check(what, passed):
    global failed
    failed |= not passed
    print(f"{'ok  ' if passed else 'FAIL'} {what}", flush=True)


def through(root, folder, name, head="sentence"):
    hf, onnx = f"{root}/{name}-hf", f"{root}/{name}-onnx"
    quiet = {"check": True, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    paths = ("--mpnet-checkpoint-path", folder, "--hf-model-folder-path", hf)
    subprocess.run([f"{binaries}/convert-to-hf", *paths, "--head", head], **quiet)
    subprocess.run([f"{binaries}/mpnet", "export", folder, "--output", onnx, "--head", head], **quiet)
    return hf, onnx


def by_onnx(folder, length):
    tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
    tokenizer.enable_truncation(length)
    tokenizer.enable_padding(pad_id=1, pad_token="<pad>")
    rows = tokenizer.encode_batch(TEXTS)
    feeds = {
        "input_ids": np.array([row.ids for row in rows], np.int64),
        "attention_mask": np.array([row.attention_mask for row in rows], np.int64),
    }
    session = ort.InferenceSession(f"{folder}/model.onnx", providers=["CPUExecutionProvider"])
    return session.run(["sentence_embedding"], feeds)[0]


def encoder(folder):
    """A small encoder at random with the tokenizer."""
    torch.manual_seed(1)
    vocabulary = Tokenizer.from_file(f"{source}/tokenizer.json").get_vocab_size()
    config = MPNetConfig(
        vocab_size=vocabulary, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=50, layer_norm_eps=1e-5,
    )  # fmt: skip
    MPNetModel(config).eval().save_pretrained(folder)
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    return str(folder)


with tempfile.TemporaryDirectory() as root:
    plain = encoder(Path(root) / "plain")
    for number, pooling in enumerate(POOLINGS):
        for further in (False, True):
            transformer = models.Transformer(plain, max_seq_length=40)
            modules = [transformer, models.Pooling(32, pooling_mode=pooling)]
            if further:
                width = modules[1].pooling_output_dimension
                modules += [models.Dense(width, 8, activation_function=torch.nn.ReLU()), models.Normalize()]
            model = SentenceTransformer(modules=modules, device="cpu")
            folder = f"{root}/{number}{further}"
            model.save(folder)
            expected = model.encode(TEXTS)
            hf, onnx = through(root, folder, f"{number}{further}")
            for what, found in (
                ("sentence-transformers", SentenceTransformer(hf, device="cpu").encode(TEXTS)),
                ("ONNX Runtime", by_onnx(onnx, 40)),
            ):
                apart = float(np.abs(found - expected).max())
                check(f"{pooling}{', Dense, Normalize' * further}: {what} {apart:.2g}", apart <= LIMIT)

    definition = json.loads(Path(f"{source}/tokenizer.json").read_text())
    kinds = {
        "as it is": {},
        "cased": {"normalizer": {**definition["normalizer"], "lowercase": False}},
        "accents kept": {"normalizer": {**definition["normalizer"], "strip_accents": False}},
        "NFKC": {"normalizer": {"type": "NFKC"}},
        "cut at 8": {
            "truncation": {"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0},
            "padding": {"strategy": {"Fixed": 128}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 1,
                        "pad_type_id": 0, "pad_token": "<pad>"},
        },
    }  # fmt: skip
    for kind, change in kinds.items():
        folder = Path(plain)
        (folder / "tokenizer.json").write_text(json.dumps(definition | change))
        (folder / "tokenizer_config.json").unlink(missing_ok=True)
        hf, _ = through(root, plain, kind.replace(" ", "-"), "none")
        theirs = Tokenizer.from_file(str(folder / "tokenizer.json"))
        theirs.no_truncation()
        theirs.no_padding()
        ours = AutoTokenizer.from_pretrained(hf)
        same = all(ours(text)["input_ids"] == theirs.encode(text).ids for text in TEXTS)
        inputs = sorted(ours(TEXTS[0]))
        fits = ours.model_max_length == 48 and inputs == ["attention_mask", "input_ids"]
        check(f"{kind}: {type(ours).__name__}, {ours.model_max_length} tokens, {inputs}", same and fits)
sys.exit(failed)
