"""Forgetting over five domains: models that learn them one after the other, and the effect of levels.

    python -m scripts.experiments.continual.run --data ../shared/data  # trains, evaluates, writes the report
    python -m scripts.experiments.continual.run --data ../shared/data --train    # only trains; the same command resumes
    python -m scripts.experiments.continual.run --data ../shared/data --report-only
    python -m scripts.experiments.continual.run --data ../shared/data --out runs/trial --report /tmp/r.md --seeds 0

Every run is `python train.py experiment=domain_sequence ...` with the overrides that the report shows, trained one
after the other in this process with one CPU thread; <out>/<run> is its directory.
"""

import argparse
import sys
from pathlib import Path

import torch

from scripts.experiments.continual.report import write_report
from scripts.experiments.continual.trials import make_runs

ROOT = Path(__file__).parents[3]


def read_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder in which text/ is")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/continual"), help="where the runs are kept")
    parser.add_argument("--report", type=Path, default=ROOT / "reports/continual.md", help="figures/ goes next to it")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="overrides for every run")
    parser.add_argument("--train", action="store_true", help="train only")
    parser.add_argument("--report-only", action="store_true", help="neither train nor evaluate")
    return parser.parse_args()


def main() -> int:
    """Train, evaluate, write the report; return the exit status."""
    options = read_options()
    torch.set_num_threads(1)
    runs = make_runs(options.seeds, options.data, options.out, options.set)
    if not options.report_only:
        for each in runs:
            each.train()
            if not options.train:
                each.evaluate()
    if not options.train:
        seeds = " ".join(map(str, options.seeds))
        command = f"python -m scripts.experiments.continual.run --data {options.data} --seeds {seeds}"
        print(write_report(runs, options.report, command))
    return 0


if __name__ == "__main__":
    sys.exit(main())
