"""What a model costs: parameters by group, bytes of state, operations per token, memory of this process."""

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from nested_learning import tree
from nested_learning.data.batch import Batch
from nested_learning.nn.language_model import LanguageModel
from nested_learning.objective.protocol import Objective
from nested_learning.optim.optimizer import Optimizer

HEADER = ("group", "rule", "lr", "weight decay", "period", "tensors", "parameters")


def group_table(optimizer: Optimizer) -> str:
    """Lay out the optimizer's groups, one a line; the last line is their sum, the model."""
    groups = optimizer.table()
    rows = [HEADER, *(tuple(_cell(value) for value in group) for group in groups)]
    rows.append(
        ("total", "", "", "", "", str(sum(group[5] for group in groups)), f"{sum(group[6] for group in groups):,}")
    )
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADER))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


@torch.no_grad()
def state_bytes(model: LanguageModel, batch: Batch) -> tuple[int, int]:
    """Return the bytes of one row's state before the first token, and after the first row of `batch`."""
    before = model.init_state(1)
    _, after = model(batch.tokens[:1], before)
    return tree.nbytes(before), tree.nbytes(after)


def flops_per_token(model: LanguageModel, objective: Objective, batch: Batch) -> tuple[float, float]:
    """Count the operations per token of a forward pass, and of forward and backward, over the first row of `batch`.

    Matrix products and convolutions only, as is the custom; a multiplication and an addition are two.
    """
    row = Batch(*(tensor[:1] for tensor in batch))
    # the fused attention of the CPU is not counted
    with sdpa_kernel(SDPBackend.MATH):
        with FlopCounterMode(display=False) as forward:
            step = objective(model, row, model.init_state(1))
        with FlopCounterMode(display=False) as backward:
            step.loss.backward()
    model.zero_grad()
    num_tokens = row.tokens.numel()
    return forward.get_total_flops() / num_tokens, (forward.get_total_flops() + backward.get_total_flops()) / num_tokens


def _cell(value: str | float | int) -> str:
    if isinstance(value, str):
        return value
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
