"""Makes pairs of texts that belong together from plain text, and a search on others kept aside.

usage: make_pairs.py TRAIN.txt HELD_OUT.txt FOLDER
needs: Python alone

Each line of at least 12 words is cut in two: the first half is the anchor or the query, the second the positive or the
text to be found. Written are pairs.jsonl of TRAIN, and of HELD_OUT valid.jsonl, queries.jsonl, corpus.jsonl and
relevant.csv, as `mpnet finetune --task embeddings` takes them.
"""
import json
import sys
from pathlib import Path

FEWEST = 12
train, held_out, folder = sys.argv[1:4]
folder = Path(folder)
folder.mkdir(parents=True, exist_ok=True)


def halves(path):
    for line in Path(path).read_text().splitlines():
        words = line.split()
        if len(words) >= FEWEST:
            yield " ".join(words[: len(words) // 2]), " ".join(words[len(words) // 2 :])


def write(name, rows):
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def pairs(found):
    return ({"anchor": first, "positive": second} for first, second in found)


write("pairs.jsonl", pairs(halves(train)))
kept = list(halves(held_out))
write("valid.jsonl", pairs(kept))
write("queries.jsonl", ({"id": str(i), "text": first} for i, (first, _) in enumerate(kept)))
write("corpus.jsonl", ({"id": f"t{i}", "text": second} for i, (_, second) in enumerate(kept)))
(folder / "relevant.csv").write_text("query-id,corpus-id\n" + "".join(f"{i},t{i}\n" for i in range(len(kept))))
