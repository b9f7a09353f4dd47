#!/usr/bin/env python3
"""Counts the lines of Rust that are not tests, folder by folder.

usage: tools/lines.py [REVISION…]
  REVISION  commits to compare; the files as they are now where none is given
Tests are the folders `tests`, files and items under #[cfg(test)]. Benches and examples are not counted.
"""
import sys
from collections import Counter

from rust_source import production, rust_files


def folder(path):
    parts = path.split("/")
    at = parts.index("src")
    return "/".join(parts[: at + 2]) if len(parts) > at + 2 else "/".join(parts[: at + 1])


columns = sys.argv[1:] or [None]
counts = []
for revision in columns:
    count = Counter()
    for path, text in production(rust_files(revision)).items():
        count[folder(path)] += text.count("\n")
    counts.append(count)
print(f"{'':28}" + "".join(f"{(revision or 'now')[:9]:>10}" for revision in columns))
for name in sorted(set().union(*counts)):
    print(f"{name:28}" + "".join(f"{count[name]:10}" for count in counts))
print(f"{'all':28}" + "".join(f"{count.total():10}" for count in counts))
