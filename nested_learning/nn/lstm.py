"""The LSTM as a mixer: a baseline whose state is a vector."""

from typing import NamedTuple

from torch import nn

from nested_learning.nn.full_precision import full_precision
from nested_learning.shapes import Float, Tensor


class Cells(NamedTuple):
    """The memory of an LSTM: its output for the last token, and its cells."""

    output: Float[Tensor, "b d"]
    cell: Float[Tensor, "b d"]


class LSTMState(NamedTuple):
    """Per row: the memory; an LSTM has no other state."""

    memory: Cells


class LSTM(nn.Module):
    """Long short-term memory (with forget gates, Gers et al. 2000) and an output projection. Argument: the width.

    The biases of the forget gates start at 1 (Jozefowicz et al. 2015), all others at 0.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(dim, dim, batch_first=True)
        nn.init.zeros_(self.lstm.get_parameter("bias_ih_l0"))
        nn.init.zeros_(self.lstm.get_parameter("bias_hh_l0"))
        # torch orders the gates: input, forget, cell, output
        self.lstm.get_parameter("bias_ih_l0").data[dim : 2 * dim] = 1.0
        self.output = nn.Linear(dim, dim, bias=False)

    def init_state(self, batch: int) -> LSTMState:
        """Return the state before the first token: zeros."""
        zeros = self.output.weight.new_zeros(batch, self.lstm.hidden_size)
        return LSTMState(Cells(zeros, zeros))

    def reset_context(self, state: LSTMState) -> LSTMState:
        """Return the state for a new document: the cells are memory and stay."""
        return state

    def forward(
        self, x: Float[Tensor, "b t d"], state: LSTMState, *, write: bool = True
    ) -> tuple[Float[Tensor, "b t d"], LSTMState]:
        """Apply the LSTM token by token; with `write=False` every token starts from the same state, which stays."""
        rows, cells = x.shape[0], state.memory
        # the cells keep the precision of the parameters, also under autocast
        with full_precision(x.device):
            tokens = x.to(self.output.weight.dtype)
            if write:
                y, (output, cell) = self.lstm(tokens, (cells.output[None], cells.cell[None]))
                cells = Cells(output[0], cell[0])
            else:
                # every token becomes a row of its own, one step from the same state
                same = (z.repeat_interleave(x.shape[1], dim=0)[None] for z in cells)
                y, _ = self.lstm(tokens.reshape(-1, 1, x.shape[2]), tuple(same))
                y = y.reshape(rows, -1, x.shape[2])
        return self.output(y.to(x.dtype)), LSTMState(cells)
