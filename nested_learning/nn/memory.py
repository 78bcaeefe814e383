"""The protocol of everything that carries a state along a sequence: memories, attention, blocks, whole models."""

from typing import Any, Protocol, runtime_checkable

from nested_learning.shapes import Float, Tensor

State = Any


@runtime_checkable
class MemoryModule(Protocol):
    """`(x, state) -> (y, state)`: the state is a value, batch first, one private copy per row. Source: ours.

    The laws that hold for every implementation (`tests/laws/test_memory_laws.py`): any cut of `t` gives the same
    outputs and state; rows are independent; causal to exactly 0.0; `write=False` leaves what was memorised as it is
    (windows and positions, which are not memory, move on); outer gradients reach every parameter.
    """

    def init_state(self, batch: int) -> State:
        """Return the state before the first token, for `batch` rows, on the device of the parameters."""
        ...

    def reset_context(self, state: State) -> State:
        """Return `state` as another text finds it: what was memorised stays, what is context is empty."""
        ...

    def __call__(
        self, x: Float[Tensor, "b t d"], state: State, *, write: bool = True
    ) -> tuple[Float[Tensor, "b t d"], State]:
        """Read `x` on from `state`; return the outputs and the state after the last token."""
        ...
