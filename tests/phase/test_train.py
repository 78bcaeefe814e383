"""`phase=train` from configuration to summary."""

import json
import sys

import pytest
from tiny import tiny

from nested_learning.checkpoint import Progress
from nested_learning.command.compose import make_job
from nested_learning.config.option_files import open_option_files
from nested_learning.errors import NestedLearningError
from nested_learning.phase.train import print_end, run
from nested_learning.world.joining import open_world


def test_a_run_writes_the_files_that_run_directory_md_lists(tmp_path, capsys):
    result = run(tiny(tmp_path, name="a"))
    files = {path.name for path in result.directory.iterdir()}
    assert {"config.yaml", "environment.json", "metrics.jsonl", "checkpoints", "summary.json"} <= files
    summary = json.loads((result.directory / "summary.json").read_text())
    assert summary["step"] == 6 and summary["tokens"] == 6 * 4 * 32
    assert summary["final"]["val/bpb"] == result.metrics["val/bpb"]
    assert summary["best"]["val/loss"] <= summary["final"]["val/loss"]
    positive = ("tokens_per_second", "peak_memory_bytes", "parameters", "flops_per_token")
    assert min(summary[key] for key in positive) > 0
    last = json.loads((result.directory / "metrics.jsonl").read_text().splitlines()[-1])
    assert 0 < last["perf/cpu_seconds"] == summary["cpu_seconds"]


def test_a_run_ends_with_its_directory_and_the_next_command(tmp_path, capsys):
    result = run(tiny(tmp_path, name="a"))
    *_, where, following = capsys.readouterr().out.strip().splitlines()
    assert where == f"run: {result.directory}"
    assert following.startswith("next: ")
    assert following.endswith(f"phase=sample 'prompt=def ' checkpoint={result.directory}")


@pytest.mark.parametrize(
    "lines, words",
    [
        (["data=parity"], "phase=eval checkpoint=RUN"),
        (["data=recall"], "phase=eval evals=recall checkpoint=RUN"),
        (["data=formal"], "phase=eval evals=formal checkpoint=RUN"),
        (["data=mad"], "phase=eval evals=mad checkpoint=RUN"),
        (["experiment=needle"], "phase=eval evals=needle memory=memorize checkpoint=RUN"),
        (["experiment=niah"], "phase=eval evals=niah evals.niah.digits=3 checkpoint=RUN"),
        (
            ["data=babilong", "data.path=stories"],
            "phase=eval evals=babilong evals.babilong.path=stories checkpoint=RUN",
        ),
        (["evals=[validation,perplexity]"], "phase=eval 'evals=[validation,perplexity]' checkpoint=RUN"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_the_next_command_evaluates_what_the_data_teaches(lines, words, tmp_path, capsys):
    config = make_job(open_option_files(None), lines).config
    progress = Progress(tokens=1, seconds=1.0, seed=0, source="", tokenizer=None)
    with open_world("cpu", config.world) as world:
        print_end(tmp_path, config, progress, world, is_text=config.data.name not in ("parity", "recall"))
    following = capsys.readouterr().out.splitlines()[-1]
    assert following.endswith(" " + words.replace("RUN", str(tmp_path)))


def test_the_loss_falls_far_below_random_guessing_on_a_tiny_text(tmp_path):
    result = run(tiny(tmp_path, steps=40, val_every=40, data__batch_size=8, optim__schedule__kind="constant"))
    assert result.metrics["val/loss"] < 4.0 < 5.5


def test_overfit_reads_one_batch_again_and_again(tmp_path):
    config = tiny(
        tmp_path, steps=60, overfit="true", data__batch_size=2, val_every=60, optim__schedule__kind="constant"
    )
    wide = tiny(tmp_path, steps=60, data__batch_size=2, val_every=60, optim__schedule__kind="constant")
    assert run(config).metrics["train/loss"] < 0.8 * run(wide).metrics["train/loss"]


def test_a_dry_run_prints_sizes_that_sum_to_the_model_and_creates_nothing(tmp_path, capsys):
    result = run(tiny(tmp_path, dry_run="true"))
    lines = capsys.readouterr().out.splitlines()
    table = [line.split() for line in lines[1 : 1 + next(i for i, line in enumerate(lines[1:]) if "total" in line)]]
    assert sum(int(row[-1].replace(",", "")) for row in table) == result.metrics["parameters"]
    assert result.directory is None and not (tmp_path / "runs").exists()
    # two layers of keys and values of 16 numbers, 4 bytes each, for 32 tokens
    assert result.metrics["state_bytes_per_row"] == 0
    assert result.metrics["state_bytes_per_row_read"] >= 2 * 2 * 16 * 4 * 32


def test_operations_per_token_are_six_per_parameter_and_attention(tmp_path, capsys):
    metrics = run(tiny(tmp_path, dry_run="true")).metrics
    attention = 2 * 2 * 2 * 16 * 32
    assert metrics["forward_flops_per_token"] == pytest.approx(2 * metrics["parameters"] + attention, rel=0.05)
    assert metrics["train_flops_per_token"] == pytest.approx(3 * metrics["forward_flops_per_token"], rel=0.05)


@pytest.mark.parametrize(
    "wrong",
    [
        {"data__batch_size": 6, "micro_batches": 4},
        {"data__path": "/nowhere"},
        {"resume": "/nowhere"},
        {"optim": "muon", "optim__groups": "[]"},
    ],
    ids=str,
)
def test_an_error_is_found_before_any_file_is_created(tmp_path, wrong):
    with pytest.raises(NestedLearningError):
        run(tiny(tmp_path, **wrong))
    assert not (tmp_path / "runs").exists()


def test_a_logger_that_cannot_be_opened_leaves_no_run_behind(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(NestedLearningError, match="tensorboard"):
        run(tiny(tmp_path, name="a", logger="[tensorboard]"))
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_complete_run_is_not_trained_again(tmp_path, capsys):
    config = tiny(tmp_path, name="a")
    first = run(config)
    before = (first.directory / "metrics.jsonl").read_bytes()
    again = run(config)
    assert again == first
    assert "complete" in capsys.readouterr().out
    assert (first.directory / "metrics.jsonl").read_bytes() == before


def test_every_model_and_a_task_without_text_train(tmp_path):
    for model in ("titans_lmm", "hope", "hope_attention"):
        result = run(tiny(tmp_path, model=model, data="copy", steps=2, data__length=4))
        assert 0 <= result.metrics["val/sequence_accuracy"] <= result.metrics["val/accuracy"] <= 1


def test_on_a_terminal_the_last_lines_stand_below_the_live_view_and_no_command_is_broken(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "40")
    directory = run(tiny(tmp_path, name="a", steps=1)).directory
    shown = capsys.readouterr().out
    assert "\x1b[2K" in shown and f"run: {directory} (device cpu" in shown
    _, _, below = shown.rpartition("\x1b[2K")
    assert "sample:" in below and f"checkpoint={directory}\n" in below


def test_the_final_line_has_the_metrics_of_averaged_weights_too(tmp_path, capsys):
    run(tiny(tmp_path, steps=1, optim__ema=0.9))
    (final,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("final: "))
    assert "val/loss " in final and "val/ema_loss " in final and "val/ema_bpb " in final
