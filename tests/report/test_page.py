"""The page of one run, and its figures in other tools: made of metrics.jsonl alone."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import tiny

from nested_learning.phase.train import run
from nested_learning.report.__main__ import main
from nested_learning.report.charts import charts, smooth, time_split, title_of


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """Train a model with memories, with samples."""
    folder = tmp_path_factory.mktemp("report")
    directory = run(tiny(folder, model="titans_lmm", name="a", sample_every=6, prompt="def ")).directory
    assert directory is not None
    return directory


def logged(directory: Path) -> list[dict]:
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


def test_the_page_has_a_plot_of_everything_that_was_logged(trained, capsys):
    assert main([str(trained)]) == 0
    page = trained / "report" / "README.md"
    assert capsys.readouterr().out == f"written: {page}\n"
    text = page.read_text()
    plots = {line.split("(")[1].rstrip(")") for line in text.splitlines() if line.startswith("![")}
    assert plots == {path.name for path in page.parent.glob("*.png")}
    assert {"time.png", "loss.png", "bits_per_byte.png", "learning_rate.png", "norms.png", "memory_rank.png"} <= plots
    assert all((page.parent / name).read_bytes().startswith(b"\x89PNG") for name in plots)
    final = json.loads((trained / "summary.json").read_text())["final"]
    assert f"| `val/bpb` | {final['val/bpb']:.4f} |" in text
    assert "Step 6, greedy:\n\n    def " in text and "forward_backward" in text


def test_every_metric_of_training_validation_and_memories_is_in_one_chart(trained):
    found = charts(logged(trained), 6)
    drawn = [name for lines in found.values() for name in lines]
    assert len(drawn) == len(set(drawn))
    names = {name for line in logged(trained) for name in line if "/" in name and not name.startswith("perf/")}
    assert names <= set(drawn) and {"train/loss_ema", "perf/tokens_per_second"} <= set(drawn)
    losses = [point[1] for point in found["loss"]["train/loss"]]
    assert losses == [line["train/loss"] for line in logged(trained) if line["split"] == "train"]


def test_a_step_without_a_loss_has_no_point():
    lines = [{"step": i, "tokens": 8 * i, "train/loss": loss} for i, loss in ((1, 2.0), (2, None), (3, 4.0))]
    assert [point[0] for point in smooth(lines, 3)] == [1, 3]
    assert [point[:2] for point in charts(lines, 3)["loss"]["train/loss"]] == [(1, 2.0), (3, 4.0)]


def test_phases_and_lost_time_sum_to_the_wall_time(trained):
    last = logged(trained)[-1]
    assert sum(time_split(logged(trained)).values()) == pytest.approx(last["perf/wall_seconds"], rel=1e-2)


@pytest.mark.parametrize(
    ("name", "title"),
    [("memory/read/norm", "memory: norm"), ("val/memory/fast/norm", "memory: norm"), ("perf/memory_bytes", None)],
)
def test_each_memory_metric_has_its_own_chart(name, title):
    assert title_of(name) == title


def test_a_folder_that_is_not_a_run_is_refused_in_one_line(tmp_path, capsys):
    assert main([str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert main([str(tmp_path), "--to", "tensorboard"]) == 2


def test_tensorboard_events_are_rewritten_from_the_logged_lines(trained):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (trained / "tensorboard").mkdir(exist_ok=True)
    (trained / "tensorboard" / "events.out.tfevents.0.stale").write_bytes(b"")
    assert main([str(trained), "--to", "tensorboard"]) == 0
    events = EventAccumulator(str(trained / "tensorboard")).Reload()
    for name in ("train/loss", "val/loss"):
        points = [(event.step, pytest.approx(event.value, rel=1e-6)) for event in events.Scalars(name)]
        assert points == [(line["step"], line[name]) for line in logged(trained) if name in line]
    assert not (trained / "tensorboard" / "events.out.tfevents.0.stale").exists()


def test_a_wandb_run_is_rewritten_under_a_new_id(trained, monkeypatch, tmp_path):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path))
    (trained / "wandb_id").write_text("before")
    # W&B reads its environment once a process
    command = [sys.executable, "-m", "nested_learning.report", str(trained), "--to", "wandb"]
    assert subprocess.run(command, timeout=100, check=False).returncode == 0
    new = (trained / "wandb_id").read_text()
    assert new != "before"
    (file,) = (trained / "wandb").rglob(f"run-{new}.wandb")
    assert b"train/loss" in file.read_bytes()
