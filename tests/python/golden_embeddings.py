"""Makes the golden cases of finetuning in tests/data/embeddings with sentence-transformers' own losses, and transformers'
classifier.

usage: golden_embeddings.py FOLDER
needs: torch 2.11, sentence-transformers 6.2, transformers 5.24, safetensors

A tiny MPNet without dropout, as transformers computes it, in float64. Each case is ten updates on ten batches of random
ids by a loss of sentence-transformers, or of transformers' MPNetForSequenceClassification, torch's AdamW and clipping to a norm of 1. Written are
  cases.json          the model's sizes, the optimizer, and what each case asks for
  model.safetensors   the parameters to start from, under the names of this project, float32
  CASE.safetensors    {update}.input_ids and .attention_mask, texts column by column, and .labels of scored pairs and
                      classes; start.NAME, parameters of the case's own; losses, of the ten updates; and
                      grad.NAME, the first update's gradients before clipping
"""
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file
from sentence_transformers import SentenceTransformer, models
from sentence_transformers.sentence_transformer import losses
from transformers import BertTokenizerFast, MPNetConfig, MPNetForSequenceClassification, MPNetModel

UPDATES, ROWS, LENGTH, RATE = 10, 4, 7, 1e-3
ADAMW = {"beta1": 0.9, "beta2": 0.98, "epsilon": 1e-6, "weight_decay": 0.01, "clip_grad_norm": 1.0}
SIZES = {"layers": 2, "width": 16, "ffn": 24, "heads": 2, "positions": 12, "vocabulary": 40}
FORWARD, BOTH = ("query_to_doc",), ("query_to_doc", "doc_to_query")
CASES = {
    "pairs": {"loss": "ranking", "columns": 2, "scale": 20.0, "symmetric": False, "pooling": "mean"},
    "symmetric": {"loss": "ranking", "columns": 2, "scale": 20.0, "symmetric": True, "pooling": "mean"},
    "negatives": {"loss": "ranking", "columns": 4, "scale": 50.0, "symmetric": False, "pooling": "cls"},
    "matryoshka": {"loss": "ranking", "columns": 2, "scale": 20.0, "symmetric": False, "pooling": "mean", "matryoshka": [16, 8, 4]},
    "cosent": {"loss": "cosent", "columns": 2, "scale": 20.0, "pooling": "mean"},
    "cosine": {"loss": "cosine", "columns": 2, "pooling": "cls"},
    "triplet": {"loss": "triplet", "columns": 3, "margin": 5.0, "pooling": "mean"},
    "triplet-matryoshka": {"loss": "triplet", "columns": 3, "margin": 0.5, "pooling": "mean", "matryoshka": [16, 8]},
    "classes": {"loss": "classes", "columns": 1, "classes": 3},
}


def native(name, parameters):
    """This project's name of a parameter of transformers, and its value: queries, keys and values are one."""
    name = name.removeprefix("encoder.").removeprefix("embeddings.")
    top = {
        "word_embeddings.weight": "embed_tokens.weight",
        "position_embeddings.weight": "embed_positions.weight",
        "LayerNorm.weight": "emb_layer_norm.weight",
        "LayerNorm.bias": "emb_layer_norm.bias",
        "relative_attention_bias.weight": "relative_attention_bias.weight",
    }
    if name in top:
        return f"sentence_encoder.{top[name]}"
    _, layer, rest = name.split(".", 2)
    inner = rest.replace("attention.attn.o.", "self_attn.out_proj.").replace("attention.LayerNorm.", "self_attn_layer_norm.")
    inner = inner.replace("intermediate.dense.", "fc1.").replace("output.dense.", "fc2.").replace("output.LayerNorm.", "final_layer_norm.")
    return f"sentence_encoder.layers.{layer}.{inner}"


def named(values):
    """`values` by transformers' names, under this project's."""
    found, packed = {}, {}
    for name, value in values.items():
        if name.startswith("pooler."):
            continue
        if name.startswith("classifier."):
            found[name] = value
            continue
        parts = name.split(".")
        if "attn" in parts and parts[-2] in "qkv":
            layer, kind = parts[2], parts[-1]
            packed.setdefault((layer, kind), {})[parts[-2]] = value
        else:
            found[native(name, values)] = value
    for (layer, kind), thirds in packed.items():
        found[f"sentence_encoder.layers.{layer}.self_attn.in_proj_{kind}"] = np.concatenate([thirds[k] for k in "qkv"])
    return {name: np.ascontiguousarray(value, np.float32) for name, value in found.items()}


def tiny(folder):
    torch.manual_seed(1)
    config = MPNetConfig(
        vocab_size=SIZES["vocabulary"], hidden_size=SIZES["width"], num_hidden_layers=SIZES["layers"],
        num_attention_heads=SIZES["heads"], intermediate_size=SIZES["ffn"], max_position_embeddings=SIZES["positions"] + 2,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, layer_norm_eps=1e-5, initializer_range=0.2,
    )
    model = MPNetModel(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0, 0.1)
    model.save_pretrained(folder)
    # No text is tokenized, but a folder has a tokenizer.
    words = ["<s>", "<pad>", "</s>", "[UNK]", *(f"w{i}" for i in range(SIZES["vocabulary"] - 5)), "<mask>"]
    Path(folder, "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(
        vocab=str(Path(folder, "vocab.txt")), cls_token="<s>", pad_token="<pad>", sep_token="</s>", mask_token="<mask>"
    ).save_pretrained(folder)
    return {name: p.detach().numpy() for name, p in model.named_parameters()}


def batch(rng, columns):
    """Ids and masks of each column, padded to the longest text of all."""
    ids = rng.integers(4, SIZES["vocabulary"] - 1, (columns * ROWS, LENGTH))
    lengths = rng.integers(3, LENGTH + 1, columns * ROWS)
    mask = (np.arange(LENGTH) < lengths[:, None]).astype(np.int64)
    ids[:, 0] = 0
    ids[np.arange(len(ids)), lengths - 1] = 2
    return np.where(mask == 1, ids, 1), mask


def loss_class(model, case):
    if case["loss"] == "cosent":
        return losses.CoSENTLoss(model, scale=case["scale"])
    if case["loss"] == "cosine":
        return losses.CosineSimilarityLoss(model)
    if case["loss"] == "triplet":
        return losses.TripletLoss(model, triplet_margin=case["margin"])
    mode = "per_direction" if case["symmetric"] else "joint"
    directions = BOTH if case["symmetric"] else FORWARD
    return losses.MultipleNegativesRankingLoss(model, scale=case["scale"], directions=directions, partition_mode=mode)


def classifier(folder, case):
    """transformers' model of `case`, its parameters by the names of an MPNetModel, and its loss of columns and labels."""
    torch.manual_seed(2)
    model = MPNetForSequenceClassification.from_pretrained(folder, num_labels=case["classes"]).double().eval()
    with torch.no_grad():
        for parameter in model.classifier.parameters():
            parameter.normal_(0, 0.2)
    parameters = {n.removeprefix("mpnet."): p for n, p in model.named_parameters()}
    return parameters, lambda columns, labels: model(**columns[0], labels=labels).loss


def embedder(folder, case):
    """The same of sentence-transformers."""
    transformer = models.Transformer(folder)
    pooling = models.Pooling(SIZES["width"], pooling_mode=case["pooling"])
    model = SentenceTransformer(modules=[transformer, pooling], device="cpu").double().eval()
    loss_of = loss_class(model, case)
    if "matryoshka" in case:
        loss_of = losses.MatryoshkaLoss(model, loss_of, case["matryoshka"])
    parameters = {n: p for n, p in transformer.auto_model.named_parameters() if not n.startswith("pooler.")}
    return parameters, loss_of


def labels_of(rng, case):
    """The labels of a batch's rows, for torch, where it has any."""
    if case["loss"] in ("cosent", "cosine"):
        # Of quarters, so that some are equal; the loss makes float32 of them.
        return torch.from_numpy(rng.integers(0, 5, ROWS) / 4)
    if case["loss"] == "classes":
        return torch.from_numpy(rng.integers(0, case["classes"], ROWS))
    return None


def run(folder, case, seed):
    parameters, loss_of = (classifier if case["loss"] == "classes" else embedder)(folder, case)
    own = {n: p.detach().numpy() for n, p in parameters.items() if n.startswith("classifier.")}
    decayed = [p for n, p in parameters.items() if p.dim() >= 2 and not n.endswith(".bias")]
    others = [p for n, p in parameters.items() if p.dim() < 2 or n.endswith(".bias")]
    groups = [{"params": decayed}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(
        groups, lr=RATE, betas=(ADAMW["beta1"], ADAMW["beta2"]), eps=ADAMW["epsilon"], weight_decay=ADAMW["weight_decay"]
    )
    rng, found = np.random.default_rng(seed), []
    tensors = {f"start.{name}": value.astype(np.float32) for name, value in own.items()}
    for update in range(UPDATES):
        ids, mask = batch(rng, case["columns"])
        tensors |= {f"{update}.input_ids": ids, f"{update}.attention_mask": mask}
        columns = [
            {"input_ids": torch.from_numpy(i), "attention_mask": torch.from_numpy(m)}
            for i, m in zip(np.split(ids, case["columns"]), np.split(mask, case["columns"]))
        ]
        labels = labels_of(rng, case)
        if labels is not None:
            tensors[f"{update}.labels"] = labels.numpy()
        loss = loss_of(columns, labels)
        loss.backward()
        found.append(loss.item())
        if update == 0:
            gradients = named({n: p.grad.numpy() for n, p in parameters.items()})
            tensors |= {f"grad.{name}": value for name, value in gradients.items()}
        torch.nn.utils.clip_grad_norm_(parameters.values(), ADAMW["clip_grad_norm"])
        optimizer.step()
        optimizer.zero_grad()
    return tensors | {"losses": np.array(found)}


def main():
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        save_file(named(tiny(folder)), out / "model.safetensors")
        for seed, (name, case) in enumerate(CASES.items()):
            tensors = run(folder, case, seed)
            save_file(tensors, out / f"{name}.safetensors")
            print(name, tensors["losses"])
    about = {"model": SIZES, "optimizer": ADAMW, "rate": RATE, "cases": CASES}
    (out / "cases.json").write_text(json.dumps(about, indent=1) + "\n")


main()
