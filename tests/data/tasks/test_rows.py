import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nested_learning.data.source import IGNORE
from nested_learning.data.tasks.recall import RecallConfig
from nested_learning.data.tasks.rows import RowsConfig
from nested_learning.data.tokenizers.tokenizer import ByteTokenizer
from nested_learning.errors import ConfigError, DataError


def write(path: Path, *rows: Any) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def row(tokens: Any, targets: Any) -> dict[str, Any]:
    return {"tokens": tokens, "targets": targets}


GOOD = row([1, 2], [None, 1])


def test_rows_of_recall_from_a_file_are_those_of_recall(tmp_path: Path) -> None:
    recall = RecallConfig(num_pairs=2, gap=3).build(0)
    rows = [recall.row("train", 0, index) for index in range(10)]
    lines = [row(each.tokens.tolist(), [t if t >= 0 else None for t in each.targets.tolist()]) for each in rows]
    source = RowsConfig(path=write(tmp_path / "rows.jsonl", *lines), vocab_size=64, val_fraction=0.2).build(0)
    assert (source.vocab_size, source.seq_len, source.tokenizer) == (recall.vocab_size, recall.seq_len, None)
    assert [source.num_rows(split) for split in ("train", "validation")] == [8, 2]
    found = [source.row("train", epoch, 3) for epoch in (0, 1)] + [source.row("validation", 0, 1)]
    for one, other in zip(found, [rows[3], rows[3], rows[9]], strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_shorter_rows_end_in_blanks_and_minus_100_is_no_target(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", row([1, 2, 3], [-100, None, 4]), row([5], [6]))
    source = RowsConfig(path=path, validation_path=path, vocab_size=7).build(0)
    assert [source.num_rows(split) for split in ("train", "validation")] == [2, 2]
    first, second = source.row("train", 0, 0), source.row("validation", 0, 1)
    assert first.targets.tolist() == [IGNORE, IGNORE, 4]
    assert (second.tokens.tolist(), second.targets.tolist()) == ([5, 0, 0], [6, IGNORE, IGNORE])
    other = write(tmp_path / "b.jsonl", row([1, 2, 3], [None, None, 4]), row([5], [5]))
    assert RowsConfig(path=other, validation_path=path, vocab_size=7).build(0).fingerprint != source.fingerprint


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (row([1, 2], [None, None]), "row 2: needs .* at least one"),
        (row([], []), "row 2: needs"),
        (row([1, 2], [1]), "row 2: needs as many targets as tokens"),
        (row([1, 7], [1, 1]), r"row 2: its tokens must be a list of whole numbers from 0 to 6 \(data\.vocab_size\)"),
        (row([1, 1], [1, -1]), "row 2: its targets must be"),
        (row([1, 2**70], [1, 1]), "row 2: its tokens"),
        (row([1.0, 2], [1, 1]), "row 2: its tokens"),
        (row([True, 2], [1, 1]), "row 2: its tokens"),
        (row("12", [1, 1]), "row 2: its tokens"),
        (row([[1], [2]], [1, 1]), "row 2: its tokens"),
        (row([1, 2], 3), "row 2: needs as many"),
        (row([1, 2], {"a": 1}), "row 2: its targets"),
        ({"tokens": [1]}, "line 2: has no targets"),
        ([1, 2], "line 2: .* is not an object"),
    ],
)
def test_a_line_that_is_no_row_is_refused_by_its_number(tmp_path: Path, line: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        RowsConfig(path=write(tmp_path / "a.jsonl", GOOD, line), vocab_size=7).build(0)


def test_options_that_cannot_work_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", GOOD)
    for values, message in (
        ({"vocab_size": 7}, r"data\.path is missing"),
        ({"path": path}, r"data\.vocab_size is missing"),
        ({"path": path, "vocab_size": 1}, r"data\.vocab_size=1: must be at least 2"),
        ({"path": path, "vocab_size": 7, "val_fraction": float("nan")}, r"data\.val_fraction=nan"),
    ):
        with pytest.raises(ConfigError, match=message):
            RowsConfig(**values)  # type: ignore[arg-type]
    config = RowsConfig(path=path, vocab_size=7)
    with pytest.raises(DataError, match="has one row"):
        config.build(0)
    with pytest.raises(ConfigError, match="are not text"):
        config.build(0, ByteTokenizer())
    with pytest.raises(DataError, match=r"data\.validation_path=none: no such file"):
        RowsConfig(path=path, validation_path="none", vocab_size=7).require_files()
    # a model is opened without its data
    assert RowsConfig(path="none", vocab_size=7).num_tokens(0) == 7
