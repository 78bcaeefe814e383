import random
from pathlib import Path

import pytest

from nested_learning.data.text.documents import split_documents, to_text, walk_files


def documents(seed: int, num: int = 40) -> list[str]:
    rng = random.Random(seed)
    return [f"{i} " + "x" * rng.randrange(1, 400) for i in range(num)]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("fraction", [0.05, 0.1, 0.5])
def test_no_document_is_in_both_splits_and_none_is_lost(seed: int, fraction: float) -> None:
    texts = documents(seed)
    train, validation = split_documents(texts, fraction)
    assert not set(train) & set(validation)
    assert sorted(train + validation) == sorted(texts)
    assert [text for text in texts if text in train] == train
    share = sum(map(len, validation)) / sum(map(len, texts))
    assert 0.7 * fraction < share <= fraction


def test_the_split_depends_on_the_texts_and_not_on_their_order() -> None:
    texts = documents(0)
    assert set(split_documents(texts, 0.1)[1]) == set(split_documents(texts[::-1], 0.1)[1])


def test_a_text_that_occurs_twice_is_not_both_trained_on_and_validated() -> None:
    texts = documents(1)
    train, validation = split_documents(texts + texts[::-1], 0.3)
    assert len(train) + len(validation) == len(texts)


def test_each_split_has_at_least_one_document() -> None:
    assert split_documents(["a" * 50, "b" * 40], 0.1) == (["a" * 50], ["b" * 40])
    assert split_documents(["a", "b" * 1000], 0.9) == (["b" * 1000], ["a"])


def test_the_tail_of_a_single_document_is_validation_and_begins_with_a_line() -> None:
    text = "".join(f"line {i}\n" for i in range(100))
    (train,), (validation,) = split_documents([text], 0.1)
    assert train + validation == text
    assert train.endswith("\n")
    assert validation.startswith("line")
    assert 0.08 < len(validation) / len(text) <= 0.1


@pytest.mark.parametrize("text", ["x" * 100, "x" * 99 + "\n"])
def test_a_single_line_is_cut_inside(text: str) -> None:
    (train,), (validation,) = split_documents([text], 0.1)
    assert train + validation == text
    assert len(validation) == 10


@pytest.mark.parametrize(
    ("data", "text"),
    [(b"", None), (b"a\0b", None), (b"\xff\xfe", None), (b"caf\xe9", None), ("é\r\n".encode(), "é\r\n")],
)
def test_bytes_are_text_only_if_they_are_utf8_without_nul(data: bytes, text: str | None) -> None:
    assert to_text(data) == text


def test_files_are_walked_in_a_fixed_order_without_hidden_and_skipped_ones(tmp_path: Path) -> None:
    for name in ("b/2", "b/10", "a/1", ".git/x", "c/.hidden", "skipped/x", "d", "a.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    (tmp_path / "b" / "loop").symlink_to(tmp_path)
    found = [path.relative_to(tmp_path).as_posix() for path in walk_files(tmp_path, frozenset({"skipped"}))]
    assert found == ["a.py", "d", "a/1", "b/10", "b/2"]
