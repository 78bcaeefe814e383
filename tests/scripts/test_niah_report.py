"""The report of scripts/experiments/niah/run.py judges what runs found, not what they were to find."""

from pathlib import Path
from typing import Any

import pytest

from nested_learning.report.runs import FinishedRun
from scripts.experiments.niah import report


def run_of(near: float, far: float) -> Any:
    """Make the result of a run by hand."""
    values = {"accuracy": near, "accuracy/512": near, "accuracy/1024": far}
    metrics = {f"niah_single_1/{name}": {"value": value, "stderr": 0.01, "n": 240} for name, value in values.items()}
    return FinishedRun(Path("x"), {"seed": 0}, {}, {"cpu_seconds": 1.0}, {"niah.answer": {"metrics": metrics}})


@pytest.mark.parametrize(
    "near, far, window, said",
    [(0.8, 0.6, 0.2, ["yes", "yes", "yes"]), (0.79, 0.59, 0.21, ["no", "no", "no"])],
)
def test_every_seed_must_reach_the_required_accuracy(near: float, far: float, window: float, said: list[str]) -> None:
    good = run_of(1.0, 1.0)
    runs = {
        "titans_lmm": [good, run_of(near, far)],
        "window": [run_of(0.1, 0.1), run_of(window, 0.1)],
    }
    lines = report.verdicts(runs)
    assert [line.rpartition(": ")[2].strip("*") for line in lines] == said


def test_the_memory_and_the_speed_of_a_stream_must_stay_constant() -> None:
    def read(tokens: int, seconds: float, peak: int) -> dict[str, float]:
        return {"tokens": tokens, "cpu_seconds": seconds, "before": 500, "peak": peak}

    run = run_of(1.0, 1.0)
    run.evaluations.update({"stream-8192": read(8192, 1.0, 1000), "stream-65536": read(65536, 8.0, 1099)})
    assert report.stream_section([run])[-2].endswith("**yes**")
    for seconds, peak in ((8.0, 1200), (12.0, 1000), (4.0, 1000)):
        run.evaluations["stream-65536"] = read(65536, seconds, peak)
        assert report.stream_section([run])[-2].endswith("**no**")
    assert report.stream_section([]) == []
