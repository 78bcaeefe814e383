"""What the models can do: formal languages, MAD, associative recall, and an ablation of HOPE.

    python -m scripts.experiments.capabilities.run    # trains, evaluates, writes reports/capabilities.md
    python -m scripts.experiments.capabilities.run --part formal mad  # two of the four parts; the same command resumes
    python -m scripts.experiments.capabilities.run --report-only        # only the report, from existing runs
    python -m scripts.experiments.capabilities.run --quick --out runs/quick --report runs/quick/report.md

Runs are trained in --jobs processes with one CPU thread each; their output goes to <out>/<run>.log.
"""

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

from nested_learning.report.runs import use_one_thread, write_machine
from scripts.experiments.capabilities.report import write_report
from scripts.experiments.capabilities.steps import complete
from scripts.experiments.capabilities.trials import PARTS, QUICK, Trial

ROOT = Path(__file__).parents[3]
# trial, seed, and overrides besides those of the trial
Job = tuple[Trial, int, tuple[str, ...]]


def make_jobs(options: argparse.Namespace) -> list[Job]:
    """List the runs that the options select, seed by seed, so that the first results come early."""
    jobs = []
    for name in options.part:
        part = PARTS[name]
        quick = (*QUICK, *part.quick) if options.quick else ()
        seeds = options.seeds or (part.seeds[:1] if options.quick else part.seeds)
        for seed in seeds:
            jobs += [(trial, seed, (*quick, *options.set)) for trial in part.trials]
    return jobs


def complete_all(jobs: list[Job], out: Path, num_processes: int) -> list[str]:
    """Complete the runs, `num_processes` at a time; return the failures. Ctrl-C stops them all, each saved."""
    failures = []
    use_one_thread()
    # spawn, since a forked process shares torch's locks
    pool = ProcessPoolExecutor(num_processes, mp_context=get_context("spawn"))
    try:
        names = {pool.submit(complete, trial, seed, out, more): trial.name(seed) for trial, seed, more in jobs}
        for number, done in enumerate(as_completed(names), start=1):
            error = done.exception()
            if error is not None:
                failures.append(f"{names[done]}: {type(error).__name__}: {error}")
            print(f"{number}/{len(jobs)} {'failed' if error else 'done'}: {names[done]}", flush=True)
    finally:
        pool.shutdown(cancel_futures=True)
    return failures


def read_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--seeds", nargs="+", type=int, help="instead of the defaults of each part")
    parser.add_argument("--out", type=Path, default=Path("runs/capabilities"), help="where the runs are kept")
    parser.add_argument(
        "--report", type=Path, default=ROOT / "reports/capabilities.md", help="figures/ goes next to it"
    )
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one CPU thread each")
    parser.add_argument("--quick", action="store_true", help="tiny runs, to try the script; use another --out")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="overrides for every run")
    parser.add_argument("--report-only", action="store_true", help="train nothing")
    return parser.parse_args()


def main() -> int:
    """Complete the runs, write the report, return the exit status."""
    options = read_options()
    failures: list[str] = []
    if not options.report_only:
        options.out.mkdir(parents=True, exist_ok=True)
        write_machine(options.out, "scripts.experiments.capabilities.run", options.jobs)
        failures = complete_all(make_jobs(options), options.out, options.jobs)
    # failed runs are missing in the report; they are listed last
    print(write_report(options.out, options.report))
    if failures:
        print("failed:", *failures, sep="\n  ", file=sys.stderr)
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
