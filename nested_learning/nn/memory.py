"""The protocol of modules with a state along the sequence: memories, attention, blocks, whole models."""

from typing import Any, Protocol, runtime_checkable

from nested_learning.shapes import Float, Tensor

State = Any


@runtime_checkable
class MemoryModule(Protocol):
    """`(x, state) -> (y, state)`: the state is a value, batch first, with a private copy for each row.

    Laws that hold for every implementation (`tests/laws/test_memory_laws.py`): any split of `t` into calls gives the
    same outputs and state; rows are independent; causal to exactly 0.0; `write=False` leaves memories unchanged
    (windows and positions, which are not memory, advance); outer gradients reach every parameter.
    """

    def init_state(self, batch: int) -> State:
        """Return the state before the first token, for `batch` rows, on the device of the parameters."""
        ...

    def reset_context(self, state: State) -> State:
        """Return `state` for a new document: memories stay, the context (windows, caches, positions) is emptied."""
        ...

    def __call__(
        self, x: Float[Tensor, "b t d"], state: State, *, write: bool = True
    ) -> tuple[Float[Tensor, "b t d"], State]:
        """Return the outputs for `x`, continuing from `state`, and the state after the last token."""
        ...
