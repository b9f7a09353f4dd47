#!/usr/bin/env bash
# A tokenizer that transformers 5 loads and saves again, unchanged, is another file in what it says.
#
# Expected: AutoTokenizer.from_pretrained(A).save_pretrained(B) writes a tokenizer.json with A's settings.
# Seen: the post-processor's add_prefix_space, true in MPNet's published files, is false in B; transformers 4.57.6
# leaves it. The ids of texts are the same.
# Why it matters: programs that compare definitions, or hash them to tell whether a model still has its own tokenizer,
# take the copy for another tokenizer.
#
# Versions: transformers 5.24.0 with tokenizers 0.23.3 from PyPI. Output on 2026-11-29:
#   add_prefix_space: True in the file, False in the one saved again; ids [0, 4, 5, 6, 2] and [0, 4, 5, 6, 2]
# Exits 1 where that is not seen any more.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check transformers==5.24.0 tokenizers==0.23.3
cat > "$folder/save.py" <<'PYTHON'
import json
import sys
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AutoTokenizer

first, second = Path(sys.argv[1]) / "a", Path(sys.argv[1]) / "b"
first.mkdir()
words = ["<s>", "<pad>", "</s>", "<unk>", "the", "word", "##s", "<mask>"]
made = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
made.normalizer = normalizers.BertNormalizer()
made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
made.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), trim_offsets=True, add_prefix_space=True)
made.save(str(first / "tokenizer.json"))
(first / "config.json").write_text(json.dumps({"model_type": "mpnet"}))
roles = {"bos": "<s>", "cls": "<s>", "eos": "</s>", "sep": "</s>", "pad": "<pad>", "unk": "<unk>", "mask": "<mask>"}
config = {f"{role}_token": token for role, token in roles.items()} | {"tokenizer_class": "MPNetTokenizer"}
(first / "tokenizer_config.json").write_text(json.dumps(config))

loaded = AutoTokenizer.from_pretrained(first)
loaded.save_pretrained(second)
settings = [
    json.loads((at / "tokenizer.json").read_text())["post_processor"]["add_prefix_space"] for at in (first, second)
]
ids = [AutoTokenizer.from_pretrained(at)("the words")["input_ids"] for at in (first, second)]
print(
    f"add_prefix_space: {settings[0]} in the file, {settings[1]} in the one saved again; ids {ids[0]} and {ids[1]}"
)
sys.exit(settings != [True, False] or ids[0] != ids[1])
PYTHON
"$folder/venv/bin/python" "$folder/save.py" "$folder" 2>/dev/null
