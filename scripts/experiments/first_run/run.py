"""The first experiments: text, recall and parity, every model under the same conditions.

    python -m scripts.experiments.first_run.run    # trains, evaluates, writes reports/first_run.md
    python -m scripts.experiments.first_run.run --parts recall     # one part; the same command resumes
    python -m scripts.experiments.first_run.run --report-only      # only the report, from existing runs
    python -m scripts.experiments.first_run.run --out runs/trial --report runs/trial/report.md --seeds 0 --steps 4

Every run is a `python train.py ...` in a process of its own, with one CPU thread; its output goes to <out>/<run>.log.
"""

import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from nested_learning.report.runs import write_machine
from scripts.experiments.first_run.report import write_report

ROOT = Path(__file__).parents[3]
TEXT_MODELS = ("transformer", "titans_lmm", "hope", "hope_attention")


@dataclass(frozen=True)
class Evaluation:
    """An evaluation of a trained model: the pack, its overrides, and the name under which its report is kept."""

    name: str
    pack: str
    overrides: tuple[str, ...]
    memory: str = "online"

    @property
    def file_name(self) -> str:
        """Return the stem of the file that the pack writes."""
        return self.pack if self.memory == "online" else f"{self.pack}_{self.memory}"


@dataclass(frozen=True)
class Part:
    """One part of the experiment: the overrides of each model, and the evaluations of the trained models."""

    experiment: str
    models: dict[str, tuple[str, ...]]
    evaluations: tuple[Evaluation, ...]


PARTS = {
    "text": Part(
        "first_run",
        {model: (f"model={model}",) for model in TEXT_MODELS},
        (Evaluation("perplexity", "perplexity", ("evals.perplexity.num_texts=128",)),),
    ),
    "recall": Part(
        "recall",
        {
            "hope": ("model=hope", "model.memory.chunk=16", "model.generating_chunk=16"),
            "titans_lmm": ("model=titans_lmm", "model.memory.chunk=16"),
            "transformer": ("model=transformer", "model.window=16"),
        },
        (
            *(Evaluation(f"gap_{gap}", "validation", (f"data.gap={gap}",)) for gap in (32, 128, 512)),
            Evaluation("frozen", "validation", (), memory="frozen"),
        ),
    ),
    "parity": Part(
        "parity",
        {
            "hope": ("model=hope", "model.memory.chunk=16", "model.generating_chunk=16"),
            "transformer": ("model=transformer",),
        },
        tuple(
            Evaluation(f"length_{low}_{high}", "validation", (f"data.min_length={low}", f"data.max_length={high}"))
            for low, high in ((2, 40), (41, 80), (150, 160))
        ),
    ),
}


@dataclass(frozen=True)
class Run:
    """One training run and the evaluations after it, in the directory <out>/<part>_<model>_<seed>."""

    part: str
    model: str
    seed: int
    out: Path
    overrides: tuple[str, ...]

    @property
    def name(self) -> str:
        """Return the name of the run; it is always the same, so that the script can resume."""
        return f"{self.part}_{self.model}_{self.seed}"

    def complete(self) -> str | None:
        """Train, then run the missing evaluations; return None, or the command that failed and where its output is."""
        part, directory = PARTS[self.part], self.out / self.name
        log = self.out / f"{self.name}.log"
        trained = [f"experiment={part.experiment}", *part.models[self.model], f"seed={self.seed}"]
        if failed := train_py([*trained, f"name={self.name}", f"out={self.out}", *self.overrides], log):
            return failed
        for evaluation in part.evaluations:
            report = directory / "evals" / f"{evaluation.name}.json"
            if report.exists():
                continue
            overrides = ["phase=eval", f"checkpoint={directory}", f"evals=[{evaluation.pack}]", *evaluation.overrides]
            overrides.append(f"memory={evaluation.memory}")
            if failed := train_py(overrides, log):
                return failed
            # evaluations of one pack write the same files; .json moves last, since it marks the evaluation as done
            for suffix in (".jsonl", ".json"):
                (report.parent / evaluation.file_name).with_suffix(suffix).rename(report.with_suffix(suffix))
        print(f"done: {self.name}", flush=True)
        return None


def train_py(overrides: list[str], log: Path) -> str | None:
    """Run `python train.py` with one thread, its output appended to `log`; return None, or the command if it failed."""
    command = [sys.executable, str(ROOT / "train.py"), *overrides, "device=cpu"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    with log.open("a", encoding="utf-8") as output:
        output.write(f"$ {shlex.join(command)}\n")
        output.flush()
        done = subprocess.run(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
    return f"{shlex.join(command)} (see {log})" if done.returncode else None


def make_runs(options: argparse.Namespace) -> Iterator[Run]:
    """Yield the runs that the options select, seed by seed, so that the first results come early."""
    overrides = tuple(options.set) + (() if options.steps is None else (f"steps={options.steps}",))
    for part in options.parts:
        for seed in options.seeds:
            for model in PARTS[part].models:
                yield Run(part, model, seed, options.out, overrides)


def complete(runs: list[Run], jobs: int) -> list[str]:
    """Complete the runs, `jobs` at a time; return the failures. Ctrl-C stops them all; each saves first."""
    pool = ThreadPoolExecutor(jobs)
    try:
        return [failed for failed in pool.map(Run.complete, runs) if failed is not None]
    finally:
        pool.shutdown(cancel_futures=True)


def read_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/first_run"), help="where the runs are kept")
    parser.add_argument("--report", type=Path, default=ROOT / "reports/first_run.md", help="figures/ goes next to it")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one CPU thread each")
    parser.add_argument("--steps", type=int, help="fewer steps, to try the script; use another --out")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="overrides for every run")
    parser.add_argument("--report-only", action="store_true", help="train nothing")
    return parser.parse_args()


def main() -> int:
    """Complete the runs, write the report, return the exit status."""
    options = read_options()
    if not options.report_only:
        options.out.mkdir(parents=True, exist_ok=True)
        write_machine(options.out, "scripts.experiments.first_run.run", options.jobs)
        if failures := complete(list(make_runs(options)), options.jobs):
            print("failed:", *failures, sep="\n  ", file=sys.stderr)
            return 1
    print(write_report(options.out, options.report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
