"""Reports are valid JSON, whole, and legible on the screen."""

import json
import math
from io import StringIO

from rich.console import Console

from nested_learning.evals.files import table, write_report
from nested_learning.evals.metrics import Metric
from nested_learning.evals.protocol import Report

REPORT = Report(
    samples={"loss": Metric(2.5, 0.125, 4, "lower"), "accuracy": Metric(math.nan, None, 1, "higher")},
    records=[{"row": 0, "nats": 3.0}, {"row": 1, "nats": math.inf}],
)


def test_a_report_is_written_next_to_its_records(tmp_path):
    path = write_report(tmp_path, "validation", REPORT, {"step": 20})
    assert path == tmp_path / "evals" / "validation.json"
    assert json.loads(path.read_text()) == {
        "step": 20,
        "metrics": {
            "loss": {"value": 2.5, "stderr": 0.125, "n": 4, "better": "lower", "chance": None},
            "accuracy": {"value": None, "stderr": None, "n": 1, "better": "higher", "chance": None},
        },
    }
    rows = [json.loads(line) for line in path.with_suffix(".jsonl").read_text().splitlines()]
    assert rows == [{"row": 0, "nats": 3.0}, {"row": 1, "nats": None}]
    assert sorted(file.name for file in path.parent.iterdir()) == ["validation.json", "validation.jsonl"]


def test_a_later_report_replaces_an_earlier_one(tmp_path):
    write_report(tmp_path, "validation", REPORT, {"step": 20})
    path = write_report(tmp_path, "validation", REPORT, {"step": 40})
    assert json.loads(path.read_text())["step"] == 40


def test_the_table_shows_every_metric():
    out = StringIO()
    Console(file=out, width=80).print(table("validation", REPORT.metrics))
    assert "loss" in out.getvalue() and "2.5000" in out.getvalue() and "0.1250" in out.getvalue()


def test_on_a_narrow_terminal_names_are_whole_and_columns_without_values_are_left_out():
    metrics = {f"niah_single_1/accuracy/{length}/37.5": Metric(9415045.25, None, 8, "higher") for length in (512, 1024)}
    out = StringIO()
    Console(file=out, width=44).print(table("niah", metrics))
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.getvalue().splitlines() if "│" in line]
    assert "".join(name for name, _, _ in lines) == "".join(metrics)
    assert [value for _, value, _ in lines if value] == ["9.415e+06"] * 2
    assert "stderr" not in out.getvalue() and "chance" not in out.getvalue()
