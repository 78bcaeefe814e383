"""What is forgotten over five domains: models that learn them one after the other, and what levels change about it.

    python scripts/continual.py --data ../shared/data             # trains, evaluates, writes reports/continual.md
    python scripts/continual.py --data ../shared/data --train     # trains only; run again, it goes on where it stopped
    python scripts/continual.py --data ../shared/data --report-only
    python scripts/continual.py --data ../shared/data --out runs/trial --report runs/trial/r.md --seeds 0 --set steps=10

Every run is `python train.py experiment=domain_sequence ...` with the overrides that are shown in the report, made here
in one process on one CPU thread; <out>/<run> is its directory.
"""

import argparse
import shlex
import sys
from pathlib import Path

import torch
from continual_report import write_report
from continual_runs import make_runs

ROOT = Path(__file__).parent.parent


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
    runs = make_runs(options.seeds, options.data, options.out, options.set)
    if not options.report_only:
        for each in runs:
            each.train()
            if not options.train:
                each.evaluate()
    if not options.train:
        command = f"python scripts/continual.py --data {options.data} --seeds {shlex.join(map(str, options.seeds))}"
        print(write_report(runs, options.report, command))
    return 0


if __name__ == "__main__":
    sys.exit(main())
