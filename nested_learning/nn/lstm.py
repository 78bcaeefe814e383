"""The LSTM as a mixer: the sanity line of what a state that is not a matrix, and not read in parallel, can do."""

from typing import NamedTuple

from torch import nn

from nested_learning.nn.full_precision import full_precision
from nested_learning.shapes import Float, Tensor


class Cells(NamedTuple):
    """What an LSTM has memorised: its output of the last token, and its cells."""

    output: Float[Tensor, "b d"]
    cell: Float[Tensor, "b d"]


class LSTMState(NamedTuple):
    """Per row: the memory, which is all there is."""

    memory: Cells


class LSTM(nn.Module):
    """Long short-term memory (Gers et al. 2000, with the forget gate) and an output map. Argument: the width.

    Its forget gates start open (bias 1, Jozefowicz et al. 2015), all other biases at 0.
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
        """Return the state before the first token: nothing memorised."""
        nothing = self.output.weight.new_zeros(batch, self.lstm.hidden_size)
        return LSTMState(Cells(nothing, nothing))

    def reset_context(self, state: LSTMState) -> LSTMState:
        """Return the state before another text: the cells are a memory, and stay."""
        return state

    def forward(
        self, x: Float[Tensor, "b t d"], state: LSTMState, *, write: bool = True
    ) -> tuple[Float[Tensor, "b t d"], LSTMState]:
        """Read `x` token by token; without writing, every token is read from the same state, which stays."""
        rows, cells = x.shape[0], state.memory
        # the cells stay in the parameters' precision whatever autocast does around them
        with full_precision(x.device):
            tokens = x.to(self.output.weight.dtype)
            if write:
                y, (output, cell) = self.lstm(tokens, (cells.output[None], cells.cell[None]))
                cells = Cells(output[0], cell[0])
            else:
                same = (z.repeat_interleave(x.shape[1], dim=0)[None] for z in cells)
                y, _ = self.lstm(tokens.reshape(-1, 1, x.shape[2]), tuple(same))
                y = y.reshape(rows, -1, x.shape[2])
        return self.output(y.to(x.dtype)), LSTMState(cells)
