"""environment.json: what a run was made with, of a bounded size however often it is started."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from nested_learning.train import environment
from nested_learning.train.environment import MAX_DIFF, write_environment


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git checkout with one commit, which counts as the code of the run; return its one file."""
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "code.py").write_text("x = 1\n")
    name = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for line in (["init", "-q"], ["add", "."], [*name, "commit", "-qm", "first"]):
        subprocess.run(["git", "-C", folder, *line], check=True)
    monkeypatch.setattr(environment, "CODE", folder)
    return folder / "code.py"


def written(run: Path) -> dict[str, Any]:
    """Write environment.json once more and return it."""
    write_environment(run, 0, "cpu")
    return dict(json.loads((run / "environment.json").read_text(encoding="utf-8")))


def test_equal_diffs_are_kept_once_in_the_last_entry(checkout: Path, tmp_path: Path) -> None:
    clean = written(tmp_path)["git"]
    assert clean["diff"] == ""
    checkout.write_text("x = 2\n")
    changed = written(tmp_path)["git"]
    assert "+x = 2" in changed["diff"] and changed["diff_sha256"] != clean["diff_sha256"]
    again = written(tmp_path)
    assert again["git"] == changed
    del changed["diff"]
    assert [entry["git"] for entry in again["earlier"]] == [clean, changed]


def test_of_a_long_diff_hash_stat_and_beginning_are_kept(checkout: Path, tmp_path: Path) -> None:
    checkout.write_text("y = 3\n" * MAX_DIFF)
    first = written(tmp_path)["git"]
    assert "code.py | " in first["diff"] and "+y = 3" in first["diff"] and len(first["diff"]) < 1.1 * MAX_DIFF
    assert (tmp_path / "environment.json").stat().st_size < 2 * MAX_DIFF
    # a change beyond what is kept
    with checkout.open("a") as file:
        file.write("z = 4\n")
    assert written(tmp_path)["git"]["diff_sha256"] != first["diff_sha256"]
    for _ in range(3):
        written(tmp_path)
    assert (tmp_path / "environment.json").stat().st_size < 3 * MAX_DIFF


def test_entries_of_earlier_versions_are_bounded_when_a_run_resumes(checkout: Path, tmp_path: Path) -> None:
    checkout.write_text("x = 2\n")
    now = written(tmp_path)
    old = {**now, "git": {"commit": "abc", "diff": "+" * 10 * MAX_DIFF}, "earlier": [{**now, "git": None}]}
    same = {**now, "git": {"commit": "abc", "diff": now["git"]["diff"]}}
    old["earlier"].append(same)
    (tmp_path / "environment.json").write_text(json.dumps(old))
    without, known, long = (entry["git"] for entry in written(tmp_path)["earlier"])
    assert without is None and known == {"commit": "abc", "diff_sha256": now["git"]["diff_sha256"]}
    assert long["commit"] == "abc" and len(long["diff"]) < 1.1 * MAX_DIFF
