from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from nested_learning.data.combined import rows_by_source
from nested_learning.data.curriculum import constant_stages
from nested_learning.data.feed import Feed
from nested_learning.data.mixture import Mixture
from nested_learning.data.sequence import DomainSequence, SequenceConfig
from nested_learning.data.source import SPLITS, DataConfig, Source
from nested_learning.data.tasks.copy import CopyConfig
from nested_learning.data.text.text import TextConfig
from nested_learning.errors import ConfigError, DataError

LETTERS = {"first": "a", "second": "b", "third": "c"}
STEPS_EACH, BATCH_SIZE = 3, 4


def make_config(folder: Path, **values: object) -> SequenceConfig:
    """Domains of one letter each. The second has fewer rows than are read of it."""
    sources: dict[str, DataConfig] = {}
    for name, letter in LETTERS.items():
        (folder / f"{name}.txt").write_text((letter * 31 + "\n") * (4 if name == "second" else 40))
        sources[name] = TextConfig(path=f"{name}.txt")
    given = {"sources": sources, "folder": str(folder), "seq_len": 8, "steps_each": STEPS_EACH}
    return SequenceConfig(**(given | {"batch_size": BATCH_SIZE, "val_rows": 6} | values))  # type: ignore[arg-type]


def letters(source: Source, step: int) -> set[str]:
    """Return the letters of the batch of a step."""
    (batch,) = Feed(source, 5, constant_stages(BATCH_SIZE, source.seq_len)).micro_batches(step)
    return words(batch.tokens.numpy().ravel())


def words(tokens: NDArray[np.int64]) -> set[str]:
    """Return the distinct letters among `tokens`."""
    return {chr(token) for token in tokens if token < 256} - {"\n"}


def read_all(source: Source) -> str:
    """Return the text of all rows, in the order of the text."""
    rows = [source.row(split, 0, i).targets for split in SPLITS for i in range(source.num_rows(split))]
    return bytes(int(token) for token in np.concatenate(rows) if 0 <= token < 256).decode()


def test_each_domain_is_read_for_its_steps_before_the_next_begins(tmp_path: Path) -> None:
    source = make_config(tmp_path).build(0)
    read = [letters(source, step) for step in range(4 * STEPS_EACH)]
    # after the last domain the first one again
    assert read == [{letter} for letter in "abca" for _ in range(STEPS_EACH)]


def test_the_reverse_order_is_the_reverse_and_the_joint_one_reads_all_at_once(tmp_path: Path) -> None:
    reverse = make_config(tmp_path, order="reverse").build(0)
    assert [letters(reverse, step) for step in (0, 3, 6)] == [{"c"}, {"b"}, {"a"}]
    joint = make_config(tmp_path, order="joint").build(0)
    assert isinstance(joint, Mixture) and len(set.union(*(letters(joint, step) for step in range(5)))) == 3
    assert reverse.fingerprint != make_config(tmp_path).build(0).fingerprint


def test_a_domain_resumes_where_it_stopped_and_repeats_no_row_before_its_end(tmp_path: Path) -> None:
    # all rows of these sources are different
    for name, first in (("small", 0), ("large", 5000)):
        (tmp_path / f"{name}.txt").write_text("".join(f"{first + number:07}\n" for number in range(20)))
    sources: dict[str, DataConfig] = {name: TextConfig(path=f"{name}.txt") for name in ("small", "large")}
    source = make_config(tmp_path, sources=sources).build(0)
    assert isinstance(source, DomainSequence) and source.num_rows("train") == 12
    for place, domain in enumerate(source.sources.values()):
        number = domain.num_rows("train")
        known = sorted(domain.row("train", 0, index).tokens.tobytes() for index in range(number))
        seen = [source.row("train", 2 * turn + place, i).tokens.tobytes() for turn in range(6) for i in range(12)]
        assert 12 < number < 24 and all(
            sorted(seen[start : start + number]) == known for start in range(0, 72 - number, number)
        )


def test_validation_reads_the_same_number_of_rows_of_each_domain(tmp_path: Path) -> None:
    source = make_config(tmp_path).build(0)
    assert {name: count for name, (_, count) in rows_by_source(source, 6).items()} == dict.fromkeys(LETTERS, 2)
    assert len(set(source.validation.values())) == 1
    each = source.num_rows("validation") // 3
    rows = [words(source.row("validation", 0, index).tokens) for index in range(3 * each)]
    assert rows == [{letter} for letter in LETTERS.values() for _ in range(each)]


def test_segments_split_one_text_into_domains(tmp_path: Path) -> None:
    text = "".join(f"{number:05}\n" for number in range(1000))
    (tmp_path / "book.txt").write_text(text)
    book: dict[str, DataConfig] = {"book": TextConfig(path="book.txt")}
    config = make_config(tmp_path, sources=book, segments=4)
    source = config.build(0)
    assert list(source.sources) == ["book_1", "book_2", "book_3", "book_4"]
    for part, domain in enumerate(source.sources.values()):
        assert read_all(domain) == text[1500 * part : 1500 * (part + 1)]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sources": {}}, r"data=sequence: data\.sources is empty"),
        ({"sources": {"a": TextConfig(path="x")}}, r"needs at least two domains; .* data\.segments=5"),
        ({"sources": {"a": CopyConfig()}}, r"data\.sources\.a\.name=copy: a source of data=sequence must be text"),
        ({"order": "backwards"}, r"data\.order=backwards: must be one of forward, reverse, joint"),
        ({"steps_each": 0}, r"data\.steps_each=0: must be at least 1"),
        ({"segments": 1}, r"data\.segments=1: must be at least 2"),
    ],
)
def test_sequences_that_cannot_be_built_are_refused(tmp_path: Path, values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_config(tmp_path, **values)


def test_only_an_existing_file_can_be_split(tmp_path: Path) -> None:
    there: dict[str, DataConfig] = {"a": TextConfig(path=["first.txt", "third.txt"])}
    with pytest.raises(ConfigError, match=r"data\.sources\.a must be one text file"):
        make_config(tmp_path, sources=there, segments=2).build(0)
    missing: dict[str, DataConfig] = {"a": TextConfig(path="none.txt")}
    with pytest.raises(DataError, match=r"data\.sources\.a\.path=.*none\.txt: no such file"):
        make_config(tmp_path, sources=missing, segments=2).build(0)


@pytest.mark.parametrize("start", range(5))
def test_a_span_of_a_file_has_complete_characters(tmp_path: Path, start: int) -> None:
    text = "é漢🙂x" * 50
    (tmp_path / "text.txt").write_text(text, encoding="utf-8")
    for end in range(300, 310):
        source = TextConfig(path=str(tmp_path / "text.txt"), span=[start, end], seq_len=1).build(0)
        found = read_all(source)
        assert found in text and len(found.encode()) >= end - start - 6


def test_a_span_beyond_the_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("short\n" * 20)
    with pytest.raises(DataError, match=r"span=\[10,500\]: the file has 120 bytes; use at most data\.span=\[10,120\]"):
        TextConfig(path=str(tmp_path / "text.txt"), span=[10, 500]).build(0)
    with pytest.raises(DataError, match=r"needs a single file"):
        TextConfig(path=str(tmp_path), span=[0, 50]).build(0)
    with pytest.raises(ConfigError, match=r"data\.span=\[5, 5\]"):
        TextConfig(path="x", span=[5, 5])
