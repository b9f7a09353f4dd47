#!/usr/bin/env bash
# AutoTokenizer makes another tokenizer of an MPNet folder that has a tokenizer.json and no tokenizer_config.json:
# it lower-cases text that the tokenizer.json keeps as it is.
#
# Expected: a tokenizer.json describes the whole tokenizer, its normalizer too, and is what is loaded.
# Seen: the class that config.json's model_type leads to puts its own lower-casing normalizer in.
# Why it matters: a model trained on cased text gets other ids when it is used; nothing warns.
#
# Versions: transformers 5.24.0 and tokenizers 0.23.3 from PyPI. Output on 2026-11-28:
#   tokenizer.json: ['Rust']; AutoTokenizer (MPNetTokenizer): ['rust']
# Exits 1 where that is not seen any more.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check transformers==5.24.0 tokenizers==0.23.3
cat > "$folder/load.py" <<'PYTHON'
import json
import sys
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer

folder = Path(sys.argv[1])
words = ["<s>", "<pad>", "</s>", "[UNK]", "<mask>", "Rust", "rust"]
cased = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
cased.normalizer = normalizers.BertNormalizer(lowercase=False)
cased.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
cased.save(str(folder / "tokenizer.json"))
(folder / "config.json").write_text(json.dumps({"model_type": "mpnet", "vocab_size": len(words)}))
loaded = AutoTokenizer.from_pretrained(folder)
own = cased.encode("Rust").tokens
theirs = loaded.tokenize("Rust")
print(f"tokenizer.json: {own}; AutoTokenizer ({type(loaded).__name__}): {theirs}")
sys.exit(own != ["Rust"] or theirs != ["rust"])
PYTHON
mkdir "$folder/model"
"$folder/venv/bin/python" "$folder/load.py" "$folder/model" 2>/dev/null
