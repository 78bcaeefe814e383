"""A stream of 50,000 tokens: the state keeps its size, the process its memory, and a token its price."""

from argparse import Namespace

import pytest

from scripts.benchmarks import stream

TINY = ["model.dim=16", "model.num_layers=1", "model.num_heads=2", "model.expansion=1"]
MIB = 2**20


@pytest.mark.parametrize(
    "model", ["hope", *(pytest.param(model, marks=pytest.mark.slow) for model in ("titans_lmm", "titans_deep"))]
)
def test_fifty_thousand_tokens_take_what_five_thousand_take(model: str) -> None:
    marks = stream.stream_apart(model, Namespace(tokens=50_000, piece=1024, set=TINY))
    assert [mark.tokens for mark in marks] == [5000 * (i + 1) for i in range(10)]
    assert len({mark.state_bytes for mark in marks}) == 1
    # the logits of 45,000 tokens would take 44 MiB, and what gradients need many times that
    assert marks[-1].resident_bytes - marks[0].resident_bytes < 16 * MIB
    # a price that grows with what was read would be ten times the first; timing is rough where others work too
    assert marks[-1].milliseconds_alone < 4 * min(mark.milliseconds_alone for mark in marks)


def test_the_cache_of_attention_grows_with_the_stream() -> None:
    marks = list(stream.stream(["model=transformer", *TINY], num_tokens=2000, piece=500, marks=2))
    assert marks[1].state_bytes == 2 * marks[0].state_bytes
