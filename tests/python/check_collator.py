"""Compares our collator with annotated-mpnet's on the same rows.

usage: PYTHONPATH=ANNOTATED_MPNET check_collator.py COLLATE TOKENIZER TEXT...
  COLLATE    the example `collate`: cargo build --release --example collate
  TOKENIZER  a folder that transformers and we load
  TEXT       files of one text a line
needs: requirements.txt beside this file, and a checkout of annotated-mpnet with what it needs

For the defaults, for single tokens and for other shares, over 12 batches of 16 rows, each collated 150 times by both:
1. P is the same in every batch.
2. Every batch of either keeps the same rules: a permutation of the row, specials and padding first and never
   predicted, targets the true ids of the last P, two equal masked copies at their positions.
3. Predicted spans have the same distribution. Per row: predicted words, cut words, runs of neighbouring predicted
   tokens by length, first predicted position, order of the predicted, and what is shown for them. The draws are
   exchangeable under "both are alike", so labels are permuted: a p-value for every figure, Bonferroni's bound over all.
4. Which tokens are predicted together: for a row of ten words, every set of predicted positions is as frequent.
Prints a line a check; exits 1 where one fails.
"""
import itertools
import json
import subprocess
import sys

import numpy as np
import torch
from annotated_mpnet.data import DataCollatorForMaskedPermutedLanguageModeling as Collator
from transformers import AutoTokenizer

collate, folder, *files = sys.argv[1:]
BATCHES, ROWS, DRAWS, TOKENS, PERMUTATIONS, ALPHA = 12, 16, 150, 128, 4000, 0.01
SETTINGS = [
    dict(),
    dict(whole_word_mask=False),
    dict(pred_prob=0.3, keep_prob=0.05, rand_prob=0.4),
]
torch.set_num_threads(1)
tokenizer = AutoTokenizer.from_pretrained(folder)
special = set(tokenizer.all_special_ids)
continues = {i for t, i in tokenizer.get_vocab().items() if t.startswith("##")}
pad, mask = tokenizer.pad_token_id, tokenizer.mask_token_id
failed = False


def check(what, passed):
    global failed
    failed |= not passed
    print(f"{'ok  ' if passed else 'FAIL'} {what}", flush=True)


def ours(batches, draws, settings):
    flags = ["--repeat", str(draws)]
    for key, value in settings.items():
        flags += ["--no-whole-word-mask"] if key == "whole_word_mask" else ["--" + key.replace("_", "-"), str(value)]
    rows = "\n".join(json.dumps(batch) for batch in batches)
    run = subprocess.run([collate, folder, *flags], input=rows, stdout=subprocess.PIPE, text=True, check=True)
    for line in run.stdout.splitlines():
        batch = json.loads(line)
        shape = (batch["rows"], -1)
        yield {k: np.array(batch[k]).reshape(shape) for k in ("input_ids", "positions", "targets", "attention_mask")}


def theirs(batches, draws, settings):
    collator = Collator(tokenizer, random_seed=5, **settings)
    for batch in batches:
        examples = [{"input_ids": row, "attention_mask": [1] * len(row)} for row in batch]
        for _ in range(draws):
            made = collator(examples)
            yield {k: made[k].numpy() for k in ("input_ids", "positions", "targets", "attention_mask")}


def keeps_the_rules(rows, batch):
    ids, positions, targets = batch["input_ids"], batch["positions"], batch["targets"]
    p = targets.shape[1]
    length = ids.shape[1] - 2 * p
    if length != max(map(len, rows)) or not (batch["attention_mask"] == (ids != pad)).all():
        return False
    for r, row in enumerate(rows):
        row = np.array(row + [pad] * (length - len(row)))
        order = positions[r, :length]
        predicted = order[-p:]
        seen = ids[r, length : length + p]
        protected = [i for i, token in enumerate(row) if token in special]
        good = (
            sorted(order) == list(range(length))
            and (ids[r, :length] == row[order]).all()
            and (targets[r] == row[predicted]).all()
            and not special.intersection(targets[r])
            and list(order[: len(protected)]) == protected
            and (ids[r, length + p :] == seen).all()
            and (positions[r, length:] == np.concatenate([predicted, predicted])).all()
            and not (special - {mask}).intersection(seen)
        )
        if not good:
            return False
    return True


def features(row, predicted, seen, whole_words):
    """Figures of one collated row."""
    places = [i for i, token in enumerate(row) if token not in special]
    chosen = set(predicted.tolist())
    taken = [i in chosen for i in places]
    words = cut = 0
    runs = [0] * 8
    length = 0
    for index, (place, is_taken) in enumerate(zip(places, taken)):
        starts = index == 0 or not whole_words or row[place] not in continues
        words += is_taken and (starts or not taken[index - 1])
        cut += is_taken and not starts and not taken[index - 1]
        length = length + 1 if is_taken else 0
        if length and (index + 1 == len(places) or not taken[index + 1]):
            runs[min(length, 8) - 1] += 1
    own = np.array(row)[predicted]
    ascending = (np.diff(predicted) > 0).mean() if len(predicted) > 1 else 0.5
    masked = (seen == mask).mean()
    kept = (seen == own).mean()
    return [words, cut, *runs, taken.index(True) / len(places), ascending, masked, kept, 1 - masked - kept]


NAMES = ["words", "cut words", *(f"runs of {n}" for n in range(1, 8)), "runs of 8 or more", "first place", "ascending"]
NAMES += ["shown masked", "shown as they are", "shown as another"]


def permutation_p(a, b, statistic, rng):
    """Share of relabellings at least as extreme as what was found; `a` and `b` are [draws, figures].

    `statistic` sees the sums of the first part, [relabellings, figures], and those of both.
    """
    both = np.concatenate([a, b]).astype(np.float32)
    total = both.sum(axis=0, dtype=np.float64)
    observed = statistic(a.sum(axis=0, dtype=np.float64)[None], total)
    extreme = np.ones(observed.shape[1:])
    for _ in range(PERMUTATIONS // 100):
        chosen = np.zeros((100, len(both)), np.float32)
        for row in chosen:
            row[rng.permutation(len(both))[: len(a)]] = 1
        extreme += (statistic((chosen @ both).astype(np.float64), total) >= observed * (1 - 1e-6)).sum(axis=0)
    return extreme / (PERMUTATIONS + 1)


def difference(x, total):
    return np.abs(2 * x - total)


def homogeneity(x, total):
    return ((2 * x - total) ** 2 / np.maximum(total, 1)).sum(axis=-1)


texts = [line.strip() for file in files for line in open(file, encoding="utf-8") if line.strip()]
rows = [tokenizer(text, truncation=True, max_length=TOKENS)["input_ids"] for text in texts[: BATCHES * ROWS]]
batches = [rows[i : i + ROWS] for i in range(0, len(rows), ROWS)]
rng = np.random.default_rng(1)
for settings in SETTINGS:
    print(f"-- {settings or 'defaults'}")
    whole_words = settings.get("whole_word_mask", True)
    found = []
    for source in (ours, theirs):
        sizes, legal, figures, counts = [], True, [], []
        for index, batch in enumerate(source(batches, DRAWS, settings)):
            number = index // DRAWS
            p = batch["targets"].shape[1]
            length = batch["input_ids"].shape[1] - 2 * p
            sizes.append(p)
            legal &= keeps_the_rules(batches[number], batch)
            per_row = [
                features(row, batch["positions"][r, length - p : length], batch["input_ids"][r, length : length + p], whole_words)
                for r, row in enumerate(batches[number])
            ]
            # One draw of a batch is the exchangeable unit: the mean over its rows.
            figures.append(np.mean(per_row, axis=0))
            count = np.zeros((ROWS, TOKENS))
            for r in range(len(batches[number])):
                count[r, batch["positions"][r, length - p : length]] = 1
            counts.append(count)
        shape = (len(batches), DRAWS)
        found.append((sizes, legal, np.array(figures).reshape(*shape, -1), np.array(counts).reshape(*shape, -1)))
    (a, b) = found
    check(f"P: {sorted(set(a[0]))} in {len(a[0])} batches", a[0] == b[0])
    check(f"rules: ours {a[1]}, theirs {b[1]}", a[1] and b[1])

    # Draws of one batch are exchangeable: label k is that of every batch's k-th draw.
    means = [x[2].mean(axis=0) for x in (a, b)]
    p_values = permutation_p(*means, difference, rng)
    bound = ALPHA / len(p_values)
    for name, p, x, y in zip(NAMES, p_values, *(m.mean(axis=0) for m in means)):
        check(f"{name}: {x:.4f} and {y:.4f} a row, p = {p:.3f}", p > bound)
    flat = [x[3].swapaxes(0, 1).reshape(DRAWS, -1) for x in (a, b)]
    p = permutation_p(*flat, homogeneity, rng)
    check(f"how often each of {int((flat[0].sum(axis=0) > 0).sum())} tokens is predicted: p = {p:.3f}", p > ALPHA)

    # Ten words: six of one token, two of two and one of three behind those, one more; P is 2 or more.
    starts = [i for i in range(len(tokenizer)) if i not in continues | special][-10:]
    more = sorted(continues)
    words = [[start] for start in starts]
    words[6] += more[:1]
    words[7] += more[1:3]
    words[9] += more[3:4]
    row = [tokenizer.bos_token_id, *itertools.chain(*words), tokenizer.eos_token_id]
    small = [[row] * ROWS]
    sets = []
    for source in (ours, theirs):
        drawn = []
        for batch in source(small, 400, settings):
            p = batch["targets"].shape[1]
            length = batch["input_ids"].shape[1] - 2 * p
            drawn += [order[length - p : length] for order in batch["positions"]]
        # Sets of more than two in any order, so that each comes often enough.
        sets.append([tuple(d if len(d) <= 2 else sorted(d)) for d in drawn])
    codes = {s: i for i, s in enumerate(sorted(set(sets[0]) | set(sets[1])))}
    coded = [np.eye(len(codes), dtype=np.float32)[[codes[s] for s in drawn]] for drawn in sets]
    p = permutation_p(*coded, homogeneity, rng)
    check(f"{len(codes)} sets of {len(sets[0][0])} predicted of a row of ten words: p = {p:.3f}", p > ALPHA)
sys.exit(failed)
