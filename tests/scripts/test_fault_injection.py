"""A process is killed, or finds the disk full, at any operation of a save: the run resumes to the same bytes."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(shutil.which("cc") is None or sys.platform != "linux", reason="needs Linux and a C compiler")
def test_failures_of_a_save_lose_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "scripts.benchmarks.fault_injection", "--workloads", "save", "again"]
    command += ["--points", "12", "--report", str(tmp_path / "report.md")]
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(ROOT)}, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = (tmp_path / "report.md").read_text()
    assert "**24 points, 0 failures.**" in report
    for end in ("kill: killed", "torn: killed", "full: refused", "once: refused"):
        assert end in report, end


def test_without_a_compiler_the_script_does_nothing_and_prints_why(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "scripts.benchmarks.fault_injection", "--report", str(tmp_path / "report.md")]
    done = subprocess.run(command, env=os.environ | {"PATH": str(tmp_path)}, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.startswith("nothing done")
    assert not list(tmp_path.iterdir())
