"""The report on forgetting: differences are paired by seed, and a claim needs more than two standard errors."""

import json
from pathlib import Path

import pytest

from scripts.experiments.continual.report import write_report
from scripts.experiments.continual.trials import Run

NAMES = ("novel_1853", "wikipedia_2016")


def write_result(out: Path, model: str, seed: int, forgetting: float, *, again: bool = False) -> Run:
    """Write what a run leaves behind, as far as the report reads it."""
    run = Run(model, "forward", seed, out, (), again)
    (run.directory / "evals").mkdir(parents=True)
    (run.directory / "summary.json").write_text(json.dumps({"cpu_seconds": 9.0, "tokens": 64, "parameters": 1234}))
    git = {"git": {"commit": "0123456789ab", "diff": ""}}
    (run.directory / "environment.json").write_text(json.dumps(git))
    values = dict.fromkeys(("bwt", "fwt", "learned", "final", "drift/rest"), 1.0) | {"forgetting": forgetting}
    values |= {f"bpb/{stage}/{name}": 3.0 - stage for stage in range(3) for name in NAMES}
    values[f"forgetting/{NAMES[0]}"] = forgetting
    metrics = {name: {"value": value, "stderr": 0.01} for name, value in values.items()}
    (run.directory / "evals/continual.json").write_text(json.dumps({"metrics": metrics}))
    return run


@pytest.mark.parametrize(
    ("hope", "said"),
    [((0.1, 0.22), "**lower**"), ((0.6, 0.62), "**higher**"), ((0.3, 0.5), "no significant difference")],
)
def test_models_are_compared_seed_by_seed(tmp_path: Path, hope: tuple[float, float], said: str) -> None:
    runs = [write_result(tmp_path, "transformer", seed, 0.4 + 0.1 * seed) for seed in (0, 1)]
    runs += [write_result(tmp_path, "hope", seed, forgetting) for seed, forgetting in enumerate(hope)]
    runs.append(write_result(tmp_path, "transformer", 0, 0.4, again=True))
    text = write_report(runs, tmp_path / "report.md", "command").read_text()
    (line,) = [line for line in text.splitlines() if line.startswith("- forward, forgetting: hope minus transformer")]
    assert said in line and "over 2 seeds" in line
    assert text.count("HOPE forgets less than the Transformer in every order: **yes**") == (said == "**lower**")
    assert "trained and evaluated again with the same seed: **identical** metrics" in text
