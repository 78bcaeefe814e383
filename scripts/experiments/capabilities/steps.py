"""Complete one trial in this process: train it, evaluate it, keep the results; skip what is done already."""

from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from nested_learning.command.compose import make_job
from nested_learning.config.option_files import open_option_files
from nested_learning.report import SUMMARY
from nested_learning.report.runs import last_of_each_key, refuse_other_settings
from scripts.experiments.capabilities.trials import Evaluation, Trial


def complete(trial: Trial, seed: int, out: Path, overrides: Sequence[str]) -> str:
    """Train `trial` in <out>/<its name> and run the missing evaluations; the output goes to <out>/<its name>.log.

    Returns the run's name. Raises ConfigError where the run was made with other settings.
    """
    name = trial.name(seed)
    given = (*trial.overrides, *overrides, f"seed={seed}", f"name={name}", f"out={out}", "device=cpu")
    config = make_job(open_option_files(None), last_of_each_key(given)).config
    missing = [evaluation for evaluation in trial.evaluations if not report_of(out / name, evaluation).exists()]
    if (out / name / SUMMARY).exists():
        refuse_other_settings(config, out / name)
        if not missing:
            return name
    # importing torch takes seconds; a finished run returns before
    from nested_learning.phase import train

    with (out / f"{name}.log").open("a", encoding="utf-8") as log, redirect_stdout(log), redirect_stderr(log):
        train.run(config)
        for evaluation in missing:
            evaluate(out / name, evaluation)
    return name


def evaluate(run: Path, evaluation: Evaluation) -> None:
    """Evaluate the trained model, and keep the report under the name of the evaluation."""
    from nested_learning.phase import eval as phase

    lines = ["phase=eval", f"checkpoint={run}", "evals=[validation]", "device=cpu", *evaluation.overrides]
    phase.run(make_job(open_option_files(None), lines).config)
    # every evaluation writes the same files; .json moves last, since it marks the evaluation as done
    for suffix in (".jsonl", ".json"):
        (run / "evals" / "validation").with_suffix(suffix).rename(report_of(run, evaluation).with_suffix(suffix))


def report_of(run: Path, evaluation: Evaluation) -> Path:
    """Return the file that keeps the report of `evaluation`."""
    return run / "evals" / f"{evaluation.name}.json"
