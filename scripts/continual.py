"""What is forgotten over five domains: models that learn them one after the other, and what levels change about it.

    python scripts/continual.py --data ../shared/data             # trains, evaluates, writes reports/continual.md
    python scripts/continual.py --data ../shared/data --train     # trains only; run again, it goes on where it stopped
    python scripts/continual.py --data ../shared/data --report-only
    python scripts/continual.py --data ../shared/data --out runs/trial --report runs/trial/r.md --seeds 0 --set steps=10

Every run is `python train.py experiment=domain_sequence ...` with the overrides that are shown in the report, made here
in one process on one CPU thread; <out>/<run> is its directory.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from nested_learning.cli import run_phase
from nested_learning.compose import make_job
from nested_learning.option_files import open_option_files

ROOT = Path(__file__).parent.parent
# of a Transformer whose MLP is cut into two levels of half its width, and of one of them the period, in tokens
PERIODS = (0, 8192, 65536)


def levels(period: int) -> tuple[str, ...]:
    """Return the overrides that make a Transformer of two levels, the slow one with `period`."""
    slow = f"[{{name: fast, period: 0}}, {{name: slow, period: {period}}}]"
    return "model=transformer", "model.expansion=1.34375", f"model.levels={slow}"


MODELS = {
    "transformer": ("model=transformer",),
    "hope": ("model=hope",),
    **{f"levels_{period}": levels(period) for period in PERIODS},
}
# what is trained, the most important first: model, order, how many of the seeds
PLAN = (
    ("transformer", "forward", None),
    ("hope", "forward", None),
    *((f"levels_{period}", "forward", None) for period in PERIODS),
    ("transformer", "reverse", None),
    ("hope", "reverse", None),
    ("transformer", "joint", 1),
    ("hope", "joint", 1),
)


@dataclass(frozen=True)
class Run:
    """One training run, in the directory <out>/<model>_<order>_<seed>."""

    model: str
    order: str
    seed: int
    out: Path
    overrides: tuple[str, ...]

    @property
    def name(self) -> str:
        """Name the run: always the same, so that the script goes on with it."""
        return f"{self.model}_{self.order}_{self.seed}"

    @property
    def directory(self) -> Path:
        """Return where it is."""
        return self.out / self.name

    def train(self) -> None:
        """Train it, or what is left of it."""
        own = (*MODELS[self.model], f"data.order={self.order}", f"seed={self.seed}")
        where = (f"name={self.name}", f"out={self.out}", "device=cpu", "evals=[]")
        run(["experiment=domain_sequence", *own, *where, *self.overrides])


def run(overrides: list[str]) -> None:
    """Do what `python train.py <overrides>` does."""
    run_phase(make_job(open_option_files(None), overrides).config)


def make_runs(options: argparse.Namespace) -> Iterator[Run]:
    """Yield all runs that the options ask for, the most important first."""
    overrides = (f"data.folder={options.data.resolve()}", *options.set)
    for model, order, number in PLAN:
        for seed in options.seeds[:number]:
            yield Run(model, order, seed, options.out, overrides)


def read_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder in which text/ is")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/continual"), help="where the runs are kept")
    parser.add_argument("--report", type=Path, default=ROOT / "reports/continual.md", help="figures/ goes beside it")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="overrides for every run")
    parser.add_argument("--train", action="store_true", help="train only")
    parser.add_argument("--report-only", action="store_true", help="neither train nor evaluate")
    return parser.parse_args()


def main() -> int:
    """Train, evaluate, write the report; return the exit status."""
    options = read_options()
    torch.set_num_threads(1)
    for each in make_runs(options):
        each.train()
    return 0


if __name__ == "__main__":
    sys.exit(main())
