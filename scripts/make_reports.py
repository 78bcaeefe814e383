"""Write the reports that are made of runs: no number in them is typed.

python scripts/make_reports.py                       # all three, from runs/
python scripts/make_reports.py experiments           # docs/experiments_report.md: all that was asked of all runs
python scripts/make_reports.py ablations             # reports/ablations.md: the sweeps of runs/ablations
python scripts/make_reports.py stability             # docs/stability_journal.md: the runs of scripts/stability.py
python scripts/make_reports.py experiments --runs runs/needle --out /tmp/pages
"""

import argparse
import sys
from pathlib import Path

from ablations_report import write_ablations
from stability import CASES, run_name
from stability_report import write_journal

from nested_learning.errors import NestedLearningError
from nested_learning.report.experiments import write_experiments

ROOT = Path(__file__).parent.parent
KINDS = ("experiments", "ablations", "stability")


def main() -> int:
    """Write what the command line asks for; return the exit status."""
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
                    page = write_journal(CASES, options.runs / kind, docs / "stability_journal.md", run_name)
            print(f"written: {page}")
    except NestedLearningError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
