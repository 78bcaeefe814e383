"""A long stream: the state keeps its size, and the process its memory."""

from argparse import Namespace

import pytest

from scripts.benchmarks import stream

TINY = ["model.dim=16", "model.num_layers=1", "model.num_heads=2", "model.expansion=1"]
MIB = 2**20


@pytest.mark.parametrize(
    "model", ["hope", *(pytest.param(model, marks=pytest.mark.slow) for model in ("titans_lmm", "titans_deep"))]
)
def test_twenty_thousand_tokens_need_no_more_memory_than_two_thousand(model: str) -> None:
    marks = stream.stream_in_child(model, Namespace(tokens=20_000, piece=1024, set=TINY))
    assert [mark.tokens for mark in marks] == [2000 * (i + 1) for i in range(10)]
    assert len({mark.state_bytes for mark in marks}) == 1
    # the logits of 18,000 tokens would take 18 MiB, and what gradients need many times that
    assert marks[-1].resident_bytes - marks[0].resident_bytes < 16 * MIB


def test_the_cache_of_attention_grows_with_the_stream() -> None:
    marks = list(stream.stream(["model=transformer", *TINY], num_tokens=2000, piece=500, marks=2))
    assert marks[1].state_bytes == 2 * marks[0].state_bytes
