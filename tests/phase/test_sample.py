"""`phase=sample` and `Session.open` on runs that were really trained."""

import pytest
import torch

from nested_learning import Session
from nested_learning.command.main import main
from nested_learning.errors import CheckpointError, ConfigError
from nested_learning.inference.samples import printable

TINY = [
    "model=hope",
    "model.dim=16",
    "model.num_layers=1",
    "model.num_heads=2",
    "data.batch_size=2",
    "data.val_rows=2",
    "steps=1",
    "device=cpu",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Train one run on text, and one on a task without text."""
    folder = tmp_path_factory.mktemp("sample")
    text = folder / "book.txt"
    text.write_text("def add(a, b): return a + b\n" * 100)
    words = ["data=text", f"data.path={text}", "data.seq_len=32"]
    assert main([*TINY, *words, f"out={folder}", "name=text"]) == 0
    assert main([*TINY, "data=parity", f"out={folder}", "name=parity"]) == 0
    return folder


def sample(folder, capsys, *settings):
    capsys.readouterr()
    arguments = ["phase=sample", f"checkpoint={folder / 'text'}", "sampling.num_tokens=12", "device=cpu", *settings]
    assert main(arguments) == 0
    return capsys.readouterr().out


def test_a_prompt_is_continued(folder, capsys):
    text = sample(folder, capsys, "prompt='def '")
    assert text.startswith("def ")
    assert len(text) > len("def \n")


def test_the_seed_decides_the_sampled_text(folder, capsys):
    first, second, other = (sample(folder, capsys, f"seed={seed}") for seed in (1, 1, 2))
    assert first == second != other


def test_greedy_text_does_not_depend_on_the_seed(folder, capsys):
    first, second = (sample(folder, capsys, "sampling.temperature=0", f"seed={seed}") for seed in (1, 2))
    assert first == second


def test_a_model_without_text_cannot_read_a_prompt(folder, capsys):
    assert main(["phase=sample", f"checkpoint={folder / 'parity'}", "prompt=abc", "device=cpu"]) == 2
    assert "no tokenizer" in capsys.readouterr().err


def test_a_model_is_evaluated_on_data_that_it_can_read(folder, capsys):
    text = [f"data.path={folder / 'book.txt'}", "data.seq_len=32", "data.val_rows=2"]
    for run, given, problem in (
        ("parity", ["data=text", *text], "data=text: has 257 tokens of text"),
        ("parity", ["data=recall"], "data=recall: has 64 tokens, and the model was trained on a task of 3"),
        ("text", ["data=parity"], "the model was trained on text"),
    ):
        assert main(["phase=eval", f"checkpoint={folder / run}", *given, "device=cpu"]) == 2
        err = capsys.readouterr().err
        assert problem in err and err.count("\n") == 1


def test_a_session_opens_a_run_or_any_of_its_steps(folder):
    run = Session.open(folder / "text", device="cpu")
    step = Session.open(str(folder / "text" / "checkpoints" / "step_00000001"), device="cpu")
    assert torch.equal(run.score("def add"), step.score("def add"))
    assert not run.model.training


def test_a_session_of_a_task_reads_its_tokens(folder):
    session = Session.open(folder / "parity", device="cpu", batch=2)
    assert session.feed(torch.zeros(2, 3, dtype=torch.int64)).shape == (2, session.model.vocab_size)
    with pytest.raises(ConfigError, match="no tokenizer"):
        session.feed("abc")


def test_opening_a_directory_without_a_run_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint here"):
        Session.open(tmp_path)
    with pytest.raises(CheckpointError, match="no such directory"):
        Session.open(tmp_path / "missing")


def test_control_characters_do_not_reach_the_terminal():
    assert printable("a\x1b[2Jb\n\tü") == "a\ufffd[2Jb\n\tü"
