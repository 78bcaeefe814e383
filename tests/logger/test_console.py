"""The console is dense and plain in a pipe, live on a terminal."""

import re
from io import StringIO

import pytest
from rich.console import Console

from nested_learning.logger.console import PlainConsole, open_console
from nested_learning.logger.live import LiveConsole, arrange
from nested_learning.logger.words import Clock, decimal, describe, duration, number, thousands


class Ticks:
    """A clock that the test moves by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_plain_line_has_step_metrics_throughput_and_time_left(capsys):
    ticks = Ticks()
    console = PlainConsole(Clock(300, 0, ticks))
    ticks.now = 60.0
    values = {"train/loss": 2.3101, "perf/tokens_per_second": 12345.0, "tokens": 9, "split": "train", "val/bpb": 2.1}
    console.log(120, values)
    assert capsys.readouterr().out == "step 120/300  train/loss 2.31  val/bpb 2.1  12.3k tok/s  eta 1m30s\n"


def test_time_left_counts_only_the_steps_of_this_process():
    ticks = Ticks()
    clock = Clock(300, 200, ticks)
    assert clock.seconds_left(200) is None
    ticks.now = 10.0
    assert clock.seconds_left(250) == 10.0


def test_the_last_line_has_no_time_left(capsys):
    PlainConsole(Clock(2, 0)).log(2, {"train/loss": 1.0})
    assert capsys.readouterr().out == "step 2/2  train/loss 1\n"


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0s"), (45, "45s"), (80, "1m20s"), (7500, "2h05m")])
def test_durations_are_short(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(("value", "text"), [(950, "950"), (12345, "12.3k"), (2.5e6, "2.5M"), (3e9, "3.0G")])
def test_large_numbers_are_short(value, text):
    assert thousands(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(2.30059, "2.301"), (1e-05, "1e-05"), (123456, "123456"), ("hope", "hope")]
)
def test_numbers_have_four_digits(value, text):
    assert number(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (5.27972, "5.2797"),
        (-0.25, "-0.2500"),
        (0.0, "0.0000"),
        (12345.678, "12345.6780"),
        (9415045.2, "9.415e+06"),
        (2.5e-5, "2.5e-05"),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
    ],
)
def test_results_have_four_decimals_where_these_say_something(value, text):
    assert decimal(value) == text


def test_an_output_that_is_no_terminal_gets_the_plain_console():
    assert isinstance(open_console(10), PlainConsole)


def test_a_terminal_that_cannot_move_its_cursor_gets_the_plain_console(monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    assert isinstance(open_console(10), LiveConsole)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(open_console(10), PlainConsole)


def live(width, history=(), total=10, height=25):
    out = StringIO()
    console = Console(file=out, force_terminal=True, width=width, height=height, _environ={"TERM": "xterm"})
    return LiveConsole(Clock(total, 0), console, history), out


SPENT = {"perf/wall_seconds": 100.0, "perf/lost_seconds": 5.0, "perf/memory_bytes": 2.5e9}
SPENT |= {"perf/seconds/data": 15.0, "perf/seconds/forward_backward": 80.0, "perf/seconds/log": 0.0}


def test_a_terminal_keeps_validation_lines_and_one_live_table():
    console, out = live(60)
    console.log(1, {"split": "train", "train/loss": 3.5, **SPENT})
    console.log(1, {"split": "validation", "val/loss": 3.25, "note": "[b]raw[/b]"})
    console.log(2, {"split": "train", "train/loss": 3.0})
    console.close()
    text = out.getvalue()
    assert "step 1  val/loss 3.25  note [b]raw[/b]" in text
    assert "step 1/10" in text and "step 2/10" in text
    assert "train/loss 3.5" in text and "train/loss 3 " in text
    assert "\x1b[2K" in text, "the live table is erased and written again"


def test_a_wide_terminal_shows_losses_rates_time_and_memories_side_by_side():
    console, out = live(120)
    metrics = {"tokens": 64, "split": "train", "train/loss": 3.5, "optim/lr": 0.01, "memory/fast/norm": 0.25, **SPENT}
    console.log(1, metrics)
    console.log(1, {"tokens": 64, "split": "validation", "val/bpb": 2.5, "memory/read/rank": 4.0, **SPENT})
    console.close()
    text = out.getvalue()
    for words in (
        "train/loss_ema 3.5",
        "val/bpb",
        "optim/lr       0.01",
        "forward_backward 80.0%",
        "data             15.0%",
    ):
        assert words in text
    assert "lost             5.0%" in text and "2.5GB" in text and "1m40s" in text and " log " not in text
    rows = [line.rstrip() for line in text.splitlines()]
    assert any(line.endswith("memory norm rank") for line in rows)
    assert any(line.endswith("fast   0.25") for line in rows) and any(line.endswith("read        4") for line in rows)


def test_a_screen_of_80_by_24_shows_losses_time_and_memories_and_no_rates_of_groups():
    names = ("embedding", "matrices", "matrices/slow", "vectors", "vectors/slow")
    metrics = {"tokens": 64, "split": "train", "train/loss": 3.5, "optim/lr": 0.01, "optim/grad_norm": 2.0, **SPENT}
    metrics |= {f"optim/lr/{name}": 0.01 for name in names}
    metrics |= {f"memory/level{number}/{name}": 0.5 for number in range(4) for name in ("norm", "writes", "surprise")}
    console, out = live(80, height=24)
    console.log(1, metrics | {"val/loss": 3.25, "val/bpb": 2.5})
    console.close()
    lines = re.sub(r"\x1b\[[\d;]*m", "", out.getvalue().split("\x1b[2K")[-1]).splitlines()
    assert len(lines) < 24 and all(len(line) <= 80 for line in lines)
    text = "\n".join(lines)
    assert "train/loss_ema" in text and "forward_backward" in text and "level3" in text and "optim/lr/" not in text


def test_panels_that_do_not_fit_leave_their_place_to_the_next():
    long, short = [("a", "1")] * 9, [("b", "2")] * 3
    assert arrange([short, long, short], 1, 8) == [[short], [short]]
    assert arrange([long, short, short], 2, 8) == [[long, short]]
    assert arrange([short, long, short], 2, 12) == [[short, long], [short]]


def test_the_running_mean_continues_after_a_resume():
    losses = [3.0, 2.0, 4.0, None, 1.0, 2.0]
    lines = [{"step": i + 1, "tokens": 64 * (i + 1), "train/loss": loss} for i, loss in enumerate(losses)]
    lines = [{name: value for name, value in line.items() if value is not None} for line in lines]
    whole, _ = live(80, total=300)
    for line in lines:
        whole.log(line["step"], line)
    resumed, _ = live(80, lines[:3], total=300)
    for line in lines[3:]:
        resumed.log(line["step"], line)
    for console in (whole, resumed):
        console.close()
    assert whole._metrics["train/loss_ema"] == resumed._metrics["train/loss_ema"]
    assert min(filter(None, losses)) < whole._metrics["train/loss_ema"] < max(filter(None, losses))


def test_a_validation_line_leaves_out_memory_statistics():
    metrics = {"val/loss": 2.0, "memory/read/norm": 3.0}
    assert describe({"split": "validation", **metrics}) == ["val/loss 2"]
    assert describe({"split": "train", **metrics}) == ["val/loss 2", "memory/read/norm 3"]
