"""Runs exports in other people's runtimes and writes what happened into docs/runtimes.md.

usage: run.py MPNET [--environments FOLDER] [RUNTIME ...]
Reads runtimes.toml beside this file; needs uv, and node and npm for what is JavaScript.
"""
import argparse
import datetime
import json
import os
import subprocess
import tempfile
import tomllib
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
TABLE = REPOSITORY / "docs/runtimes.md"
MODEL = REPOSITORY / "tests/data/golden/postln-gelu/hf"
HEADS = ("none", "mlm", "sentence")
# Of the model that is tried: its values are below 10.
TOLERANCE = 1.5e-6
LIMIT_S = 600

HEAD = """# Exports in other people's runtimes

What `mpnet export` writes, in runtimes that are not ours: written by `tests/runtimes/run.py`, each line by running it. Tried are the heads none, mlm and sentence of a small model (two layers, 32 wide) at seven shapes in one loaded model, padded rows among them; the difference is the largest from PyTorch in float64, at places that are no padding. "7 of 7" are shapes within {tolerance}.

| runtime | versions | none | mlm | sentence | what must be done | tried |
|---|---|---|---|---|---|---|
"""


def environment(folder, name, entry):
    """The command that runs a script of `entry`, and where: made once."""
    place = folder / name
    if "node" in entry:
        if not place.is_dir():
            place.mkdir(parents=True)
            (place / "package.json").write_text('{"private": true, "type": "module"}')
            # The GPU part of onnxruntime-node is fetched by its install script, from elsewhere.
            npm = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", *entry["node"]]
            subprocess.run(npm, cwd=place, check=True, stdout=subprocess.DEVNULL)
        return ["node"], place
    if not place.is_dir():
        subprocess.run(["uv", "venv", "-q", "--python", entry.get("version", "3.11"), place], check=True)
        install = ["uv", "pip", "install", "-q", "--python", place / "bin/python", "numpy", *entry["python"]]
        subprocess.run(install, check=True)
    return [place / "bin/python"], HERE


def fixed(options):
    """Those of an export's options that fix its sizes."""
    pairs = zip(options, options[1:])
    return [part for name, value in pairs if name in ("--batch", "--length") for part in (name, value)]


def cell(line):
    if not line["loads"]:
        return f"no: {line.get('error', '')}".replace("|", "\\|")
    found = f"{line['shapes']} of {line['of']}, {line['difference']:.1e}"
    if line.get("error"):
        found += f", then: {line['error']}"
    elif line["difference"] > TOLERANCE:
        found += " (!)"
    return found.replace("|", "\\|").replace("\n", " ")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("mpnet", type=Path)
    parser.add_argument("--environments", type=Path)
    parser.add_argument("runtimes", nargs="*")
    arguments = parser.parse_intermixed_args()
    entries = tomllib.loads((HERE / "runtimes.toml").read_text())
    known = [name for name in entries if name != "cases"]
    if unknown := set(arguments.runtimes) - set(known):
        parser.error(f"no such runtime: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    chosen = arguments.runtimes or known
    with tempfile.TemporaryDirectory() as temporary:
        environments = arguments.environments or Path(temporary) / "environments"
        made = {}
        rows = {}
        for name in chosen:
            entry = entries[name]
            options = tuple(entry.get("export", []))
            if options not in made:
                made[options] = [Path(temporary) / f"{len(made)}-{head}" for head in HEADS]
                python, place = environment(environments, "cases", entries["cases"])
                tokenizer = Path(temporary) / "tokenizer"
                subprocess.run([*python, HERE / "tokenizer.py", tokenizer], cwd=place, check=True)
                for head, folder in zip(HEADS, made[options]):
                    command = [arguments.mpnet, "export", MODEL, "--head", head, "--output", folder, *options]
                    command += ["--tokenizer", tokenizer]
                    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                command = [*python, HERE / "cases.py", MODEL, *made[options], *fixed(options)]
                subprocess.run(command, cwd=place, check=True, stderr=subprocess.DEVNULL)
            program, place = environment(environments, name, entry)
            cells, versions, note = [], "", ""
            for head, folder in zip(HEADS, made[options]):
                if head not in entry.get("heads", HEADS):
                    cells.append("–")
                    continue
                command = [*program, HERE / entry["script"], folder]
                try:
                    done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=LIMIT_S)
                    line = json.loads(done.stdout.strip().splitlines()[-1])
                except (subprocess.TimeoutExpired, json.JSONDecodeError, IndexError) as error:
                    line = {"loads": False, "error": f"{type(error).__name__}", "versions": {}, "note": ""}
                cells.append(cell(line))
                versions = ", ".join(f"{k} {v}" for k, v in line["versions"].items()) or versions
                note = line.get("note") or note
            note = "; ".join(part for part in (" ".join(options) and f"`{' '.join(options)}`", note) if part)
            today = datetime.date.today().isoformat()
            rows[name] = f"| {entry['name']} | {versions} | {' | '.join(cells)} | {note or 'nothing'} | {today} |"
            print(rows[name], flush=True)
        write(entries, rows)


def write(entries, rows):
    """Renews the lines of `rows` in the table; the others stay as they are."""
    head = HEAD.format(tolerance=TOLERANCE)
    old = TABLE.read_text() if TABLE.is_file() else ""
    kept = {line.split(" | ")[0].removeprefix("| "): line for line in old.splitlines() if line.startswith("| ")}
    lines = [rows.get(name) or kept.get(entry["name"]) for name, entry in entries.items()]
    lines = [line for line in lines if line]
    after = old.split("\n\n## ", 1)
    rest = f"\n\n## {after[1]}" if len(after) == 2 else "\n"
    temporary = TABLE.with_suffix(".new")
    temporary.write_text(head + "\n".join(lines) + rest)
    os.replace(temporary, TABLE)


if __name__ == "__main__":
    main()
