"""Makes the PyTorch files of tests/data/pytorch with the programs whose formats they have.

usage: make_peer_files.py ANNOTATED_MPNET GOLDEN OUTPUT
  ANNOTATED_MPNET  a checkout of annotated-mpnet (commit 01a9b09)
  GOLDEN           tests/data/golden
  OUTPUT           the folder to write
needs: requirements.txt beside this file, and annotated-mpnet's own requirements

annotated-postln-gelu.pt, annotated-postln-padded.pt: the golden cases' starting weights, by annotated-mpnet's
    own converter from HuggingFace.
trained.pt, optimizer/trained_optimizer_state.pt: the first of them after two updates, with the prefix of
    torch.compile, saved as its trainer saves checkpoints; trained-moments.safetensors: its moments by name.
hf-bin: the same model as transformers saved it before safetensors, its decoder stored
    and a row of token types.
fairseq.pt: the same weights in fairseq's layout, in the format of before PyTorch 1.6, with half-precision
    and transposed tensors and fairseq's meters.
"""
import argparse
import json
import os
import shutil
import sys
import tempfile
import types
from pathlib import Path

annotated, golden, output = map(Path, sys.argv[1:4])
sys.path.insert(0, str(annotated))
import torch
from cli_tools.convert_hf_model_to_mpnet import convert_hf_model_to_mpnet
from golden_tokenizer import golden_tokenizer
from safetensors.torch import save_file

output.mkdir(parents=True, exist_ok=True)
(output / "optimizer").mkdir(exist_ok=True)


for case in ("postln-gelu", "postln-padded"):
    model = json.loads((golden / case / "case.json").read_text())["model"]
    with tempfile.TemporaryDirectory() as folder:
        for name in ("config.json", "model.safetensors"):
            shutil.copyfile(golden / case / "hf" / name, Path(folder) / name)
        golden_tokenizer(model).save_pretrained(folder)
        convert_hf_model_to_mpnet(folder, output / f"annotated-{case}.pt")

saved = torch.load(output / "annotated-postln-gelu.pt", weights_only=False)
from annotated_mpnet.modeling import MPNetForPretraining

case = json.loads((golden / "postln-gelu/case.json").read_text())["model"]
args = argparse.Namespace(**saved["args"])
model = MPNetForPretraining(args, golden_tokenizer(case))
model.load_state_dict(saved["model_states"])
decay, others, seen = [], [], set()
names = {}
for name, parameter in model.named_parameters():
    if id(parameter) in seen:
        continue
    seen.add(id(parameter))
    names[id(parameter)] = name
    (others if name.endswith(".bias") or parameter.ndim == 1 else decay).append(parameter)
optimizer = torch.optim.AdamW([{"params": decay, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}], lr=1e-3, betas=(0.9, 0.98), eps=1e-6)
torch.manual_seed(1)
for _ in range(2):
    for parameter in decay + others:
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
states = {f"_orig_mod.{k}": v for k, v in model.state_dict().items()}
torch.save(
    {
        "args": vars(args),
        "model_states": states,
        "steps": 2,
        "best_loss": 7.25,
        "samples_processed": 32,
        "data_state": {"mode": "files", "cycle": 0, "batch_index": 2, "samples_in_cycle": 32},
        "rng_state": {"torch": torch.get_rng_state(), "cuda": None, "numpy": None},
        "collator_rng_state": torch.Generator().manual_seed(3).get_state(),
        "streaming_rng_state": None,
    },
    output / "trained.pt",
)
torch.save({"optimizer": optimizer.state_dict(), "scheduler": {"lr": 1e-3}, "steps": 2}, output / "optimizer/trained_optimizer_state.pt")
moments = {}
for parameter, state in optimizer.state.items():
    name = names[id(parameter)]
    moments[f"exp_avg.{name}"] = state["exp_avg"]
    moments[f"exp_avg_sq.{name}"] = state["exp_avg_sq"]
save_file(moments, output / "trained-moments.safetensors")

from safetensors.torch import load_file

hf = load_file(golden / "postln-gelu/hf/model.safetensors")
words = "mpnet.embeddings.word_embeddings.weight"
hf["mpnet.embeddings.token_type_embeddings.weight"] = torch.linspace(-0.5, 0.5, hf[words].shape[1])[None]
hf["mpnet.embeddings.position_ids"] = torch.arange(50)[None]
hf["lm_head.decoder.weight"] = hf[words]
hf["lm_head.decoder.bias"] = hf["lm_head.bias"]
(output / "hf-bin").mkdir(exist_ok=True)
shutil.copyfile(golden / "postln-gelu/hf/config.json", output / "hf-bin/config.json")
torch.save(hf, output / "hf-bin/pytorch_model.bin")

# fairseq's own modules are not needed to pickle its names.
meters = types.ModuleType("fairseq.meters")
for name in ("AverageMeter", "TimeMeter", "StopwatchMeter"):
    setattr(meters, name, type(name, (), {"__module__": "fairseq.meters"}))
sys.modules["fairseq"] = types.ModuleType("fairseq")
sys.modules["fairseq.meters"] = meters
meter = meters.AverageMeter()
meter.val, meter.count = 1.5, 3
fairseq = {f"decoder.{k}": v.clone() for k, v in saved["model_states"].items() if k != "lm_head.weight"}
fairseq["decoder.lm_head.weight"] = fairseq["decoder.sentence_encoder.embed_tokens.weight"]
fc1 = "decoder.sentence_encoder.layers.0.fc1.weight"
fairseq[fc1] = fairseq[fc1].t().contiguous().t()
fairseq = {k: v.to(torch.float64) if k.endswith("fc2.bias") else v for k, v in fairseq.items()}
namespace = argparse.Namespace(
    arch="mpnet_rel_base",
    encoder_layers=args.encoder_layers,
    encoder_embed_dim=args.encoder_embed_dim,
    encoder_ffn_embed_dim=args.encoder_ffn_dim,
    encoder_attention_heads=args.encoder_attention_heads,
    activation_fn="gelu",
    dropout=0.1,
    attention_dropout=0.1,
    activation_dropout=0.0,
    use_relative_positions=True,
    encoder_normalize_before=False,
    tokens_per_sample=512,
    max_positions=512,
    lr=[0.0002],
)
torch.save(
    {
        "args": namespace,
        "model": fairseq,
        "optimizer_history": [{"criterion_name": "MaskedPermutationCriterion", "num_updates": 500000}],
        "extra_state": {"best": 1.25, "train_meters": {"train_loss": meter}},
    },
    output / "fairseq.pt",
    _use_new_zipfile_serialization=False,
)
