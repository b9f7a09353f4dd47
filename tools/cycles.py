#!/usr/bin/env python3
"""Shows circles of imports: between files of a crate, and between the modules of one parent, folders among them.

usage: tools/cycles.py [--edges]
  --edges  print what imports what, too
Tests are left out. A re-export is no import: who imports a name through `pub use` imports the file that has it.
A folder's `mod.rs` and the files below it are one room, so that imports between these two are not counted.
Circles that ARCHITECTURE.md names, in lines such as "- `a.rs` ↔ `b.rs`: why", are allowed; a line there that names
no circle any more is an error as well. Exits 1 where there is another circle.
"""
import re
import sys
from collections import defaultdict

from rust_source import CRATES, REPOSITORY, blanked, production, rust_files

PATH = re.compile(r"(?<![\w:$])(?:crate|super|self)(?:\s*::\s*\w+)+")
USE = re.compile(r"\b(pub(?:\([^)]*\))?\s+)?use\s+([^;]+);")


def leaves(tree, prefix=()):
    """The paths that a use declaration names, each with the name it gets there."""
    tree, depth, parts, start = tree.strip(), 0, [], 0
    for at, character in enumerate(tree):
        depth += {"{": 1, "}": -1}.get(character, 0)
        if character == "," and depth == 0:
            parts.append(tree[start:at])
            start = at + 1
    for part in [*parts, tree[start:]]:
        part = part.strip()
        if not part:
            continue
        if part.endswith("}"):
            head, inner = part.split("{", 1)
            names = tuple(name.strip() for name in head.split("::") if name.strip())
            yield from leaves(inner[:-1], prefix + names)
            continue
        part, _, alias = part.partition(" as ")
        names = prefix + tuple(name.strip() for name in part.split("::") if name.strip())
        if names and names[-1] == "self":
            names = names[:-1]
        if names:
            yield names, alias.strip() or names[-1]


class Crate:
    def __init__(self, root, files):
        self.source = root.parent.relative_to(REPOSITORY).as_posix()
        # Modules by their path from the root, with their file and code.
        self.modules = {}
        for path, text in files.items():
            if not path.startswith(self.source + "/") or path.startswith(self.source + "/bin/"):
                continue
            names = path[len(self.source) + 1 : -3].split("/")
            if names[-1] in ("mod", "lib", "main"):
                names.pop()
            self.modules[tuple(names)] = (path, blanked(text))
        self.uses = {module: self.use_lines(module) for module in self.modules}

    def absolute(self, module, names):
        """A path's names from the crate's root, or None where it leads to another crate."""
        names = list(names)
        if names[0] == "crate":
            return tuple(names[1:])
        if names[0] in ("self", "super"):
            at = list(module)
            while names and names[0] in ("self", "super"):
                if names.pop(0) == "super":
                    if not at:
                        return None
                    at.pop()
            return tuple(at + names)
        child = module + (names[0],)
        return child + tuple(names[1:]) if child in self.modules else None

    def use_lines(self, module):
        """What a module uses: whether it is a re-export, the path, and the name."""
        found = []
        for public, tree in USE.findall(self.modules[module][1]):
            for names, alias in leaves(tree):
                path = self.absolute(module, names)
                if path is not None:
                    found.append((bool(public), path, alias))
        return found

    def owner(self, path, seen=()):
        """The module in which the item at a path is written, re-exports followed."""
        for length in range(len(path), -1, -1):
            if path[:length] in self.modules:
                break
        module, rest = path[:length], path[length:]
        if not rest or (module, rest) in seen:
            return module
        seen = (*seen, (module, rest))
        globs = []
        for public, target, alias in self.uses[module]:
            if public and alias == rest[0] and target != path[: length + 1]:
                return self.owner(target + rest[1:], seen)
            if public and alias == "*":
                globs.append(target[:-1])
        item = rf"\b(?:fn|struct|enum|trait|type|const|static|union|macro_rules!|mod)\s+(?:mut\s+)?{rest[0]}\b"
        if not re.search(item, self.modules[module][1]):
            for target in globs:
                inner = self.owner(target, seen)
                if re.search(item, self.modules[inner][1]):
                    return inner
        return module

    def edges(self):
        """Which modules import which."""
        found = defaultdict(set)
        for module, (_, code) in self.modules.items():
            paths = [path for public, path, _ in self.uses[module] if not public]
            for match in PATH.finditer(USE.sub(" ", code)):
                path = self.absolute(module, re.split(r"\s*::\s*", match.group()))
                if path is not None:
                    paths.append(path)
            for path in paths:
                path = path[:-1] if path and path[-1] == "*" else path
                owner = self.owner(path)
                nested = owner[: len(module)] == module or module[: len(owner)] == owner
                if owner != module and not nested:
                    found[module].add(owner)
        return found


def circles(edges):
    """The strongly connected parts of more than one node (Tarjan), each sorted."""
    index, low, stack, found = {}, {}, [], []

    def visit(node):
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(edges.get(node, ())):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            part = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(part) > 1:
                found.append(tuple(sorted(part)))

    sys.setrecursionlimit(10_000)
    for node in sorted(edges):
        if node not in index:
            visit(node)
    return found


def siblings(edges):
    """The modules of each parent that import each other, what lies below a module counted as its own."""
    found = defaultdict(set)
    for module, others in edges.items():
        for other in others:
            common = 0
            while common < min(len(module), len(other)) and module[common] == other[common]:
                common += 1
            if common < min(len(module), len(other)):
                found[module[: common + 1]].add(other[: common + 1])
    return found


def allowed():
    """The circles that ARCHITECTURE.md names."""
    lines = (REPOSITORY / "ARCHITECTURE.md").read_text().splitlines()
    found = set()
    for line in lines:
        head = line.partition(":")[0]
        if line.startswith("- `") and "↔" in head:
            found.add(tuple(sorted(re.findall(r"`([^`]+)`", head))))
    return found


files = production(rust_files())
named, seen, failed = allowed(), set(), False
for crate, root in CRATES.items():
    crate = Crate(root, files)
    edges = crate.edges()
    if "--edges" in sys.argv:
        for module, others in sorted(edges.items()):
            print(crate.modules[module][0], "→", *sorted(crate.modules[other][0] for other in others))

    def name(module):
        file = crate.modules[module][0] if module in crate.modules else ""
        below = any(other[: len(module)] == module and other != module for other in crate.modules)
        return "/".join((crate.source, *module)) + "/" if below else file

    between_files = [tuple(crate.modules[m][0] for m in circle) for circle in circles(edges)]
    of_siblings = [tuple(sorted(name(m) for m in circle)) for circle in circles(siblings(edges))]
    for kind, found in (("files", between_files), ("modules of one folder", of_siblings)):
        for circle in found:
            circle = tuple(sorted(circle))
            if circle in seen:
                continue
            seen.add(circle)
            if circle not in named:
                failed = True
                print(f"circle between {kind}: " + " ↔ ".join(circle))
                if kind == "files":
                    here = [m for m in edges if crate.modules[m][0] in circle]
                    for module in here:
                        to = sorted(crate.modules[o][0] for o in edges[module] if crate.modules[o][0] in circle)
                        print(f"    {crate.modules[module][0]} → {' '.join(to)}")
for circle in sorted(named - seen):
    failed = True
    print("ARCHITECTURE.md names a circle that is none: " + " ↔ ".join(circle))
print(f"{len(seen)} circles, {len(seen & named)} of them with a reason in ARCHITECTURE.md")
sys.exit(failed)
