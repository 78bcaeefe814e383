"""`python -m nested_learning.report RUN`: the page of a run; with `--to`, its figures in another tool."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from nested_learning.errors import NestedLearningError
from nested_learning.report.page import write_page
from nested_learning.report.replay import PROJECTIONS, replay


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line asks; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m nested_learning.report", description=__doc__)
    parser.add_argument("run", type=Path, help="the directory of a run, which may still be training")
    parser.add_argument("--to", choices=[*PROJECTIONS], help="write all of its figures anew to this instead")
    given = parser.parse_args(arguments)
    try:
        if given.to is None:
            print(f"written: {write_page(given.run)}")
        else:
            print(f"{given.to}: {replay(given.run, given.to)} lines")
    except NestedLearningError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
