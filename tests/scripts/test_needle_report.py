"""The report on memorized facts: its verdicts follow from the evaluations, and every control can fail one."""

import json
from pathlib import Path
from typing import Any

import pytest

from scripts.experiments.needle.report import write_report

MEMORIZED = {"accuracy": 1.0, "accuracy_wrong_context": 0.12, "accuracy_reset": 0.125, "contradiction": 0.9}


def write_evaluations(run: Path, **changed: float) -> None:
    """Write a run of titans_lmm whose memorizing works, but for what is `changed`."""
    (run / "evals").mkdir(parents=True)
    (run / "environment.json").write_text(json.dumps({"git": {"commit": "0123456789ab", "diff": ""}}))
    (run / "summary.json").write_text(json.dumps({"cpu_seconds": 30.0}))
    metrics = {name: {"value": value, "n": 128, "chance": 0.125} for name, value in (MEMORIZED | changed).items()}
    gain = {"value": metrics["accuracy"]["value"] - 0.125, "stderr": 0.03}
    hashes = {"parameters_sha256": "a", "parameters_sha256_after": "a"}
    online: dict[str, Any] = {
        "accuracy": {"value": 0.125, "n": 128, "chance": 0.125},
        "accuracy_in_context": {"value": 1.0, "n": 128, "chance": 0.125},
    }
    report = {"metrics": metrics, "difference": {"accuracy": gain}} | hashes
    for name in ("main", "steps_1_lr_1.0"):
        (run / "evals" / f"{name}.json").write_text(json.dumps(report))
    (run / "evals/main.jsonl").write_text('{"chosen/contradiction": "jade", "gold": "jade"}\n')
    (run / "evals/main_online.json").write_text(json.dumps({"metrics": online}))


@pytest.mark.parametrize(
    ("changed", "failed"),
    [
        ({}, ""),
        ({"accuracy": 0.7}, "memorized >= 75%"),
        ({"accuracy_wrong_context": 0.4}, "wrong context <= 30%"),
        ({"accuracy_reset": 0.2}, "memory cleared equals online"),
    ],
)
def test_one_seed_that_fails_a_control_fails_the_claim(tmp_path: Path, changed: dict[str, float], failed: str) -> None:
    write_evaluations(tmp_path / "titans_lmm_0")
    write_evaluations(tmp_path / "titans_lmm_1", **changed)
    text = write_report(tmp_path, tmp_path / "report.md", "command").read_text()
    (verdict,) = [line for line in text.splitlines() if line.startswith("- titans_lmm recalls")]
    assert verdict.endswith(
        f"with all 2 seeds: **no** titans_lmm_1: {failed}" if failed else "with all 2 seeds: **yes**"
    )
    assert "| lr 1 | " in text and (tmp_path / "figures/needle_steps.png").exists()
