"""What memories are for: answers outside the window, number of pairs a state holds, states that a window cannot track.

    python -m scripts.experiments.beyond_window.run    # trains, evaluates, writes reports/beyond_window.md
    python -m scripts.experiments.beyond_window.run --part gap --seeds 0    # one part; the same command resumes
    python -m scripts.experiments.beyond_window.run --report-only           # only the report, from existing runs
    python -m scripts.experiments.beyond_window.run --quick --out runs/quick --report runs/quick/report.md

Runs are trained one after the other with one CPU thread; their output goes to <out>/<run>.log. The tasks are synthetic:
no data is needed.
"""

import argparse
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from nested_learning.command.compose import make_job
from nested_learning.config.option_files import open_option_files
from nested_learning.report import SUMMARY
from nested_learning.report.runs import last_of_each_key, refuse_other_settings, use_one_thread, write_machine
from scripts.experiments.beyond_window.report import write_report
from scripts.experiments.beyond_window.trials import PARTS, QUICK, Evaluation, Trial

ROOT = Path(__file__).parents[3]


def complete(trial: Trial, seed: int, out: Path, overrides: tuple[str, ...]) -> None:
    """Train `trial` in <out>/<its name> and run the missing evaluations; the output goes to <out>/<its name>.log.

    With `overrides`, which make runs tiny, there is no warm-up run. Raises ConfigError where the run was made with
    other settings.
    """
    name, given = trial.name(seed), (*trial.overrides, *overrides)
    with (out / f"{name}.log").open("a", encoding="utf-8") as log, redirect_stdout(log), redirect_stderr(log):
        if trial.warmup and not overrides:
            train(out, trial.warmup_name(seed), seed, (*given, *trial.warmup))
            given = (*given, f"branch_from={out / trial.warmup_name(seed)}")
        train(out, name, seed, given)
        for evaluation in trial.evaluations:
            if not all((out / name / "evals" / f"{report}.json").exists() for report in evaluation.reports):
                evaluate(out / name, evaluation)


def train(out: Path, name: str, seed: int, overrides: tuple[str, ...]) -> None:
    """Train the run `name` unless it is finished."""
    given = (*overrides, f"seed={seed}", f"name={name}", f"out={out}", "device=cpu")
    config = make_job(open_option_files(None), last_of_each_key(given)).config
    if (out / name / SUMMARY).exists():
        refuse_other_settings(config, out / name)
        return
    # importing torch takes seconds; a wrong setting is reported before
    from nested_learning.phase import train as training

    training.run(config)


def evaluate(run: Path, evaluation: Evaluation) -> None:
    """Evaluate the trained model."""
    from nested_learning.phase import eval as phase

    lines = ["phase=eval", f"checkpoint={run}", f"evals=[{evaluation.pack}]", "device=cpu", *evaluation.overrides]
    phase.run(make_job(open_option_files(None), lines).config)


def read_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--only", nargs="+", default=[""], help="runs whose name has one of these in it")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/beyond_window"), help="where the runs are kept")
    parser.add_argument(
        "--report", type=Path, default=ROOT / "reports/beyond_window.md", help="figures/ goes next to it"
    )
    parser.add_argument("--quick", action="store_true", help="tiny runs, to try the script; use another --out")
    parser.add_argument("--report-only", action="store_true", help="train nothing")
    return parser.parse_args()


def main() -> int:
    """Complete the runs seed by seed, so that the first results come early; write the report."""
    options = read_options()
    if not options.report_only:
        use_one_thread()
        options.out.mkdir(parents=True, exist_ok=True)
        write_machine(options.out, "scripts.experiments.beyond_window.run", jobs=1)
        for seed in options.seeds:
            for trial in (trial for part in options.part for trial in PARTS[part]):
                if any(word in trial.name(seed) for word in options.only):
                    complete(trial, seed, options.out, QUICK if options.quick else ())
                    print(f"done: {trial.name(seed)}", flush=True)
    print(write_report(options.out, options.report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
