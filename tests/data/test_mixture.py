from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from nested_learning.data.combined import apportion, rows_by_source
from nested_learning.data.curriculum import constant_stages
from nested_learning.data.feed import Feed
from nested_learning.data.mixture import EPOCH_ROWS, Mixture, MixtureConfig
from nested_learning.data.source import Source
from nested_learning.data.tasks.copy import CopyConfig
from nested_learning.data.text.packed import PackedText, to_stream
from nested_learning.data.text.text import TextConfig
from nested_learning.data.tokenizers.tokenizer import ByteTokenizer
from nested_learning.errors import ConfigError


def make_source(first: int, rows: int) -> PackedText:
    """Rows of one letter each, from the `first` on."""
    tokenizer = ByteTokenizer()
    text = "".join(map(chr, range(first, first + rows - 1)))
    return PackedText({split: to_stream([text], tokenizer) for split in ("train", "validation")}, tokenizer, 1)


@pytest.fixture(scope="module")
def mixture() -> Mixture:
    sources: dict[str, Source] = {"many": make_source(32, 40), "few": make_source(80, 7), "one": make_source(100, 20)}
    return Mixture(sources, {"many": 5, "few": 3, "one": 2}, seed=1)


def source_of(token: int) -> str:
    """Return the source of a token. The first row of a source is its `end`, which does not identify it."""
    return "end" if token == 256 else "many" if token < 80 else "few" if token < 100 else "one"


def read(source: Source, steps: range, batch_size: int = 50, seed: int = 3) -> list[int]:
    feed = Feed(source, seed, constant_stages(batch_size, 1))
    return [int(token) for step in steps for token in feed.micro_batches(step)[0].tokens.flatten()]


def test_proportions_converge_to_the_weights_and_are_exact_after_an_epoch(mixture: Mixture) -> None:
    weights = {"many": 0.5 * 39 / 40, "few": 0.3 * 6 / 7, "one": 0.2 * 19 / 20}
    for number in (500, 2_000, EPOCH_ROWS):
        counts = Counter(map(source_of, read(mixture, range(number // 50))))
        for name, weight in weights.items():
            deviation = (weight * (1 - weight) / number) ** 0.5
            assert abs(counts[name] / number - weight) < 3 * deviation, (name, number)
    assert mixture.counts["train"] == {"many": 5_000, "few": 3_000, "one": 2_000}


def test_a_source_is_read_to_its_end_before_it_starts_over_in_another_order(mixture: Mixture) -> None:
    # in the order in which the mixture returns them
    rows = [int(mixture.row("train", 0, index).tokens[0]) for index in range(5_000, 8_000)]
    epochs = [rows[i : i + 7] for i in range(0, 2_996, 7)]
    assert all(sorted(epoch) == sorted(epochs[0]) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 300
    # the next epoch of the mixture continues from there
    following = [int(mixture.row("train", 1, index).tokens[0]) for index in range(5_000, 5_011)]
    assert sorted(rows[2_996:] + following[:3]) == sorted(epochs[0])


def test_the_rows_depend_on_the_seed(mixture: Mixture) -> None:
    again = Mixture(mixture.sources, {"many": 50, "few": 30, "one": 20}, seed=1)
    other = Mixture(mixture.sources, {"many": 5, "few": 3, "one": 2}, seed=2)
    assert again.fingerprint == mixture.fingerprint
    assert read(again, range(3)) == read(mixture, range(3)) != read(other, range(3))
    changed = Mixture(mixture.sources, {"many": 5, "few": 3, "one": 3}, seed=1)
    assert changed.fingerprint != mixture.fingerprint


def test_sources_are_mixed_within_a_batch(mixture: Mixture) -> None:
    assert all(len(set(map(source_of, read(mixture, range(step, step + 1))))) >= 3 for step in range(20))


def test_validation_has_the_same_proportions_and_no_row_twice(mixture: Mixture) -> None:
    # 7 rows are three tenths
    assert mixture.counts["validation"] == {"many": 11, "few": 7, "one": 4}
    rows = [int(mixture.row("validation", 0, i).tokens[0]) for i in range(mixture.num_rows("validation"))]
    assert Counter(rows).most_common(1)[0][1] <= 3 and rows.count(256) == 3
    assert {name: count for name, (_, count) in rows_by_source(mixture, 10).items()} == {"many": 5, "few": 3, "one": 2}
    assert {name: count for name, (_, count) in rows_by_source(mixture, 1).items()} == {"many": 1, "few": 1, "one": 1}
    alone = mixture.sources["few"]
    assert rows_by_source(alone, 10) == {"": (alone, 10)}


def test_apportioned_counts_add_up_exactly() -> None:
    assert apportion({"a": 1, "b": 1, "c": 1}, 10) == {"a": 4, "b": 3, "c": 3}
    for number in range(50):
        counts = apportion({"a": 0.17, "b": 2.6, "c": 1.1}, number)
        assert sum(counts.values()) == number
        assert np.allclose([counts["b"] / 2.6 * 3.87, counts["c"] / 1.1 * 3.87], number, atol=4)


def make_config(folder: Path, **values: object) -> MixtureConfig:
    for name in "ab":
        (folder / name).mkdir(exist_ok=True)
        for i in range(8):
            (folder / name / f"{i}.txt").write_text(f"{name} {i} says so\n" * 30)
    given = {"sources": {name: TextConfig(path=str(folder / name)) for name in "ab"}, "weights": {"a": 3.0, "b": 1.0}}
    return MixtureConfig(**(given | values))  # type: ignore[arg-type]


def test_all_sources_share_the_keys_of_the_mixture_and_one_tokenizer(tmp_path: Path) -> None:
    sources = {
        "a": TextConfig(path=str(tmp_path / "a"), tokenizer="bpe", vocab_size=264),
        "b": TextConfig(path=str(tmp_path / "b")),
    }
    mixture = make_config(tmp_path, sources=sources, seq_len=24, packing="best_fit").build(0)
    assert [(each.seq_len, each.vocab_size) for each in mixture.sources.values()] == [(24, 264), (24, 264)]
    assert mixture.tokenizer is not None and "says so" in mixture.tokenizer.decode(mixture.row("train", 0, 0).tokens)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sources": {}}, r"data\.sources is empty; give e\.g\. 'data\.sources="),
        ({"sources": {"a": CopyConfig()}}, r"data\.sources\.a\.name=copy: a source of data=mixture must be text"),
        (
            {"weights": {"a": 1.0}},
            r"data\.weights: names a, but the sources are a, b; give 'data\.weights=\{a:1,b:1\}'",
        ),
        ({"weights": {"a": 1.0, "b": 0.0}}, r"data\.weights\.b=0\.0: must be positive"),
        ({"sources": {"a": TextConfig(path="x", seq_len=99)}}, r"data\.sources\.a\.seq_len=99: .* use data\.seq_len="),
    ],
)
def test_mixtures_that_cannot_be_built_are_refused_with_their_fix(
    tmp_path: Path, values: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        make_config(tmp_path, **values)
