import pytest

from nested_learning.data.source import IGNORE
from nested_learning.data.tasks.copy import CopyConfig
from nested_learning.errors import ConfigError


@pytest.mark.parametrize(("length", "num_symbols"), [(1, 2), (16, 16), (40, 5)])
def test_the_targets_at_the_blanks_are_the_symbols_before_the_separator(length: int, num_symbols: int) -> None:
    source = CopyConfig(length=length, num_symbols=num_symbols).build(0)
    seen = set()
    for index in range(100):
        tokens, targets, _ = (column.tolist() for column in source.row("train", 0, index))
        symbols = tokens[:length]
        assert tokens[length:] == [1] + [0] * length
        assert targets == [IGNORE] * (length + 1) + symbols
        seen |= set(symbols)
    assert seen == set(range(2, 2 + num_symbols))
    assert source.vocab_size == 2 + num_symbols


def test_no_symbol_and_a_single_kind_of_symbol_are_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"data\.length=0: must be at least 1"):
        CopyConfig(length=0)
    with pytest.raises(ConfigError, match=r"data\.num_symbols=1: must be at least 2"):
        CopyConfig(num_symbols=1)
