"""Complete one trial in this process: train it, evaluate it, keep the results; skip what is done already."""

from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from nested_learning.command.compose import make_job
from nested_learning.config.option_files import open_option_files
from nested_learning.report import SUMMARY
from nested_learning.report.runs import last_of_each_key, refuse_other_settings
from scripts.experiments.capabilities.trials import Question, Trial


def complete(trial: Trial, seed: int, out: Path, overrides: Sequence[str]) -> str:
    """Train `trial` in <out>/<its name> and ask what has no answer yet, the output in a file beside it.

    Returns the run's name. Raises ConfigError where the run was made with other settings.
    """
    name = trial.name(seed)
    given = (*trial.overrides, *overrides, f"seed={seed}", f"name={name}", f"out={out}", "device=cpu")
    config = make_job(open_option_files(None), last_of_each_key(given)).config
    missing = [question for question in trial.questions if not answer_of(out / name, question).exists()]
    if (out / name / SUMMARY).exists():
        refuse_other_settings(config, out / name)
        if not missing:
            return name
    # torch takes seconds, and whoever has nothing to do shall say so at once
    from nested_learning.phase import train

    with (out / f"{name}.log").open("a", encoding="utf-8") as log, redirect_stdout(log), redirect_stderr(log):
        train.run(config)
        for question in missing:
            ask(out / name, question)
    return name


def ask(run: Path, question: Question) -> None:
    """Ask the trained model, and keep the answer under the question's name."""
    from nested_learning.phase import eval as evaluation

    lines = ["phase=eval", f"checkpoint={run}", "evals=[validation]", "device=cpu", *question.overrides]
    evaluation.run(make_job(open_option_files(None), lines).config)
    # one pack answers all questions, each time in the same file; the figures move last
    for suffix in (".jsonl", ".json"):
        (run / "evals" / "validation").with_suffix(suffix).rename(answer_of(run, question).with_suffix(suffix))


def answer_of(run: Path, question: Question) -> Path:
    """Return the file in which the answer to `question` is kept."""
    return run / "evals" / f"{question.name}.json"
