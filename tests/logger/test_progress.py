"""Long work shows how far it is: a bar on a terminal that vanishes, lines in a pipe."""

import pytest

from nested_learning.logger.progress import ProgressLines, show_progress


def test_a_pipe_gets_a_line_at_the_beginning_and_then_one_every_ten_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    seconds: list[float] = []
    show = ProgressLines("niah", now=lambda: seconds[-1])
    for second, done in ((100.0, 0), (101.0, 10), (110.0, 40), (115.0, 60), (125.0, 80), (200.0, 100)):
        seconds.append(second)
        show(done, 100)
    assert capsys.readouterr().out.splitlines() == [
        "niah: 0 of 100 examples",
        "niah: 40 of 100 examples, eta 15s",
        "niah: 80 of 100 examples, eta 6s",
    ]


def test_work_that_goes_on_counts_only_its_own_pace(capsys: pytest.CaptureFixture[str]) -> None:
    seconds: list[float] = []
    show = ProgressLines("core", "requests", now=lambda: seconds[-1])
    for second, done in ((0.0, 80), (10.0, 90)):
        seconds.append(second)
        show(done, 100)
    assert capsys.readouterr().out.splitlines() == ["core: 80 of 100 requests", "core: 90 of 100 requests, eta 10s"]


def test_a_terminal_gets_a_bar_that_vanishes_at_the_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    with show_progress("perplexity[0]") as show:
        show(3, 12)
        print("a line above it")
    text = capsys.readouterr().out
    assert "perplexity[0]" in text and "3/12" in text and "a line above it\n" in text
    # the bar is erased
    assert text.rstrip().endswith("\x1b[2K")
