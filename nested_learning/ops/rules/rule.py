"""The types that all rules share."""

from collections.abc import Callable
from typing import Any, NamedTuple

from nested_learning.shapes import Tensor

# a learning rate: one number, or a tensor that broadcasts over the rows of the weights, such as [b, 1, 1]
Rate = float | Tensor


class RuleFunctions(NamedTuple):
    """A rule's `init(w) -> state` and `update(w, g, state, *, lr, weight_decay, ...) -> (w, state)`."""

    init: Callable[..., Any]
    update: Callable[..., Any]
