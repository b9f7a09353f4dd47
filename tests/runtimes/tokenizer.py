"""Writes a tokenizer for the golden model into a folder: a word for each id, `<s>` and `</s>` around a text.

usage: tokenizer.py FOLDER
Needs tokenizers. The words are w4, w5, and so on, so that a text says its ids.
"""
import json
import sys
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors

MASK = 255
folder = Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
special = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "<mask>": MASK}
words = special | {f"w{i}": i for i in range(4, MASK)}
tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
tokenizer.add_special_tokens([AddedToken(token, special=True) for token in special])
tokenizer.post_processor = processors.TemplateProcessing(
    single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
)
tokenizer.save(str(folder / "tokenizer.json"))
names = {"bos": "<s>", "cls": "<s>", "eos": "</s>", "sep": "</s>", "pad": "<pad>", "unk": "<unk>", "mask": "<mask>"}
tokens = {f"{kind}_token": token for kind, token in names.items()}
(folder / "tokenizer_config.json").write_text(json.dumps(tokens | {"tokenizer_class": "MPNetTokenizer", "model_max_length": 48}))
(folder / "special_tokens_map.json").write_text(json.dumps(tokens))
