"""What every source of data must satisfy. A new source joins by one line in SOURCES."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from nested_learning.data.combined import CombinedSource
from nested_learning.data.loader import train_batch, validation_batches
from nested_learning.data.mixture import MixtureConfig
from nested_learning.data.sequence import SequenceConfig
from nested_learning.data.source import IGNORE, SPLITS, DataConfig, Row, Source
from nested_learning.data.tasks.babilong import BabilongConfig
from nested_learning.data.tasks.classes import ClassesConfig
from nested_learning.data.tasks.copy import CopyConfig
from nested_learning.data.tasks.facts import FactsConfig
from nested_learning.data.tasks.formal import ALL_LANGUAGES, FormalConfig
from nested_learning.data.tasks.mad import MadConfig
from nested_learning.data.tasks.mad_tasks import TASKS
from nested_learning.data.tasks.needles import NeedlesConfig
from nested_learning.data.tasks.parity import ParityConfig
from nested_learning.data.tasks.recall import RecallConfig
from nested_learning.data.tasks.rows import RowsConfig
from nested_learning.data.text.prepare import PrepareConfig, prepare
from nested_learning.data.text.stdlib import StdlibConfig
from nested_learning.data.text.text import TextConfig
from nested_learning.data.text.tokens import TokensConfig


def shards_of(path: str) -> str:
    """Prepare the texts in `path`, a folder; return the folder of their tokens."""
    folder = Path(f"{path}_shards")
    prepare(folder, PrepareConfig(sources=[path], val_fraction=0.3, shard_tokens=8000), log=lambda _: None)
    return str(folder)


def labelled_texts_of(path: str) -> str:
    """Write labelled texts into a file beside `path`; return it."""
    file = Path(f"{path}.jsonl")
    lines = [json.dumps({"text": f"text {i} of {i % 5}", "label": f"label_{i % 5}"}) for i in range(400)]
    file.write_text("\n".join(lines))
    return str(file)


def stories_of(path: str) -> str:
    """Write stories like those of bAbI beside the texts in `path`; return their folder."""
    folder = Path(f"{path}_stories")
    folder.mkdir(exist_ok=True)
    places = ("kitchen", "garden", "office", "hallway")
    lines = [
        f"1 Mary moved to the {places[i % 4]}.\n2 John took {i} steps.\n3 Where is Mary? \t{places[i % 4]}\t1\n"
        for i in range(200)
    ]
    (folder / "qa1_places_train.txt").write_text("".join(lines))
    return str(folder)


def rows_of(path: str) -> str:
    """Write rows of two lengths into a file beside `path`; return it."""
    file = Path(f"{path}_rows.jsonl")
    rows = [{"tokens": [i % 7, i // 7, 1][: 2 + i % 2], "targets": [None, 3, 4][: 2 + i % 2]} for i in range(400)]
    file.write_text("\n".join(map(json.dumps, rows)))
    return str(file)


SOURCES: dict[str, Callable[[str], DataConfig]] = {
    "text": lambda path: TextConfig(path=path, seq_len=64),
    "best_fit": lambda path: TextConfig(path=path, seq_len=64, packing="best_fit"),
    "mixture": lambda path: MixtureConfig(
        sources={"texts": TextConfig(path=path), "stdlib": StdlibConfig()},
        weights={"texts": 1.0, "stdlib": 2.0},
        seq_len=64,
    ),
    "sequence": lambda path: SequenceConfig(
        sources={"texts": TextConfig(path=path), "stdlib": StdlibConfig()}, seq_len=64, batch_size=4, steps_each=2
    ),
    "text_bpe": lambda path: TextConfig(path=path, seq_len=64, tokenizer="bpe", vocab_size=280),
    "text_words": lambda path: TextConfig(path=path, seq_len=64, tokenizer="words", vocab_size=261),
    "tokens": lambda path: TokensConfig(path=shards_of(path), seq_len=64),
    "stdlib": lambda _: StdlibConfig(seq_len=64),
    "classes": lambda path: ClassesConfig(path=labelled_texts_of(path), num_tasks=2, text_len=48),
    "rows": lambda path: RowsConfig(path=rows_of(path), vocab_size=64),
    "recall": lambda _: RecallConfig(),
    "recall_changed": lambda _: RecallConfig(num_changed=2),
    "facts": lambda _: FactsConfig(),
    "needles": lambda _: NeedlesConfig(seq_len=256),
    "needles_in_books": lambda path: NeedlesConfig(
        tasks=["niah_multiquery", "niah_multikey_3"], seq_len=700, path=path
    ),
    "babilong": lambda path: BabilongConfig(path=stories_of(path), seq_len=200),
    "parity": lambda _: ParityConfig(),
    "copy": lambda _: CopyConfig(),
    # short words come up again and again
    **{name: lambda _, name=name: FormalConfig(language=name, min_length=20) for name in ALL_LANGUAGES},
    **{name: lambda _, name=name: MadConfig(task=name) for name in TASKS},
}
# languages with one word of each length: all there is gets trained on
FEW_ROWS = ("aa", "abab", "anbn", "anbncn")


@pytest.fixture(scope="module", params=SOURCES)
def config(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> DataConfig:
    folder = tmp_path_factory.mktemp("texts")
    for i in range(12):
        (folder / f"{i}.txt").write_text("".join(f"line {j} of text {i} says {i * j}\n" for j in range(80)))
    return SOURCES[request.param](str(folder))


@pytest.fixture(scope="module")
def source(config: DataConfig) -> Source:
    return config.build(0)


def some_rows(source: Source, split: str) -> list[Row]:
    last = source.num_rows(split) - 1
    return [source.row(split, epoch, index) for epoch in (0, 1) for index in sorted({0, 1, last // 2, last})]


def same(first: Row, second: Row) -> bool:
    return all(map(np.array_equal, first, second))


@pytest.mark.parametrize("split", SPLITS)
def test_a_row_is_a_function_of_its_place(config: DataConfig, source: Source, split: str) -> None:
    again = config.build(0)
    assert again.fingerprint == source.fingerprint
    backwards = [again.row(split, 1, index) for index in reversed(range(min(20, again.num_rows(split))))]
    for index, row in enumerate(reversed(backwards)):
        assert same(row, source.row(split, 1, index))


@pytest.mark.parametrize("split", SPLITS)
def test_rows_are_whole_numbers_of_one_length_and_changing_one_changes_no_other(source: Source, split: str) -> None:
    for row in some_rows(source, split):
        assert {(column.dtype, column.shape) for column in row} == {(np.dtype(np.int64), (source.seq_len,))}
    source.row(split, 0, 0).tokens.fill(-1)
    source.row(split, 0, 0).targets.fill(-1)
    assert source.row(split, 0, 0).tokens.min() >= 0
    assert source.row(split, 0, 0).targets.max() >= 0


@pytest.mark.parametrize("split", SPLITS)
def test_tokens_and_targets_are_in_the_vocabulary_and_every_row_has_a_target(source: Source, split: str) -> None:
    for row in some_rows(source, split):
        assert 0 <= row.tokens.min() <= row.tokens.max() < source.vocab_size
        targets = row.targets[row.targets != IGNORE]
        assert len(targets) > 0
        assert 0 <= targets.min() <= targets.max() < source.vocab_size


@pytest.mark.parametrize("split", SPLITS)
def test_documents_count_up_from_zero(source: Source, split: str) -> None:
    for row in some_rows(source, split):
        assert row.documents[0] == 0
        assert set(np.diff(row.documents).tolist()) <= {0, 1}


def test_resuming_at_a_step_reads_the_very_next_batch(config: DataConfig, source: Source) -> None:
    straight = [train_batch(source, 5, step, 0, 1, 4) for step in range(6)]
    resumed = config.build(0)
    for step in (5, 3, 4):
        assert all(map(torch.equal, straight[step], train_batch(resumed, 5, step, 0, 1, 4)))


def test_another_seed_reads_other_batches(config: DataConfig, source: Source) -> None:
    other = config.build(1)
    assert not torch.equal(train_batch(source, 0, 0, 0, 1, 8).tokens, train_batch(other, 1, 0, 0, 1, 8).tokens)


def test_validation_reads_the_same_rows_every_time(config: DataConfig, source: Source) -> None:
    first = list(validation_batches(source, 6, 4))
    second = list(validation_batches(replace(config, batch_size=1).build(0), 6, 4))
    assert [len(batch.tokens) for batch in first] == [4, 2]
    for before, after in zip(first, second, strict=True):
        assert all(map(torch.equal, before, after))


def test_validation_rows_are_not_training_rows(config: DataConfig, source: Source) -> None:
    if isinstance(config, FormalConfig) and config.language in FEW_ROWS:
        pytest.skip("the language has one word of each length")
    trained = {source.row("train", 0, i).tokens.tobytes() for i in range(min(500, source.num_rows("train")))}
    validated = [source.row("validation", 0, i).tokens.tobytes() for i in range(min(20, source.num_rows("validation")))]
    # two short rows of parity may be equal by chance
    assert sum(row in trained for row in validated) <= 3


def test_a_tokenizer_fits_the_vocabulary_and_gives_the_text_back(source: Source) -> None:
    if source.tokenizer is None:
        assert source.vocab_size <= 512
        return
    assert source.tokenizer.vocab_size == source.vocab_size == len(source.tokenizer.token_bytes)
    row = source.row("train", 0, 0)
    # the first row of several sources is any row of the first
    assert isinstance(source, CombinedSource) or row.tokens[0] == source.tokenizer.end
    text = source.tokenizer.decode(row.tokens[1:])
    assert source.tokenizer.decode(source.tokenizer.encode(text)) == text
