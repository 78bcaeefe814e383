import pytest

from nested_learning.data.source import IGNORE
from nested_learning.data.tasks.parity import ParityConfig
from nested_learning.errors import ConfigError


@pytest.mark.parametrize(("shortest", "longest"), [(1, 1), (2, 40), (41, 80)])
def test_the_target_at_every_bit_is_the_parity_so_far_and_blanks_have_none(shortest: int, longest: int) -> None:
    source = ParityConfig(min_length=shortest, max_length=longest).build(0)
    assert source.seq_len == longest
    for index in range(50):
        tokens, targets, _ = (column.tolist() for column in source.row("train", 0, index))
        length = tokens.index(2) if 2 in tokens else longest
        assert shortest <= length <= longest
        assert tokens[length:] == [2] * (longest - length)
        assert targets[:length] == [sum(tokens[: i + 1]) % 2 for i in range(length)]
        assert targets[length:] == [IGNORE] * (longest - length)


def test_every_length_between_the_bounds_occurs() -> None:
    source = ParityConfig(min_length=2, max_length=6).build(0)
    lengths = {int((source.row("train", 0, index).tokens != 2).sum()) for index in range(100)}
    assert lengths == {2, 3, 4, 5, 6}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"min_length": 0}, r"data\.min_length=0: must be at least 1"),
        ({"max_length": 0}, r"data\.max_length=0: must be at least 1"),
        ({"min_length": 41}, r"data\.max_length=40: must be at least data\.min_length=41; use data\.max_length=41 or"),
    ],
)
def test_impossible_lengths_are_refused_by_name(values: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ParityConfig(**values)  # type: ignore[arg-type]
