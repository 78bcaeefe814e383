"""`python -m nested_learning.report`: the page of a run, or of what was asked of many runs; `--to`: in another tool."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from nested_learning.checkpoint import CONFIG
from nested_learning.errors import ConfigError, NestedLearningError
from nested_learning.report.experiments import PAGE, write_experiments
from nested_learning.report.page import FOLDER, write_page
from nested_learning.report.replay import PROJECTIONS, replay


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line asks; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m nested_learning.report", description=__doc__)
    parser.add_argument("run", type=Path, help="the directory of a run, which may still be training; or one of runs")
    parser.add_argument("--to", choices=[*PROJECTIONS], help="write all figures of a run anew to this instead")
    parser.add_argument("--page", type=Path, help=f"of many runs: the page, instead of <run>/{FOLDER}/{PAGE}")
    parser.add_argument(
        "--figures", type=Path, help="of many runs: where plots go, instead of figures/ beside the page"
    )
    given = parser.parse_args(arguments)
    try:
        if given.to is not None:
            print(f"{given.to}: {replay(given.run, given.to)} lines")
        elif (given.run / CONFIG).is_file() or not any(given.run.glob(f"*/**/{CONFIG}")):
            if given.page or given.figures:
                raise ConfigError(f"{given.run} is one run: --page and --figures are for a folder of runs")
            print(f"written: {write_page(given.run)}")
        else:
            page = given.page or given.run / FOLDER / PAGE
            print(f"written: {write_experiments(given.run, page, given.figures or page.parent / 'figures')}")
    except NestedLearningError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
