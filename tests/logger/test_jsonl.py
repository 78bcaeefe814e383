"""metrics.jsonl is valid JSON line by line, complete at every moment, and continues exactly after a resume."""

import json
import math

from nested_learning.logger.jsonl import JsonlLogger


def read(path):
    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    return [json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines()]


def write(path, steps, start_step=0):
    logger = JsonlLogger(path, start_step)
    for step in steps:
        logger.log(step, {"train/loss": step / 2, "split": "train", "tokens": step * 10})
    logger.close()


def test_a_line_is_written_at_once_with_step_tokens_and_split_first(tmp_path):
    logger = JsonlLogger(tmp_path / "metrics.jsonl")
    logger.log(2, {"train/loss": 1.25, "split": "train", "tokens": 64})
    text = (tmp_path / "metrics.jsonl").read_text()
    assert text == '{"step": 2, "tokens": 64, "split": "train", "train/loss": 1.25}\n'


def test_numbers_that_are_not_finite_become_null(tmp_path):
    logger = JsonlLogger(tmp_path / "metrics.jsonl")
    logger.log(1, {"train/loss": math.nan, "optim/grad_norm": math.inf, "val/loss": -math.inf})
    logger.close()
    assert read(tmp_path / "metrics.jsonl") == [
        {"step": 1, "train/loss": None, "optim/grad_norm": None, "val/loss": None}
    ]


def test_a_resumed_run_leaves_the_lines_of_a_run_never_stopped(tmp_path):
    write(tmp_path / "whole.jsonl", range(1, 9))
    write(tmp_path / "resumed.jsonl", range(1, 7))
    write(tmp_path / "resumed.jsonl", range(5, 9), start_step=4)
    assert (tmp_path / "resumed.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_a_line_cut_short_by_a_kill_is_dropped_on_resume(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write(path, range(1, 4))
    with path.open("a") as file:
        file.write('{"step": 4, "tok')
    write(path, range(4, 6), start_step=3)
    assert [line["step"] for line in read(path)] == [1, 2, 3, 4, 5]


def test_a_run_that_starts_again_starts_with_an_empty_file(tmp_path):
    write(tmp_path / "metrics.jsonl", range(4))
    write(tmp_path / "metrics.jsonl", range(2))
    assert [line["step"] for line in read(tmp_path / "metrics.jsonl")] == [0, 1]
