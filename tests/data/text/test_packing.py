import random
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from nested_learning.data.curriculum import StageConfig, constant_stages, plan_stages
from nested_learning.data.feed import Feed
from nested_learning.data.source import IGNORE
from nested_learning.data.text.packed import PackedText, to_stream
from nested_learning.data.text.packing import PACKINGS, best_fit
from nested_learning.data.tokenizers.tokenizer import ByteTokenizer

END = ByteTokenizer.end


def make_documents(seed: int, number: int = 30) -> list[str]:
    """Documents of 1 to 40 letters without a letter in common, so that every transition identifies its document."""
    rng = random.Random(seed)
    letters = [chr(code) for code in range(33, 127)] + [chr(code) for code in range(33)]
    return ["".join(rng.choices(letters[3 * i : 3 * i + 3], k=rng.randrange(1, 40))) for i in range(number)]


def make_source(documents: list[str], seq_len: int, packing: str) -> PackedText:
    tokenizer = ByteTokenizer()
    streams = {split: to_stream(documents, tokenizer) for split in ("train", "validation")}
    return PackedText(streams, tokenizer, seq_len, packing=packing)


def transitions(documents: list[str]) -> Counter[tuple[int, int]]:
    """Count the transitions inside documents: from the `end` that opens one to the `end` that closes it."""
    return Counter(pair for text in documents for pair in pairwise([END, *text.encode(), END]))


def read(feed: Feed, steps: range) -> Counter[tuple[int, int]]:
    counts: Counter[tuple[int, int]] = Counter()
    for step in steps:
        (batch,) = feed.micro_batches(step)
        has_target = batch.targets != IGNORE
        counts.update(zip(batch.tokens[has_target].tolist(), batch.targets[has_target].tolist(), strict=True))
    return counts


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("seq_len", [1, 3, 16, 64])
@pytest.mark.parametrize("packing", PACKINGS)
def test_every_transition_of_every_document_is_a_target_exactly_once_an_epoch(
    packing: str, seq_len: int, seed: int
) -> None:
    documents = make_documents(seed)
    source = make_source(documents, seq_len, packing)
    # one step is one epoch
    feed = Feed(source, seed, constant_stages(source.num_rows("train"), seq_len))
    assert read(feed, range(1)) == read(feed, range(1, 2)) == transitions(documents)


@pytest.mark.parametrize("packing", PACKINGS)
def test_every_transition_is_a_target_once_when_a_stage_splits_the_rows(packing: str) -> None:
    documents = make_documents(7)
    source = make_source(documents, 16, packing)
    rows = source.num_rows("train")
    feed = Feed(source, 0, plan_stages([StageConfig(steps=4 * (rows // 2), batch_size=1, seq_len=4)], 1, 16))
    assert read(feed, range(4 * (rows // 2) + rows - rows // 2)) == transitions(documents)


@pytest.mark.parametrize("packing", PACKINGS)
def test_each_document_number_of_a_row_marks_one_document(packing: str) -> None:
    documents = make_documents(3)
    owner = {letter: i for i, text in enumerate(documents) for letter in text.encode()}
    source = make_source(documents, 24, packing)
    for index in range(source.num_rows("train")):
        row = source.row("train", 0, index)
        for number in np.unique(row.documents):
            here = row.documents == number
            letters = [*row.tokens[here].tolist(), *row.targets[here & (row.targets != IGNORE)].tolist()]
            assert len({owner[letter] for letter in letters if letter != END}) <= 1


def test_best_fit_cuts_no_document_that_fits_and_reports_its_padding() -> None:
    documents = make_documents(5)
    reports = {name: make_source(documents, 41, name).packings["train"].report() for name in PACKINGS}
    targets = sum(transitions(documents).values())
    for report in reports.values():
        assert (report.documents, report.targets, report.dropped) == (30, targets, 0)
        assert report.padding == pytest.approx(1 - targets / (41 * report.rows))
    assert reports["best_fit"].cut == 0 and reports["concat"].cut > 0.2
    assert reports["concat"].padding < 41 / targets
    source = make_source(documents, 41, "best_fit")
    rows = [source.row("train", 0, index) for index in range(source.num_rows("train"))]
    spans = [bytes(row.tokens[row.documents == n].tolist()[1:]) for row in rows for n in np.unique(row.documents)
              if row.targets[row.documents == n][0] != IGNORE]  # fmt: skip
    assert sorted(spans) == sorted(text.encode() for text in documents)


def fill_one_by_one(lengths: list[int], seq_len: int) -> list[int]:
    """Best fit, span by span from the longest to the shortest; return the free space of each row, sorted."""
    rooms: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [(free, i) for i, free in enumerate(rooms) if free >= length]
        if not fitting:
            rooms.append(seq_len)
        rooms[min(fitting)[1] if fitting else -1] -= length
    return sorted(rooms)


@pytest.mark.parametrize("seed", range(40))
def test_best_fit_equals_its_plain_definition(seed: int) -> None:
    rng = np.random.default_rng(seed)
    seq_len, sizes = int(rng.integers(1, 20)), rng.integers(1, 30, int(rng.integers(1, 40)))
    starts, end = np.cumsum(sizes) - sizes, int(sizes.sum())
    spans = best_fit(starts, end, seq_len)
    filled = np.add.reduceat(spans.lengths, spans.rows[:-1])
    cut = [seq_len] * sum(sizes // seq_len) + [size % seq_len for size in sizes.tolist() if size % seq_len]
    assert sorted((seq_len - filled).tolist()) == fill_one_by_one(cut, seq_len)
    # together the spans are the stream, every token once
    order = np.argsort(spans.starts)
    assert spans.starts[order].tolist() == [0, *np.cumsum(spans.lengths[order])[:-1].tolist()]
    assert spans.lengths.sum() == end


def test_many_documents_fill_their_rows_nearly_completely() -> None:
    sizes = np.random.default_rng(0).lognormal(6, 1.2, 200_000).astype(np.int64) + 1
    spans = best_fit(np.cumsum(sizes) - sizes, int(sizes.sum()), 2048)
    rows = len(spans.rows) - 1
    assert 1 - sizes.sum() / (rows * 2048) < 0.001
