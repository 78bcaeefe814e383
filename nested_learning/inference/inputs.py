"""What is given to a session from Python: of the right type and in range, or a typed error before anything is read."""

from collections.abc import Iterable
from operator import index
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import torch

from nested_learning.data.batch import IGNORE
from nested_learning.errors import ConfigError, DataError
from nested_learning.inference.config import MemorizeConfig, MemoryConfig
from nested_learning.shapes import Int, Tensor
from nested_learning.typed import PathText, convert

INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def to_tokens(given: Any, vocab_size: int) -> Int[Tensor, "*b t"]:
    """Return tokens [b t] or [t] as int64. Raises DataError for anything else, and for tokens not in the vocabulary."""
    if not isinstance(given, Tensor) or given.dtype not in INTEGERS or given.dim() not in (1, 2):
        raise DataError(
            f"{describe(given)} is not read: give text (str), or tokens as a tensor of whole numbers, [b t] or [t]"
        )
    tokens = given.to(torch.int64)
    if tokens.numel() and not 0 <= int(tokens.min()) <= int(tokens.max()) < vocab_size:
        raise DataError(
            f"tokens from {int(tokens.min())} to {int(tokens.max())}: the vocabulary is 0 to {vocab_size - 1}"
        )
    return tokens


def to_rows(given: Any, vocab_size: int, batch: int) -> Int[Tensor, "b t"]:
    """Return tokens as `batch` rows; [t] is read by each. Raises DataError as `to_tokens`, and for other rows."""
    tokens = to_tokens(given, vocab_size)
    if tokens.dim() == 2 and len(tokens) != batch:
        raise DataError(f"tokens of shape {list(tokens.shape)}: this session reads [{batch} t], or [t] for all rows")
    return tokens if tokens.dim() == 2 else tokens.expand(batch, -1)


def to_targets(given: Any, vocab_size: int, shape: torch.Size) -> Int[Tensor, "b t"]:
    """Return the targets of tokens of this `shape`. Raises DataError as `to_tokens`; IGNORE is no token."""
    if not isinstance(given, Tensor) or given.shape != shape:
        raise DataError(f"targets: {describe(given)} is not a target for each token; give a tensor {list(shape)}")
    to_tokens(torch.where(given == IGNORE, 0, given), vocab_size)
    return given.to(torch.int64)


def to_indices(given: Iterable[int], batch: int) -> list[int]:
    """Return row numbers as a list. Raises DataError unless they are one or more rows of `batch`."""
    try:
        rows = [index(row) for row in given]
    except TypeError:
        rows = []
    if not rows or not 0 <= min(rows) <= max(rows) < batch:
        raise DataError(f"rows={given!r}: this session has the rows 0 to {batch - 1}; name at least one in a list")
    return rows


def to_policy(given: Any) -> MemoryConfig:
    """Return a memory policy by its name or its settings. Raises ConfigError for anything else."""
    policy = MemoryConfig(name=given) if isinstance(given, str) else given
    if not isinstance(policy, MemoryConfig):
        raise ConfigError(f'policy={given!r}: give "online", "frozen" or MemorizeConfig(...)')
    if policy.name == "memorize" and not isinstance(policy, MemorizeConfig):
        raise ConfigError('policy="memorize" needs settings: give policy=MemorizeConfig(...)')
    return policy


def to_path(given: Any) -> Path:
    """Return a path. Raises ConfigError for what names no file."""
    return Path(convert(fspath(given) if isinstance(given, PathLike) else given, PathText, "path"))


def describe(given: Any) -> str:
    """Name the type of a value, and the shape of a tensor."""
    kind = type(given).__name__
    return f"{kind} {list(given.shape)} of {given.dtype}" if isinstance(given, Tensor) else f"a value of type {kind}"
