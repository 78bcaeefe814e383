"""Write the reports that are generated from runs.

python -m scripts.make_reports                  # all three, from runs/
python -m scripts.make_reports experiments      # docs/experiments_report.md: all evaluations of all runs
python -m scripts.make_reports ablations        # reports/ablations.md: the sweeps of runs/ablations
python -m scripts.make_reports stability        # docs/stability_journal.md: the runs of the stability experiment
python -m scripts.make_reports experiments --runs runs/needle --out /tmp/pages
"""

import argparse
import sys
from pathlib import Path

from nested_learning.errors import NestedLearningError
from nested_learning.report.experiments import write_experiments
from scripts.experiments.ablations.report import write_ablations
from scripts.experiments.stability.report import write_journal
from scripts.experiments.stability.trials import CASES

ROOT = Path(__file__).parents[1]
KINDS = ("experiments", "ablations", "stability")


def main() -> int:
    """Write the reports that the command line names; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"of {', '.join(KINDS)}; all without any")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where the runs are")
    parser.add_argument(
        "--only", nargs="+", metavar="FOLDER", help="of the experiments, those in these folders of --runs"
    )
    parser.add_argument("--out", type=Path, default=ROOT, help="the folder that has docs/ and reports/")
    options = parser.parse_args()
    if unknown := [kind for kind in options.kinds if kind not in KINDS]:
        parser.error(f"{unknown[0]}: no such report; there are {', '.join(KINDS)}")
    folders = [options.runs / name for name in options.only or ["."]]
    docs, reports = options.out / "docs", options.out / "reports"
    try:
        for kind in options.kinds or KINDS:
            match kind:
                case "experiments":
                    page = write_experiments(folders, docs / "experiments_report.md", reports / "figures")
                case "ablations":
                    page = write_ablations(options.runs / kind, reports / "ablations.md", reports / "figures")
                case _:
                    page = write_journal(CASES, options.runs / kind, docs / "stability_journal.md")
            print(f"written: {page}")
    except NestedLearningError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
