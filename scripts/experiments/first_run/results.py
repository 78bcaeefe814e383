"""The finished runs of this experiment by model, and their mean curves."""

from collections.abc import Sequence
from pathlib import Path

from nested_learning.report import mean_and_stderr
from nested_learning.report.runs import FinishedRun, Point, read_finished_run

ORDER = ("transformer", "titans_lmm", "hope", "hope_attention")


# model -> its finished runs, one a seed
Models = dict[str, list[FinishedRun]]


def read_part(out: Path, part: str) -> Models:
    """Read the finished runs <out>/<part>_<model>_<seed>; models without any are left out."""
    models: Models = {}
    for model in ORDER:
        # [0-9]: hope_attention is no run of hope
        finished = sorted(out.glob(f"{part}_{model}_[0-9]*/summary.json"))
        if finished:
            models[model] = [read_finished_run(path.parent) for path in finished]
    return models


def mean_curve(runs: Sequence[FinishedRun], name: str) -> list[tuple[Point, float]]:
    """Return the mean of the runs' curves, and the standard error at each point (0 for one run)."""
    points = []
    for at_once in zip(*(run.curve(name) for run in runs), strict=True):
        tokens, seconds, values = zip(*at_once, strict=True)
        mean, error = mean_and_stderr(values)
        points.append((Point(tokens[0], sum(seconds) / len(seconds), mean), error or 0.0))
    return points
