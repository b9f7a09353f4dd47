"""What the scripts of this folder share: the repository's Rust files, without comments, texts and tests."""
import re
import subprocess
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
CRATES = {path.parents[1].name: path for path in sorted(REPOSITORY.glob("*/src/lib.rs"))} | {"mpnet": REPOSITORY / "src/lib.rs"}

# A comment, a raw text, a text, a character; lifetimes are none of them.
TOKENS = re.compile(r"""//[^\n]*|/\*.*?\*/|b?r(\#*)".*?"\1|b?"(?:\\.|[^"\\])*"|b?'(?:\\(?:u\{\w+\}|x\w\w|.)|[^\\'\n])'""", re.DOTALL)


def rust_files(revision=None):
    """Each Rust file that is under version control, by its path, with its text: of a revision, or as it is now."""
    names = ["git", "ls-tree", "-r", "--name-only", revision] if revision else ["git", "ls-files"]
    listed = subprocess.run(names, cwd=REPOSITORY, check=True, text=True, stdout=subprocess.PIPE).stdout
    found = {}
    for name in listed.splitlines():
        if not name.endswith(".rs"):
            continue
        if revision:
            show = ["git", "show", f"{revision}:{name}"]
            found[name] = subprocess.run(show, cwd=REPOSITORY, check=True, text=True, stdout=subprocess.PIPE).stdout
        elif (REPOSITORY / name).is_file():
            found[name] = (REPOSITORY / name).read_text()
    return found


def blanked(text):
    """The same text with comments and texts as spaces: lines and columns stay."""
    return TOKENS.sub(lambda match: re.sub(r"[^\n]", " ", match.group()), text)


def test_spans(code):
    """Where a blanked file has items that are only compiled for tests, from the attribute to the item's end."""
    spans = []
    for start in re.finditer(r"#\[cfg\((?:test|all\(test\b[^\]]*)\)\]", code):
        if spans and start.start() < spans[-1][1]:
            continue
        depth, at = 0, start.end()
        while at < len(code):
            depth += {"{": 1, "(": 1, "[": 1, "}": -1, ")": -1, "]": -1}.get(code[at], 0)
            if depth == 0 and code[at] in ";}" or depth < 0:
                break
            at += 1
        spans.append((start.start(), min(at + 1, len(code))))
    return spans


def without_tests(text):
    """A file's lines without those of items that are only compiled for tests, and the modules so declared."""
    code = blanked(text)
    kept, modules, last = [], [], 0
    for start, end in test_spans(code):
        kept.append(text[last:start])
        item = code[start:end]
        path = re.search(r'#\[path = "([^"]+)"\]', text[start:end])
        module = re.search(r"\bmod (\w+);", item)
        if module:
            modules.append(path.group(1) if path else module.group(1))
        last = end
    kept.append(text[last:])
    return "".join(kept), modules


def production(files):
    """The files of the crates without tests, and without the files that only tests have, by path."""
    stripped, only_tests = {}, set()
    for path, text in files.items():
        if not re.match(r"(\w+/)?src/", path) or path.startswith(("tests/", "examples/")):
            continue
        stripped[path], modules = without_tests(text)
        folder = Path(path).parent
        if Path(path).name not in ("mod.rs", "lib.rs", "main.rs"):
            folder = folder / Path(path).stem
        for module in modules:
            only_tests |= {str(folder / f"{module}.rs"), str(folder / module / "mod.rs")}
            only_tests.add(str(folder / module) + "/")
    gone = tuple(name for name in only_tests if name.endswith("/"))
    return {p: t for p, t in stripped.items() if p not in only_tests and not p.startswith(gone or ("\0",))}
