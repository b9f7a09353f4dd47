#!/usr/bin/env python3
"""Runs the program built for Windows under Wine, beside the one built for this machine.

usage: tests/platforms/windows.py WINDOWS HERE
  WINDOWS  folder with the three programs for Windows
  HERE     folder with those of this machine
Needs Wine, a C compiler for Windows (x86_64-w64-mingw32-gcc) and pip or uv. Golden cases; the quick start, shortened, with the losses of this machine by the same
version of ONNX Runtime; a run that is killed or interrupted and resumed, against one left alone; conversion; export.
Exits 1 at the first thing that is wrong.
"""
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
VERSION = "1.32.0"
# What the losses of both machines may differ by.
TOLERANCE = 1e-5
UPDATES = 24
# With a space, as folders of Windows' users have.
RUN = "the run"
CASES = [
    "golden/postln-gelu", "golden/postln-padded", "golden/preln-relu",
    "golden-modes/plm", "golden-modes/mlm-padded", "golden-modes/return-mlm",
]  # fmt: skip


def fail(text):
    sys.exit(f"windows.py: {text}")


def wheel(folder):
    """The wheel of ONNX Runtime for Windows, by whichever pip there is."""
    for pip in (["pip"], ["pip3"], [sys.executable, "-m", "pip"], ["uv", "tool", "run", "pip"]):
        if shutil.which(pip[0]) and subprocess.run([*pip, "--version"], capture_output=True).returncode == 0:
            break
    else:
        fail("there is neither pip nor uv")
    command = [*pip, "download", "--quiet", "--no-deps", "--only-binary=:all:", "--implementation=cp"]
    command += ["--python-version=3.12", "--abi=cp312", "--platform=win_amd64", "--dest", folder]
    subprocess.run([*command, f"onnxruntime=={VERSION}"], check=True)
    [found] = Path(folder).glob("*.whl")
    return found


class Machine:
    """One that runs the three programs."""

    def __init__(self, programs, ending, before, variables):
        self.programs, self.ending, self.before = Path(programs).resolve(), ending, before
        self.environment = os.environ | variables

    def command(self, program, *arguments):
        return [*self.before, str(self.programs / (program + self.ending)), *map(str, arguments)]

    def start(self, program, *arguments, folder, log):
        with open(log, "wb") as file:
            return subprocess.Popen(
                self.command(program, *arguments), cwd=folder, env=self.environment,
                stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    def run(self, program, *arguments, folder=REPOSITORY):
        done = subprocess.run(
            self.command(program, *arguments), cwd=folder, env=self.environment,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
        )  # fmt: skip
        if done.returncode != 0:
            fail(f"{program} {arguments}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done.stdout


def quick_start(*more):
    """README's first command, shortened; checkpoints in RUN below the folder where it runs."""
    examples = REPOSITORY / "examples"
    return (
        "--preset", "tiny", "--tokenizer-name", examples / "tokenizer", "--train-dir", examples / "corpus/train",
        "--valid-file", examples / "corpus/valid.txt", "--test-file", examples / "corpus/test.txt",
        "--total-updates", UPDATES, "--batch-size", "16", "--update-freq", "1", "--lr", "2e-3",
        "--logging-steps", "1", "--engine", "session", "--checkpoint-dir", RUN, *more,
    )  # fmt: skip


def losses(checkpoints):
    """Every loss that a run has written, by what it is of."""
    found = {}
    for line in (checkpoints / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        if "loss" in record:
            found[(record.get("event", record.get("split")), record.get("step"), len(found))] = record["loss"]
    return found


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def same_checkpoints(expected, found):
    for pointer in ("latest", "best"):
        a, b = (contents(out / (out / pointer).read_text().strip()) for out in (expected, found))
        if a.keys() != b.keys():
            fail(f"{pointer}: {sorted(a)} and {sorted(b)}")
        if different := [name for name in a if a[name] != b[name]]:
            fail(f"{pointer} differs in {different}")


def disturbed(machine, folder, arguments, number, interrupts):
    """A run that is sent a signal three times and resumed each time."""
    folder = folder / number.name
    folder.mkdir()
    out, log = folder / RUN, folder / "log"
    for attempt in range(4):
        resume = ["--resume"] if (out / "latest").exists() else []
        process = machine.start("pretrain-mpnet", *quick_start(*arguments, *resume), folder=folder, log=log)
        if attempt < 3:
            wanted = UPDATES * (attempt + 1) // 4
            while process.poll() is None and f"update {wanted}/" not in log.read_text(errors="replace"):
                time.sleep(0.05)
            process.send_signal(number)
        code = process.wait()
        # What kills a process under Wine has no exit code of Windows.
        wanted = 0 if attempt == 3 else 128 + number if interrupts else -number
        if code != wanted:
            fail(f"start {attempt} of {number.name}: exit {code}\n{log.read_text(errors='replace')}")
    return out


def main():
    windows, here = sys.argv[1:]
    # Where Debian has what its `wine` starts, which complains of a missing Wine for 32 bits.
    wine = shutil.which("wine64") or shutil.which("wine64", path="/usr/lib/wine") or "wine"
    random = Path(windows) / "bcryptprimitives.dll"
    source = REPOSITORY / "tests/platforms/bcryptprimitives.c"
    subprocess.run(["x86_64-w64-mingw32-gcc", "-shared", "-O2", "-o", random, source, "-ladvapi32"], check=True)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        folder = Path(folder)
        windows = Machine(windows, ".exe", [wine], {
            "WINEPREFIX": str(folder / "wine"), "WINEDEBUG": "-all", "WINEDLLOVERRIDES": "mscoree,mshtml=",
            "ORT_DYLIB_PATH": str(wheel(folder / "wheel")),
        })  # fmt: skip
        library = Machine(here, "", [], {}).run("mpnet", "runtime", "install", "onnxruntime")
        here = Machine(here, "", [], {"ORT_DYLIB_PATH": library.strip().splitlines()[-1]})
        print(windows.run("mpnet", "doctor"))

        for case in CASES:
            windows.run("mpnet", "verify", "--engine", "session", "--case", REPOSITORY / "tests/data" / case)
            print(f"golden case {case} passes")

        saving = ("--save_steps", "4", "--keep-checkpoints", "2", "--eval-interval-steps", "8")
        runs = {}
        for name, machine in (("windows", windows), ("here", here)):
            (folder / name).mkdir()
            machine.run("pretrain-mpnet", *quick_start(*saving), folder=folder / name)
            runs[name] = losses(folder / name / RUN)
        if runs["windows"].keys() != runs["here"].keys() or len(runs["here"]) < UPDATES:
            fail(f"losses of {sorted(runs['windows'], key=str)} and {sorted(runs['here'], key=str)}")
        worst = max(abs(runs["windows"][key] - runs["here"][key]) for key in runs["here"])
        print(f"{len(runs['here'])} losses differ from this machine's by {worst:.1e} at most")
        if worst > TOLERANCE:
            fail("that is too much")

        straight = folder / "windows" / RUN
        for number, interrupts in ((signal.SIGKILL, False), (signal.SIGINT, True)):
            same_checkpoints(straight, disturbed(windows, folder, saving, number, interrupts))
            print(f"{number.name}, three times: resumed to the same bytes")

        for name, machine in (("windows", windows), ("here", here)):
            machine.run("convert-to-hf", "--mpnet-checkpoint-path", straight, "--hf-model-folder-path", folder / f"hf-{name}")
            machine.run("mpnet", "export", straight, "--output", folder / f"onnx-{name}", "--head", "sentence")
        for what in ("hf", "onnx"):
            a, b = contents(folder / f"{what}-windows"), contents(folder / f"{what}-here")
            if {name.replace("\\", "/"): bytes for name, bytes in a.items()} != b:
                fail(f"{what}: the files differ: {sorted(a)} and {sorted(b)}")
            print(f"{what}: {len(a)} files, the same bytes as this machine's")
        # All of Wine's processes end, so that its folder can go.
        subprocess.run(["wineserver", "-k"], env=windows.environment, check=False)


main()
