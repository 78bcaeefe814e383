import pytest

from nested_learning.data.tasks.copy import CopyConfig
from nested_learning.data.tasks.parity import ParityConfig
from nested_learning.data.tokenizers.tokenizer import ByteTokenizer
from nested_learning.errors import ConfigError


def test_a_model_trained_on_text_cannot_read_a_task() -> None:
    with pytest.raises(ConfigError, match=r"data=copy: .*tokenizer byte.*use data=stdlib or data=text"):
        CopyConfig().build(0, ByteTokenizer())


def test_the_fingerprint_depends_on_task_and_seed_and_not_on_the_batch_size() -> None:
    fingerprint = CopyConfig().build(0).fingerprint
    assert fingerprint == CopyConfig(batch_size=2, val_rows=1).build(0).fingerprint
    others = [CopyConfig().build(1), CopyConfig(length=3).build(0), ParityConfig().build(0)]
    assert fingerprint not in {source.fingerprint for source in others}


def test_a_shorter_validation_is_the_beginning_of_a_longer_one() -> None:
    short, long = CopyConfig(val_rows=3).build(0), CopyConfig(val_rows=300).build(0)
    assert (short.num_rows("validation"), long.num_rows("validation")) == (3, 300)
    assert short.row("validation", 0, 2).tokens.tolist() == long.row("validation", 0, 2).tokens.tolist()


def test_another_seed_makes_other_rows() -> None:
    rows = [CopyConfig().build(seed).row("train", 0, 0).tokens.tolist() for seed in (0, 1)]
    assert rows[0] != rows[1]
