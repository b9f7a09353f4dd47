"""Compares what a finetuned folder gives in sentence-transformers, or transformers, with what this program computes.

usage: check_finetuned.py reference BIN FOLDER TEXTS.txt OUT.npz     embeddings by `mpnet export` and ONNX Runtime
       check_finetuned.py compare FOLDER TEXTS.txt OUT.npz           the same by the sentence-transformers at hand
       check_finetuned.py classes FOLDER ROWS.jsonl LOSS ACCURACY    a classifier by the transformers at hand
  BIN       the program mpnet
  FOLDER    what `mpnet finetune` wrote
  TEXTS     a text a line
  ROWS      the rows of --valid-pairs, of the columns text and label, or sentence1, sentence2 and label
  LOSS      and ACCURACY as `mpnet finetune` printed them after the last update of rows that long
needs: reference: numpy, onnxruntime, tokenizers; compare: torch, sentence-transformers (3.0.1, 5.1.2 and 6.2.0 were
tried); classes: torch, transformers

Prints the largest difference; exits 1 where embeddings differ by more than 1e-5, or loss and accuracy by more than 1e-4.
"""
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

LIMIT, OF_FIGURES, AT_ONCE = 1e-5, 1e-4, 32


def texts_of(path):
    return [line for line in Path(path).read_text().splitlines() if line.strip()]


def reference(binary, folder, texts, out):
    import onnxruntime
    from tokenizers import Tokenizer

    with tempfile.TemporaryDirectory() as place:
        onnx = f"{place}/onnx"
        subprocess.run([binary, "export", folder, "--head", "sentence", "--output", onnx], check=True)
        session = onnxruntime.InferenceSession(f"{onnx}/model.onnx", providers=["CPUExecutionProvider"])
    tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
    length = json.loads(Path(folder, "sentence_bert_config.json").read_text())["max_seq_length"]
    tokenizer.enable_truncation(length)
    tokenizer.enable_padding(pad_id=1, pad_token="<pad>")
    texts, found = texts_of(texts), []
    for start in range(0, len(texts), AT_ONCE):
        rows = tokenizer.encode_batch(texts[start : start + AT_ONCE])
        ids, mask = ([getattr(row, name) for row in rows] for name in ("ids", "attention_mask"))
        feeds = {"input_ids": np.array(ids, np.int64), "attention_mask": np.array(mask, np.int64)}
        found.append(session.run(["sentence_embedding"], feeds)[0])
    np.savez(out, embeddings=np.concatenate(found))


def compare(folder, texts, expected):
    import sentence_transformers

    model = sentence_transformers.SentenceTransformer(folder, device="cpu")
    found = model.encode(texts_of(texts), batch_size=AT_ONCE, show_progress_bar=False)
    difference = np.abs(found - np.load(expected)["embeddings"]).max()
    print(f"sentence-transformers {sentence_transformers.__version__}: {len(found)} texts differ by {difference:.1e}")
    return difference <= LIMIT


def classes(folder, rows, loss, accuracy):
    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model, report = transformers.AutoModelForSequenceClassification.from_pretrained(folder, output_loading_info=True)
    if any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")):
        print(report)
        return False
    rows = [json.loads(line) for line in Path(rows).read_text().splitlines()]
    sums = np.zeros(2)
    for row in rows:
        texts = [row[name] for name in ("text", "sentence1", "sentence2") if name in row]
        inputs = tokenizer(*texts, truncation=True, return_tensors="pt")
        label = model.config.label2id[str(row["label"])]
        with torch.no_grad():
            logits = model.eval()(**inputs).logits[0].double()
        sums += [-torch.log_softmax(logits, -1)[label].item(), logits.argmax().item() == label]
    found = sums / len(rows)
    print(f"transformers {transformers.__version__}: {type(model).__name__}, loss {found[0]:.4f}, accuracy {found[1]:.4f}")
    return np.abs(found - [float(loss), float(accuracy)]).max() <= OF_FIGURES


mode, arguments = sys.argv[1], sys.argv[2:]
passed = {"reference": reference, "compare": compare, "classes": classes}[mode](*arguments)
sys.exit(passed is False or (passed is not None and not passed))
