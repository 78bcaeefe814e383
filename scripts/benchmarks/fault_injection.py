"""Kill a process, or fill its disk, at every file operation of a save; check that the run resumes to the same bytes.

    python -m scripts.benchmarks.fault_injection    # every point of every workload: reports/fault_injection.md
    python -m scripts.benchmarks.fault_injection --workloads save --points 40 --report none

A preloaded shim in C (fault_injection.c, compiled by `cc`) counts the calls that change files below the run directory:
open for writing, write, truncate, fsync, rename, link, unlink, mkdir, rmdir. For each such point a forked process does
the work and fails there, in one of four ways: `kill` before the operation; `torn`: half of a write, then the kill;
`full`: from there on no write, file or directory finds space; `once`: only this operation finds no space. Afterwards
  - the checkpoint that `latest` names verifies, and so does the one before the save;
  - a full disk ended the process with one line that says how to resume, not with a traceback;
  - the same work, started again, ends with the bytes and the trace of undisturbed work, and leaves no partial files.
"""

import argparse
import ctypes
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from nested_learning.report.text import command_line

REPORT = Path(__file__).parents[2] / "reports" / "fault_injection.md"
SHIM = Path(__file__).with_suffix(".c")
MODES = {"kill": "k", "torn": "t", "full": "f", "once": "o"}
REFUSED, BROKEN = 2, 3


class Point(NamedTuple):
    """One failure: how, before which operation (1, 2, ...), and what that operation is."""

    mode: str
    number: int
    operation: str


class Outcome(NamedTuple):
    """The outcome of a point: how the process ended, the step that the run resumes from, and what was wrong."""

    point: Point
    ended: str
    step: int
    wrong: list[str]


def main() -> None:
    """Compile the shim, fail the selected points in a process that has it preloaded, write the report."""
    options = read_arguments()
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        print("nothing done: this needs Linux and a C compiler, cc")
        return
    if options.worker:
        print(json.dumps(work_through(options)))
        return
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "shim.so"
        subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, SHIM, "-ldl"], check=True)
        environment = os.environ | {"LD_PRELOAD": str(library), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "scripts.benchmarks.fault_injection", "--worker", *sys.argv[1:]]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    results = json.loads(done.stdout.splitlines()[-1])
    lines = describe(results)
    print("\n".join(lines))
    if options.report != "none":
        Path(options.report).write_text("\n".join(lines) + "\n")
    if any(workload["wrong"] for workload in results.values()):
        sys.exit(1)


def read_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workloads", nargs="+", choices=["save", "again", "run"], default=["save", "again", "run"])
    parser.add_argument("--points", type=int, help="of each workload, picked at random; all of them by default")
    parser.add_argument("--report", default=str(REPORT), help="where the report goes; none for nowhere")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def work_through(options: argparse.Namespace) -> dict[str, Any]:
    """Fail the points of every workload; return what is to be reported. The shim is preloaded here, and asleep."""
    import torch

    from scripts.benchmarks.fault_workloads import WORKLOADS

    torch.set_num_threads(1)
    if "run" in options.workloads:
        # what every forked process would otherwise import again; the counter of operations wants the compiler
        for module in ("torch._dynamo", "nested_learning.phase.train"):
            import_module(module)
    results = {}
    for name in options.workloads:
        start = time.process_time()
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            trial = Trial(WORKLOADS[name](place), place)
            points = trial.points()
            chosen = points if options.points is None else random.Random(0).sample(points, options.points)
            outcomes = [trial.fail(point) for point in chosen]
        results[name] = {
            "what": trial.workload.what,
            "operations": Counter(point.operation for point in points if point.mode == "kill"),
            "points": Counter(outcome.point.mode for outcome in outcomes),
            "ended": Counter(f"{outcome.point.mode}: {outcome.ended}" for outcome in outcomes),
            "steps": Counter(f"{outcome.point.mode}: {outcome.step}" for outcome in outcomes),
            "wrong": [f"{outcome.point}: {wrong}" for outcome in outcomes for wrong in outcome.wrong],
            "cpu_seconds": time.process_time() - start + os.times().children_user + os.times().children_system,
        }
    return results


class Trial:
    """A workload, what it ends with when it is left alone, and what its folder looked like before."""

    def __init__(self, workload: Any, place: Path) -> None:
        from scripts.benchmarks import fault_workloads

        self.workload, self.files = workload, fault_workloads
        self.template, self.folder = place / "template", place / "folder"
        self.notes = place / "notes"
        workload.prepare(self.template)
        self.files.copy(self.template, self.folder)
        self.run(self.folder, None)
        self.expected = self.files.result(workload, self.folder)
        assert self.expected["step"] == workload.last

    def points(self) -> list[Point]:
        """Count the operations of the undisturbed work, and name every way to fail it."""
        self.files.copy(self.template, self.folder)
        self.run(self.folder, Point("kill", 0, ""))
        operations = [line.split()[0] for line in self.notes.read_text().splitlines()]
        points = []
        for number, operation in enumerate(operations, 1):
            points.append(Point("kill", number, operation))
            if operation == "write":
                points.append(Point("torn", number, operation))
            if operation in ("open", "write", "ftruncate", "mkdir", "link"):
                points += [Point("full", number, operation), Point("once", number, operation)]
        return points

    def fail(self, point: Point) -> Outcome:
        """Do the work in a process that fails at `point`; return the state afterwards, and whether the work resumes."""
        self.files.copy(self.template, self.folder)
        status, said = self.run(self.folder, point)
        ended = describe_end(status)
        wrong = []
        if point.mode in ("kill", "torn") and ended != "killed":
            wrong.append(f"was not killed but {ended}: {said}")
        if ended == "broken" or (ended == "refused" and not is_a_way_out(said)):
            wrong.append(said)
        step = self.look(wrong)
        again, said = self.run(self.folder, None)
        if again != 0:
            wrong.append(f"does not resume: {said}")
        elif (now := self.files.result(self.workload, self.folder)) != self.expected:
            wrong.append(f"resumes to other bytes: {now}")
        folder = self.folder / self.workload.run
        if left := [path.name for path in folder.rglob("*") if ".tmp" in path.name or ".draft" in path.name]:
            wrong.append(f"left behind: {left}")
        return Outcome(point, ended, step, wrong)

    def look(self, wrong: list[str]) -> int:
        """Verify the checkpoints; return the step that the run resumes from, 0 for none."""
        from nested_learning import checkpoint

        run = self.folder / self.workload.run
        if not checkpoint.has_checkpoint(run):
            if self.workload.before:
                wrong.append("no checkpoint is named")
            return 0
        results = checkpoint.find(run)
        checkpoint.verify(results)
        step = checkpoint.read_progress(results).step
        if self.workload.before and step not in (*self.workload.before, self.workload.last):
            wrong.append(f"resumes from step {step}")
        if self.workload.name != "run":
            # the one before the save, whichever is named now
            checkpoint.verify(run / "checkpoints" / "step_00000002")
        return step

    def run(self, folder: Path, point: Point | None) -> tuple[int, str]:
        """Do the work in a forked process, failed at `point`; return its wait status and what it said."""
        self.notes.write_bytes(b"")
        child = os.fork()
        if child:
            return os.waitpid(child, 0)[1], self.notes.read_text()
        notes = os.open(self.notes, os.O_WRONLY)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(notes, 2)
        status = BROKEN
        try:
            status = self.child(folder, point, notes)
        finally:
            os._exit(status)

    def child(self, folder: Path, point: Point | None, notes: int) -> int:
        """Be the forked process; return its exit status."""
        from nested_learning.errors import NestedLearningError

        shim: Callable[..., None] = ctypes.CDLL(None).fault_arm
        if point is not None:
            record = notes if point.number == 0 else -1
            shim(str(folder / self.workload.run).encode(), ctypes.c_long(point.number), ord(MODES[point.mode]), record)
        try:
            self.workload.work(folder)
        except SystemExit as refused:
            # the command line has said on stderr what is wrong
            return int(refused.code or 0)
        except NestedLearningError as error:
            os.write(notes, str(error).encode())
            return REFUSED
        # the forked process ends with os._exit, which prints no traceback: whatever was raised goes into the report
        except BaseException:  # noqa: BLE001
            os.write(notes, traceback.format_exc().encode())
            return BROKEN
        return 0


def is_a_way_out(said: str) -> bool:
    """Return whether `said` is one line that names the full disk and how to resume, or to start if there is no run."""
    ways = ("the same command again", "give another out=")
    return said.count("\n") <= 1 and "No space left" in said and any(way in said for way in ways)


def describe_end(status: int) -> str:
    """Say how a process ended."""
    if os.WIFSIGNALED(status):
        return "killed" if os.WTERMSIG(status) == signal.SIGKILL else f"signal {os.WTERMSIG(status)}"
    return {0: "done", REFUSED: "refused", BROKEN: "broken"}[os.WEXITSTATUS(status)]


def describe(results: dict[str, Any]) -> list[str]:
    """Return the lines of the report."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], stdout=subprocess.PIPE, text=True).stdout.strip()
    total = sum(sum(workload["points"].values()) for workload in results.values())
    failed = sum(len(workload["wrong"]) for workload in results.values())
    lines = [
        "# Checkpoints under fault injection",
        "",
        f"`{command_line('scripts.benchmarks.fault_injection')}`, commit {commit}.",
        "",
    ]
    lines += (__doc__ or "").splitlines()[5:]
    lines += ["", f"**{total} points, {failed} failures.**", ""]
    for name, workload in results.items():
        ways = ", ".join(f"{count} {mode}" for mode, count in workload["points"].items())
        lines += [
            f"## {name}: {workload['what']}",
            "",
            f"- operations: {', '.join(f'{count} {each}' for each, count in workload['operations'].items())}",
            f"- points: {ways}; {workload['cpu_seconds']:.0f} CPU-seconds",
            f"- the process ended: {', '.join(f'{each} {count}' for each, count in sorted(workload['ended'].items()))}",
            f"- it resumes from step: {', '.join(f'{e} {count}' for e, count in sorted(workload['steps'].items()))}",
            *(f"- **wrong**: {wrong}" for wrong in workload["wrong"][:20]),
            "",
        ]
    return lines


if __name__ == "__main__":
    main()
