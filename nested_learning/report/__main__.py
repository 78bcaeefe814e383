"""`python -m nested_learning.report`: the page of a run, or of the evaluations of many; `--to`: export to a tool."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from nested_learning.checkpoint import CONFIG
from nested_learning.errors import ConfigError, NestedLearningError
from nested_learning.report.experiments import PAGE, write_experiments
from nested_learning.report.page import FOLDER, write_page
from nested_learning.report.replay import PROJECTIONS, replay
from nested_learning.streams import run_process


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the report that the command line names; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m nested_learning.report", description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="a run, which may still be training; or folders of runs")
    parser.add_argument("--to", choices=[*PROJECTIONS], help="write all metrics of a run to this instead")
    parser.add_argument("--page", type=Path, help=f"of many runs: the page, instead of <runs>/{FOLDER}/{PAGE}")
    parser.add_argument(
        "--figures", type=Path, help="of many runs: where plots go, instead of figures/ beside the page"
    )
    given = parser.parse_args(arguments)
    run, *others = given.runs
    is_one = not others and ((run / CONFIG).is_file() or not any(run.glob(f"*/**/{CONFIG}")))
    try:
        if is_one and (given.page or given.figures):
            raise ConfigError(f"{run} is no folder of runs, which --page and --figures are for; leave them out")
        if not is_one and given.to is not None:
            raise ConfigError(f"--to {given.to} is for one run; leave it out, or give the directory of a run")
        if given.to is not None:
            print(f"{given.to}: {replay(run, given.to)} lines")
        elif is_one:
            print(f"written: {write_page(run)}")
        else:
            page = given.page or run / FOLDER / PAGE
            print(f"written: {write_experiments(given.runs, page, given.figures or page.parent / 'figures')}")
    except NestedLearningError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    run_process(main)
