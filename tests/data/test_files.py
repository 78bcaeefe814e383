"""Files that the options of data name are looked for before any work begins."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nested_learning.data.mixture import MixtureConfig
from nested_learning.data.sequence import SequenceConfig
from nested_learning.data.source import DataConfig
from nested_learning.data.tasks.babilong import BabilongConfig
from nested_learning.data.tasks.classes import ClassesConfig
from nested_learning.data.tasks.needles import NeedlesConfig
from nested_learning.data.tasks.recall import RecallConfig
from nested_learning.data.tasks.rows import RowsConfig
from nested_learning.data.text.stdlib import StdlibConfig
from nested_learning.data.text.text import TextConfig
from nested_learning.data.text.tokens import TokensConfig
from nested_learning.errors import NestedLearningError


def text(path: str, **values: Any) -> TextConfig:
    return TextConfig(path=path, **values)


def mixture(source: DataConfig) -> MixtureConfig:
    return MixtureConfig(sources={"mine": source}, weights={"mine": 1})


def sequence(first: DataConfig, **values: Any) -> SequenceConfig:
    return SequenceConfig(sources={"mine": first, "other": StdlibConfig()}, **values)


MISSING: list[tuple[Callable[[], DataConfig], str]] = [
    (lambda: text("none.txt"), "data.path=none.txt: no such file or folder"),
    (lambda: TextConfig(path=["there.txt", "none.txt"]), "data.path=none.txt: no such file"),
    (lambda: text("records.jsonl"), "data.path=records.jsonl: records.jsonl is JSON lines"),
    (lambda: TokensConfig(path="none"), "none/manifest.json: no manifest of token shards"),
    (lambda: mixture(text("none.txt")), "data.sources.mine.path=none.txt: no such file"),
    (lambda: mixture(TokensConfig(path="none")), "none/manifest.json: no manifest"),
    (lambda: sequence(text("none.txt")), "data.sources.mine.path=none.txt: no such file"),
    (lambda: sequence(text("there.txt"), folder="none"), "data.sources.mine.path=none/there.txt: no such file"),
    (lambda: sequence(text("none.txt"), segments=2), "data.sources.mine.path=none.txt: no such file"),
    (lambda: sequence(text("there.txt"), segments=2), "data.segments=2: data.sources.other must be one text file"),
    (lambda: ClassesConfig(path="none.jsonl"), "data.path=none.jsonl: no such file"),
    (lambda: ClassesConfig(path="there.txt", validation_path="none"), "data.validation_path=none: no such file"),
    (lambda: RowsConfig(path="none.jsonl", vocab_size=9), "data.path=none.jsonl: no such file"),
    (lambda: BabilongConfig(path="none"), "data.path=none: has no qa1_*.txt"),
    (lambda: BabilongConfig(path="there.txt", books="none"), "data.books=none: no such file"),
    (lambda: NeedlesConfig(path="none"), "data.path=none: no such file"),
]

TOKENIZERS: list[tuple[Callable[[], DataConfig], str]] = [
    (lambda: text("there.txt", tokenizer="none.json"), "data.tokenizer=none.json: must be "),
    (lambda: text("there.txt", tokenizer="there.txt"), "there.txt: cannot be read as a tokenizer"),
    (lambda: StdlibConfig(tokenizer="none.json"), "data.tokenizer=none.json: must be "),
    (lambda: ClassesConfig(path="there.txt", tokenizer="none"), "data.tokenizer=none: must be "),
    (lambda: BabilongConfig(path="there.txt", tokenizer="none"), "data.tokenizer=none: must be "),
    (lambda: mixture(text("there.txt", tokenizer="none")), "data.sources.mine.tokenizer=none: must be "),
]


@pytest.mark.parametrize(("make", "message"), TOKENIZERS)
def test_a_tokenizer_is_needed_by_a_new_run_and_not_by_a_trained_model(
    make: Callable[[], DataConfig], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there.txt").write_text("not read yet")
    make().require_files()
    with pytest.raises(NestedLearningError) as caught:
        make().require_tokenizer()
    assert str(caught.value).startswith(message)
    for config in (text("there.txt"), TokensConfig(path="none"), RecallConfig(), NeedlesConfig()):
        config.require_tokenizer()


@pytest.mark.parametrize(("make", "message"), MISSING)
def test_what_is_missing_is_found_without_reading_text(
    make: Callable[[], DataConfig], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there.txt").write_text("not read yet")
    Path("records.jsonl").write_text("{}")
    with pytest.raises(NestedLearningError) as caught:
        make().require_files()
    assert str(caught.value).startswith(message)


def test_files_that_are_there_are_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there.txt").write_text("not read yet")
    for config in (text("there.txt"), mixture(text(".")), ClassesConfig(path="there.txt"), RecallConfig()):
        config.require_files()
    sequence(text("there.txt"), folder=str(tmp_path)).require_files()
