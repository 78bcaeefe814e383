"""Send stop signals to runs, sweeps and evaluations at random moments; check that what is printed then goes on.

    python -m scripts.benchmarks.signals    # all kinds of work: reports/signals.md
    python -m scripts.benchmarks.signals --work run sweep --points 20 --report none

The work is a whole run of 60 steps, a sweep of two runs, an evaluation, a sweep with two jobs at a time
(launcher=joblib), and a run of two processes (torchrun). It starts in a session of its own. SIGINT, SIGTERM, SIGHUP or
SIGUSR1 is sent once, twice or three times, up to 0.3 seconds apart, to the process, to its children, or to all of them:
one time in four in the first two seconds, else after a random line of the metrics or answers that it writes. Afterwards
  - the process has ended with status 130 and one line, or has finished its work; there is no traceback;
  - no process of its session is left;
  - the command that it printed, or else the same command, ends with the bytes of undisturbed work.
"""

import argparse
import os
import random
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from nested_learning.report.text import command_line

ROOT = Path(__file__).parents[2]
REPORT = ROOT / "reports" / "signals.md"
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
SMALL = "model=transformer model.dim=16 model.num_layers=1 model.num_heads=1 data=copy data.length=4 data.batch_size=2"
SMALL += " data.val_rows=4 device=cpu backend=eager steps=60 save_every=10 val_every=7 log_every=1 out=runs name=a"
TORCHRUN = [str(Path(sys.executable).with_name("torchrun")), "--standalone", "--nproc-per-node=2"]
SECONDS = 120.0


@dataclass(frozen=True)
class Work:
    """What is interrupted: a command line, what prepares it, and the files that it must end with."""

    lines: str
    files: tuple[str, ...]
    before: str = ""
    starts: Sequence[str] = (sys.executable,)
    targets: tuple[str, ...] = ("process", "all")


RUN = ("runs/a/checkpoints/step_00000060/*.safetensors", "runs/a/metrics.jsonl")
SWEEP = ("runs/a/*/checkpoints/step_00000060/*.safetensors", "runs/a/results.csv", "runs/a/*/metrics.jsonl")
EVALUATION = "phase=eval checkpoint=runs/a data=copy data.length=4 data.val_rows=64 data.batch_size=2 device=cpu"
WORK = {
    "run": Work(SMALL, RUN),
    "sweep": Work(f"-m {SMALL} seed=0,1", SWEEP),
    "evaluation": Work(f"{EVALUATION} evals=validation", ("runs/a/evals/validation.jsonl",), before=SMALL),
    "joblib": Work(
        f"-m {SMALL} seed=0,1 launcher=joblib launcher.n_jobs=2", SWEEP, targets=("process", "children", "all")
    ),
    "torchrun": Work(SMALL, RUN, starts=TORCHRUN, targets=("process", "children", "all")),
}


class Sent(NamedTuple):
    """Signals: which, how often, to whom, `delay` seconds after so many lines are written, and `gap` seconds apart."""

    number: signal.Signals
    times: int
    target: str
    lines: int
    delay: float
    gap: float

    def __str__(self) -> str:
        times = f"{self.number.name} {self.times} times to {self.target}"
        return f"{times}, {self.delay:.2f} s after line {self.lines}, {self.gap:.2f} s apart"

    def send(self, process: "subprocess.Popen[bytes]", folder: Path) -> None:
        """Send them to `process`, its children, or both; it writes its lines in `folder`."""
        while process.poll() is None and count_lines(folder) < self.lines:
            time.sleep(0.001)
        time.sleep(self.delay)
        pid = process.pid
        for _ in range(self.times):
            children = [] if self.target == "process" else children_of(pid)
            for each in children if self.target == "children" else [pid, *children]:
                with suppress(ProcessLookupError):
                    os.kill(each, self.number)
            time.sleep(self.gap)


@dataclass
class Results:
    """What was tried with one kind of work, how it ended, and what was wrong."""

    tried: Counter[str] = field(default_factory=Counter)
    ended: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


def main() -> int:
    """Interrupt the selected work, write the report, return whether anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", nargs="+", choices=WORK, default=list(WORK))
    parser.add_argument("--points", type=int, default=40, help="of each kind of work")
    parser.add_argument("--seed", type=int, default=0, help="of the signals and the moments")
    parser.add_argument("--report", default=str(REPORT), help="where the report goes; none for nowhere")
    options = parser.parse_args()
    results = {}
    for name in options.work:
        results[name] = interrupt_often(WORK[name], random.Random(f"{name} {options.seed}"), options.points)
    lines = describe(results)
    print("\n".join(lines))
    if options.report != "none":
        Path(options.report).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return int(any(each.wrong for each in results.values()))


def interrupt_often(work: Work, pick: random.Random, points: int) -> Results:
    """Do the work undisturbed, then interrupted at `points` moments."""
    results = Results()
    with tempfile.TemporaryDirectory() as folder:
        whole = Trial(work, Path(folder))
        before = count_lines(whole.folder)
        assert whole.run(work.lines)[0] == 0, whole.output()
        after, right = count_lines(whole.folder), whole.results()
    for _ in range(points):
        number, times, target = pick.choice(SIGNALS), pick.randint(1, 3), pick.choice(work.targets)
        is_early = pick.random() < 0.25
        lines, delay = (0, pick.uniform(0, 2)) if is_early else (pick.randint(before + 1, after), pick.uniform(0, 0.02))
        sent = Sent(number, times, target, lines, delay, pick.uniform(0, 0.3))
        results.tried[f"{number.name} {times} times to {target}"] += 1
        with tempfile.TemporaryDirectory() as folder:
            trial = Trial(work, Path(folder))
            status, _ = trial.run(work.lines, sent)
            how, wrong = trial.judge(status)
            results.ended[how] += 1
            if not wrong and status != 0:
                wrong = trial.resume(right)
        results.wrong += [f"{sent}: {each}" for each in wrong]
        print(f"{sent}: {how} {wrong or ''}", file=sys.stderr, flush=True)
    return results


class Trial:
    """The work in a folder of its own."""

    def __init__(self, work: Work, folder: Path) -> None:
        self.work, self.folder = work, folder
        if work.before:
            assert self.run(work.before)[0] == 0, self.output()

    def run(self, lines: str, sent: Sent | None = None) -> tuple[int, str]:
        """Run the command `lines` to its end, or until signals end it; return its status and its output."""
        # the whole path, by which processes that are left behind are found
        lines = lines.replace("=runs", f"={self.folder}/runs")
        command = [*self.work.starts, str(ROOT / "train.py"), *shlex.split(lines)]
        given = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        with (self.folder / "output").open("wb") as file:
            process = subprocess.Popen(
                command, cwd=self.folder, env=given, stdout=file, stderr=file, start_new_session=True
            )
        if sent is not None:
            sent.send(process, self.folder)
        try:
            status = process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            status = process.wait()
        return status, self.output()

    def output(self) -> str:
        """Return what the last command printed."""
        return (self.folder / "output").read_text(encoding="utf-8", errors="replace")

    def judge(self, status: int) -> tuple[str, list[str]]:
        """Return how the work ended, and what was wrong with that."""
        said, wrong = self.output(), []
        # torchrun itself reports a signal with a traceback
        if "Traceback" in said and self.work.starts is not TORCHRUN:
            wrong.append(f"a traceback: {said[-3000:]}")
        deadline = time.monotonic() + SECONDS
        # those of torchrun save after it has ended
        while left := subprocess.run(["pgrep", "-f", str(self.folder)], capture_output=True, text=True).stdout:
            if time.monotonic() > deadline:
                wrong.append(f"left behind: {left.split()}")
                break
            time.sleep(0.1)
        if status == 0:
            return "done", wrong
        if "stopped at step" in said:
            return "stopped and saved", wrong
        if "interrupted" in said:
            return "interrupted", wrong
        if status < 0 and not said:
            return "ended before the first line of Python", wrong
        if self.work.starts is TORCHRUN:
            return "ended by torchrun before training", wrong
        # Python reports a Ctrl-C before the first line of a program with a traceback
        if "KeyboardInterrupt" in said and "nested_learning" not in said.replace(
            str(ROOT / "nested_learning/__init__.py"), ""
        ):
            return "ended before the first line of Python", []
        return f"status {status}", [*wrong, f"status {status}: {said[-2000:]}"]

    def resume(self, right: dict[str, str]) -> list[str]:
        """Run the command that was printed, else the same one; return what is not as in undisturbed work."""
        _, found, printed = self.output().rpartition("resume with: ")
        lines = self.work.lines
        if found:
            words = shlex.split(printed.splitlines()[0])
            lines = shlex.join(words[next(i for i, word in enumerate(words) if word.endswith("train.py")) + 1 :])
        status, said = self.run(lines)
        if status:
            return [f"the command {lines} ended with status {status}: {said[-2000:]}"]
        now = self.results()
        return [f"{name} differs" for name in right.keys() | now.keys() if right.get(name) != now.get(name)]

    def results(self) -> dict[str, str]:
        """Return the sha256 of the files of the work, without what depends on the clock."""
        found = {}
        for pattern in self.work.files:
            for path in sorted(self.folder.glob(pattern)):
                text = path.read_bytes()
                if path.suffix == ".jsonl" and "evals" not in path.parts:
                    text = b"\n".join(line.partition(b', "perf/')[0] for line in text.splitlines())
                found[str(path.relative_to(self.folder))] = sha256(text).hexdigest()
        return found


def count_lines(folder: Path) -> int:
    """Count the lines of metrics and answers in the runs of `folder`."""
    runs = folder / "runs" / "a"
    # not below: the drafts of checkpoints come and go there
    paths = [*runs.glob("*.jsonl"), *runs.glob("evals/*.jsonl"), *runs.glob("seed*/*.jsonl")]
    return sum(path.read_bytes().count(b"\n") for path in paths)


def children_of(pid: int) -> list[int]:
    """Return the processes that process `pid` has started."""
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True)
    return [int(each) for each in found.stdout.split()]


def describe(results: dict[str, Results]) -> list[str]:
    """Return the lines of the report."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], stdout=subprocess.PIPE, text=True).stdout.strip()
    total = sum(each.tried.total() for each in results.values())
    failed = sum(len(each.wrong) for each in results.values())
    lines = [
        "# Stop signals at random moments",
        "",
        f"`{command_line('scripts.benchmarks.signals')}`, commit {commit}.",
        "",
    ]
    lines += (__doc__ or "").splitlines()[5:]
    lines += ["", f"**{total} interruptions, {failed} failures.**", ""]
    for name, each in results.items():
        lines += [f"## {name}", "", f"`{WORK[name].lines}`", ""]
        lines += [f"- tried: {', '.join(f'{what} ({count})' for what, count in sorted(each.tried.items()))}"]
        lines += [f"- {how}: {count}" for how, count in sorted(each.ended.items())]
        lines += [f"- **wrong**: {wrong}" for wrong in each.wrong[:20]] + [""]
    return lines


if __name__ == "__main__":
    sys.exit(main())
