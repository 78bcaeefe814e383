"""Whatever stands at a path that a key names, the answer is one line that names it, and nothing is created."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny import write_text

from nested_learning.command.main import main

SMALL = [
    *("model=transformer", "model.dim=16", "model.num_layers=1", "model.num_heads=2", "steps=1", "device=cpu"),
    *("evals=[]", "data.batch_size=2", "data.val_rows=2", "sampling.num_tokens=0", "name=new"),
]
TEXT = ["data=text", "data.path=text.py", "data.seq_len=32"]
EVAL = ["phase=eval", "checkpoint=runs/a"]
# each command as far as the key whose path is tried
COMMANDS = {
    "out": [*SMALL, *TEXT, "out="],
    "checkpoint": ["phase=eval", "checkpoint="],
    "resume": [*SMALL[:-1], *TEXT, "resume="],
    "branch_from": [*SMALL, *TEXT, "branch_from="],
    "stack_from": ["model=hope", *SMALL[1:], *TEXT, "stack_from="],
    "data=text": [*SMALL, "data=text", "data.path="],
    "data.tokenizer": [*SMALL, *TEXT, "data.tokenizer="],
    "data=tokens": [*SMALL, "data=tokens", "data.path="],
    "data=rows": [*SMALL, "data=rows", "data.vocab_size=40", "data.path="],
    "data=classes": [*SMALL, "data=classes", "data.num_tasks=2", "data.path="],
    "data=babilong": [*SMALL, "data=babilong", "data.path="],
    "perplexity": [*EVAL, "evals=perplexity", "evals.perplexity.path="],
    "prompts": [*EVAL, "evals=prompts", "evals.prompts.path="],
    "babilong": [*EVAL, "evals=babilong", "evals.babilong.path="],
    "core": [*EVAL, "evals=core", "evals.core.path="],
    "zeroshot": [*EVAL, "evals=zeroshot", "evals.zeroshot.path="],
    "translation": [*EVAL, "evals=translation", "evals.translation.path="],
    "phase.to": ["phase=export", "checkpoint=runs/a", "phase.to="],
}
PATHS = ("missing", "empty", "binary", "folder", "full", "pipe", "broken", "loop", "/dev/null", "list.json")
# where a directory may be made, or is what the key names
RIGHT = {("out", "missing"), ("out", "folder"), ("out", "full"), ("phase.to", "missing")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Make a folder with a run and one of each of PATHS, and work in it."""
    folder, before = tmp_path_factory.mktemp("paths"), Path.cwd()
    os.chdir(folder)
    write_text(folder)
    assert main([*SMALL[:-1], *TEXT, "name=a"]) == 0
    Path("empty").touch()
    Path("binary").write_bytes(bytes(range(256)) * 50)
    Path("folder").mkdir()
    Path("full").mkdir()
    Path("full/binary").write_bytes(b"\0\xff" * 99)
    os.mkfifo("pipe")
    Path("broken").symlink_to("nowhere")
    Path("loop").symlink_to("loop")
    Path("list.json").write_text("[1]")
    yield folder
    os.chdir(before)


@pytest.fixture
def no_hang() -> Iterator[None]:
    """Fail after 20 seconds, in place of waiting for ever for what a pipe will say."""

    def fail(_number: int, _frame: object) -> None:
        pytest.fail("hangs")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


# by default two paths for each key, so that each path is tried; all pairs where time does not matter
CASES = [(key, ["pipe", PATHS[i % len(PATHS)]]) for i, key in enumerate(COMMANDS)]
ALL = [pytest.param(key, PATHS, marks=pytest.mark.slow) for key in COMMANDS]


@pytest.mark.parametrize(("key", "paths"), [*CASES, *ALL])
def test_what_stands_at_a_path_is_refused_in_one_line(
    key: str, paths: list[str], folder: Path, no_hang: None, capsys: pytest.CaptureFixture[str]
) -> None:
    *given, last = COMMANDS[key]
    before = sorted(folder.rglob("*"))
    for path in paths:
        if (key, path) not in RIGHT:
            status = main([*given, f"{last}{path}"])
            err = capsys.readouterr().err
            assert status == 2 and err.count("\n") == 1 and err.startswith("error: ") and path in err, (path, err)
            assert sorted(folder.rglob("*")) == before, path
