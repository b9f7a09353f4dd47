#!/usr/bin/env python3
"""Checks what the workspace depends on: licences, sources, and that every dependency is used.

usage: tools/dependencies.py [--advisories DIR]
  DIR  a clone of https://github.com/rustsec/advisory-db: known vulnerabilities are looked up, too
Needs cargo; asks no network once Cargo has the packages. Exits 1 where something is wrong.
"""
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

from rust_source import REPOSITORY

# Licences that ask for no more than their text.
LICENCES = {
    "0BSD", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "bzip2-1.0.6", "CDLA-Permissive-2.0",
    "CC0-1.0", "ISC", "MIT", "MIT-0", "NCSA", "Unicode-3.0", "Unlicense", "Zlib",
    # Asks for the source of files of the library itself, changed or not; none is changed here.
    "MPL-2.0",
}  # fmt: skip
# Advisories that do not concern this program, and why.
ACCEPTED = {}
failed = False


def problem(text):
    global failed
    failed = True
    print(text)


def allowed(expression):
    """Whether a licence expression leaves a choice of LICENCES alone: OR binds weaker than AND."""
    expression = expression.strip().replace("/", " OR ")

    def split(text, word):
        depth, parts, start = 0, [], 0
        for match in re.finditer(rf"[()]|\b{word}\b", text):
            depth += {"(": 1, ")": -1}.get(match.group(), 0)
            if match.group() == word and depth == 0:
                parts.append(text[start : match.start()])
                start = match.end()
        return [*parts, text[start:]]

    for word, combine in (("OR", any), ("AND", all)):
        parts = split(expression, word)
        if len(parts) > 1:
            return combine(allowed(part) for part in parts)
    if expression.startswith("(") and expression.endswith(")"):
        return allowed(expression[1:-1])
    return expression in LICENCES


def release(version):
    """A version as numbers that compare; a pre-release is before its release."""
    numbers, _, before = version.split("+")[0].partition("-")
    numbers = [int(n) for n in numbers.split(".")]
    return (*numbers, *[0] * (3 - len(numbers)), before == "", before)


def meets(version, requirement):
    """Whether a version is one of an advisory's `patched` or `unaffected` entries."""
    for part in requirement.split(","):
        sign, wanted = re.fullmatch(r"\s*(>=|<=|>|<|=|\^|~)?\s*(\S+)\s*", part).groups()
        ours, least = release(version), release(wanted)
        if sign in (None, "^", "~"):
            fixed = 2 if sign == "~" else next((i for i, n in enumerate(least[:3]) if n), 2) + 1
            met = ours >= least and ours[:fixed] == least[:fixed]
        else:
            met = {">=": ours >= least, "<=": ours <= least, ">": ours > least, "<": ours < least, "=": ours == least}[sign]
        if not met:
            return False
    return True


def check_packages(packages):
    for package in packages:
        name = f"{package['name']} {package['version']}"
        if not allowed(package["license"] or "none"):
            problem(f"{name}: licence {package['license']}")
        if package["source"] not in (None, "registry+https://github.com/rust-lang/crates.io-index"):
            problem(f"{name}: comes from {package['source']}")


def check_use(package):
    """That each dependency of a package is named somewhere in it."""
    root = Path(package["manifest_path"]).parent
    folders = [root / name for name in ("src", "tests", "benches", "examples")]
    others = [Path(target["src_path"]) for target in package["targets"]]
    files = {file for folder in folders for file in folder.rglob("*.rs")} | set(others)
    text = "\n".join(file.read_text() for file in sorted(files) if "target" not in file.parts)
    for dependency in package["dependencies"]:
        name = (dependency["rename"] or dependency["name"]).replace("-", "_")
        if not re.search(rf"\b{name}\b", text):
            problem(f"{package['name']}: {dependency['name']} is not used")


def check_advisories(packages, database):
    found = 0
    versions = {(p["name"], p["version"]) for p in packages}
    for name, version in sorted(versions):
        for file in sorted((database / "crates" / name).glob("RUSTSEC-*.md")):
            advisory = tomllib.loads(file.read_text().split("```toml", 1)[1].split("```", 1)[0])
            about, ranges = advisory["advisory"], advisory.get("versions", {})
            if "withdrawn" in about or about["id"] in ACCEPTED:
                continue
            fine = ranges.get("patched", []) + ranges.get("unaffected", [])
            if any(meets(version, requirement) for requirement in fine):
                continue
            found += 1
            what = about.get("informational", "vulnerability")
            line = f"{name} {version}: {about['id']}, {what}"
            # An unmaintained crate is told of; what is unsound or vulnerable fails.
            print(line) if what in ("unmaintained", "notice") else problem(line)
    print(f"{len(versions)} packages, {found} advisories")


command = ["cargo", "metadata", "--locked", "--format-version", "1", "--all-features"]
metadata = json.loads(subprocess.run(command, cwd=REPOSITORY, check=True, stdout=subprocess.PIPE).stdout)
packages = metadata["packages"]
check_packages(packages)
for package in packages:
    if package["id"] in metadata["workspace_members"]:
        check_use(package)
if sys.argv[1:2] == ["--advisories"]:
    check_advisories(packages, Path(sys.argv[2]))
print(f"{len(packages)} packages of {len({p['license'] for p in packages})} licences")
sys.exit(failed)
