"""Standard streams: letters that an encoding lacks, closed streams and readers that are gone end no work."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nested_learning.command import main as cli
from nested_learning.streams import open_streams

ROOT = Path(__file__).parents[1]
# prints as a run does, and writes a file last
WORK = """
import os, sys
from pathlib import Path
from rich.console import Console
from nested_learning.streams import open_streams
with open_streams() as error:
    for word in ("caf\\u00e9", "\\u4e16", "\\udcff"):
        print(word, flush=True)
        Console().print(word)
    print("\\u00b1", file=sys.stderr)
    with open("done", "w", encoding="utf-8") as file:
        file.write(f"{file.fileno()} {error()}")
"""
CASES = {
    "utf-8": ("utf-8", "", "café\ncafé\n世\n世\n\\udcff\n\\udcff\n"),
    "ascii": ("ascii", "", "caf\\xe9\ncaf\\xe9\n\\u4e16\n\\u4e16\n\\udcff\n\\udcff\n"),
    "cp1252": ("cp1252", "", "café\ncafé\n\\u4e16\n\\u4e16\n\\udcff\n\\udcff\n"),
    "no standard output": ("utf-8", ">&-", ""),
    "no standard error": ("utf-8", "2>&-", "café\ncafé\n世\n世\n\\udcff\n\\udcff\n"),
    "no stream at all": ("utf-8", "<&- >&- 2>&-", ""),
    "a reader that reads one line": ("utf-8", "| head -n 1", "café\n"),
    "a reader that reads nothing": ("utf-8", "2>&1 | true", ""),
    "a full disk": ("utf-8", ">/dev/full", ""),
}


@pytest.mark.parametrize("encoding, redirected, shown", CASES.values(), ids=CASES)
def test_work_is_done_whatever_happens_to_its_output(
    encoding: str, redirected: str, shown: str, tmp_path: Path
) -> None:
    (tmp_path / "work.py").write_text(WORK, encoding="utf-8")
    # the reader is gone before the second line
    line = f"(set -o pipefail; {sys.executable} work.py {redirected}); echo $? > status"
    given = os.environ | {"PYTHONIOENCODING": encoding, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, env=given, capture_output=True, check=True)
    assert done.stdout.decode(encoding) == shown
    assert b"Error" not in done.stderr and (tmp_path / "status").read_text() == "0\n"
    number, error = (tmp_path / "done").read_text().split(" ", 1)
    # no file of the run gets the number of a standard stream, to which libraries write
    assert int(number) > 2
    lost = "|" in redirected or "full" in redirected
    assert (error == "None") is not lost or "head" in redirected


def test_a_reader_that_has_read_enough_needs_no_words(capfd: pytest.CaptureFixture[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    before, sys.stdout = sys.stdout, os.fdopen(write, "w", encoding="utf-8")
    try:
        assert cli.main(["--cfg", "job"]) == cli.BROKEN_PIPE
    finally:
        sys.stdout = before
    assert capfd.readouterr().err == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_output_that_a_full_disk_lost_is_an_error_of_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        sys.stdout = full
        try:
            assert cli.main(["--cfg", "job"]) == 2
        finally:
            sys.stdout = before
    assert capfd.readouterr().err.startswith("error: standard output: No space left on device; the work is done")


def test_streams_that_are_no_files_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    cell = io.StringIO()
    monkeypatch.setattr(sys, "stdout", cell)
    with open_streams():
        assert sys.stdout is cell
    print("still open")
    assert cell.getvalue() == "still open\n"
