"""Recall a fact after its context is removed: memorize it, clear the context, query it.

    python -m scripts.experiments.needle.run    # trains, evaluates, writes reports/needle.md; the same command resumes
    python -m scripts.experiments.needle.run --report-only    # only the report, from existing evaluations
    python -m scripts.experiments.needle.run --out runs/trial --report runs/trial/report.md --seeds 0 --set steps=20

Every model is trained by `python train.py experiment=needle ...` in a process of its own. The evaluations are commands
`phase=eval evals=needle`, run one after the other in this process.
"""

import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from nested_learning.command.main import main as nested_learning
from nested_learning.report.text import command_line
from scripts.experiments.needle.report import QUANTILES, tau_at, write_report

ROOT = Path(__file__).parents[3]
# Titans and HOPE write the memories of their mixers; the Transformer takes gradient steps on its MLPs
MODELS = {
    "titans_lmm": ("model=titans_lmm", "model.memory.chunk=16"),
    "hope": ("model=hope", "model.memory.chunk=16", "model.generating_chunk=16"),
    "transformer": ("model=transformer",),
}
MEMORIZE = {
    "titans_lmm": ("memory.levels=[titan]",),
    "hope": ("memory.levels=[titan]",),
    "transformer": ("memory.levels=[mlp]", "memory.steps=20", "memory.lr=0.3"),
}
STEPS = {"titans_lmm": (1, 2, 4), "hope": (1, 2), "transformer": (1, 5, 20)}
RATES = {"titans_lmm": (0.25, 0.5, 1.0, 2.0), "hope": (0.5, 1.0, 2.0), "transformer": (0.1, 0.3, 1.0, 3.0)}
# the model whose surprise threshold is swept; thresholds are measured on examples of other seeds, from this one on
GATED, OTHER_SEEDS = "titans_lmm", 1000


@dataclass(frozen=True)
class Evaluation:
    """An evaluation of a trained model: the name under which its report is kept, and its overrides."""

    name: str
    overrides: tuple[str, ...]


def evaluations(model: str) -> Iterator[Evaluation]:
    """Yield the evaluations of a model, the most important first, but for those of the thresholds."""
    yield Evaluation("main", (*MEMORIZE[model], "evals.needle.num_examples=128"))
    yield Evaluation("three_facts", (*MEMORIZE[model], "evals.needle.num_examples=64", "evals.needle.num_facts=3"))
    for steps in STEPS[model]:
        for rate in RATES[model]:
            overrides = (
                MEMORIZE[model][0],
                f"memory.steps={steps}",
                f"memory.lr={rate}",
                "evals.needle.num_examples=64",
            )
            yield Evaluation(f"steps_{steps}_lr_{rate}", overrides)


def evaluate(run: Path, evaluation: Evaluation) -> None:
    """Evaluate a run unless that is done; keep the report of memory=memorize, and that of memory=online next to it."""
    report = run / "evals" / f"{evaluation.name}.json"
    if report.exists():
        return
    lines = ["phase=eval", f"checkpoint={run}", "evals=needle", "memory=memorize", "device=cpu", *evaluation.overrides]
    if status := nested_learning(lines):
        sys.exit(f"failed with {status}: python train.py {shlex.join(lines)}")
    for suffix in (".jsonl", ".json"):
        for policy in ("", "_memorize"):
            kept = report.with_name(f"{evaluation.name}{'_online' * (not policy)}{suffix}")
            report.with_name(f"needle{policy}{suffix}").rename(kept)


def sweep_thresholds(run: Path, seed: int) -> None:
    """Evaluate with surprise thresholds at quantiles of the surprise of other examples."""
    size = "evals.needle.num_examples=512"
    evaluate(run, Evaluation("measured", (*MEMORIZE[GATED], size, f"seed={OTHER_SEEDS + seed}")))
    evaluate(run, Evaluation("tau_0", (*MEMORIZE[GATED], size)))
    evaluate(run, Evaluation("tau_inf", (*MEMORIZE[GATED], size, "memory.surprise_threshold=inf")))
    for quantile in QUANTILES:
        tau = tau_at(run, quantile)
        evaluate(run, Evaluation(f"tau_{quantile}", (*MEMORIZE[GATED], size, f"memory.surprise_threshold={tau!r}")))


def train(model: str, seed: int, out: Path, overrides: list[str]) -> Path:
    """Train a model unless its run is finished; return the run directory."""
    run = out / f"{model}_{seed}"
    if not (run / "summary.json").exists():
        line = ["experiment=needle", *MODELS[model], f"seed={seed}", f"name={run.name}", f"out={out}", "device=cpu"]
        command = [sys.executable, str(ROOT / "train.py"), *line, *overrides]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    return run


def read_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--out", type=Path, default=Path("runs/needle"), help="where the runs are kept")
    parser.add_argument("--report", type=Path, default=ROOT / "reports/needle.md", help="figures/ goes next to it")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="overrides for training")
    parser.add_argument("--report-only", action="store_true", help="train and evaluate nothing")
    return parser.parse_args()


def main() -> int:
    """Train and evaluate, seed by seed, and write the report."""
    options = read_options()
    if not options.report_only:
        torch.set_num_threads(1)
        runs = {(m, seed): train(m, seed, options.out, options.set) for seed in options.seeds for m in options.models}
        # the most important evaluation of all runs first
        rounds = {model: list(evaluations(model)) for model in options.models}
        for position in range(max(map(len, rounds.values()))):
            for (model, seed), run in runs.items():
                if position < len(rounds[model]):
                    evaluate(run, rounds[model][position])
                if position == 0 and model == GATED:
                    sweep_thresholds(run, seed)
    command = command_line("scripts.experiments.needle.run", without=["--report-only"])
    print(write_report(options.out, options.report, command))
    return 0


if __name__ == "__main__":
    sys.exit(main())
