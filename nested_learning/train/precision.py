"""The dtype of a forward pass, and the loss scale that keeps float16 gradients from underflowing."""

import math
from collections.abc import Iterable

import torch
from torch.nn import Parameter

from nested_learning.checkpoint import Progress

# the type of autocast; with float8 the linear maps are converted by themselves (float8.py)
DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float8": torch.bfloat16,
}

# those of torch.amp.GradScaler
START, GROWTH, BACKOFF, INTERVAL = 2.0**16, 2.0, 0.5, 2000


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """Return the context of a forward pass: matrix products in `dtype`; parameters and sums stay float32."""
    is_on = dtype != torch.float32
    return torch.autocast(device.type, dtype=dtype if is_on else torch.bfloat16, enabled=is_on)


class LossScale:
    """The factor by which the loss is multiplied before backward and its gradient divided after: 1 except for float16.

    Float16 has no number below 6e-8, so small gradients become 0. After INTERVAL steps without an overflow the scale
    grows; at an overflow it shrinks and the step is skipped, as in torch.amp.GradScaler (arXiv 1710.03740, section
    3.2). Other than there, the scale is stored in `progress`, so that checkpoints hold it, and is a power of 2, so that
    scaling does not round. At scale 1 an overflow has another cause and counts as divergence.
    """

    def __init__(self, progress: Progress, dtype: torch.dtype) -> None:
        """Start with the scale in `progress`, or at step 0 with START."""
        self.progress = progress
        self.is_on = dtype == torch.float16
        if self.is_on and progress.step == 0:
            progress.loss_scale = START

    @property
    def scale(self) -> float:
        """The factor of the next step's loss."""
        return self.progress.loss_scale

    @torch.no_grad()
    def undo(self, parameters: Iterable[Parameter]) -> None:
        """Divide every gradient by the scale, in place."""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if self.scale != 1.0 and gradients:
            torch._foreach_mul_(gradients, 1.0 / self.scale)

    def is_overflow(self, loss: float, *, is_finite: bool) -> bool:
        """Return whether the scale was too large: the gradient is not finite, but the loss, which is not scaled, is."""
        return self.scale > 1.0 and math.isfinite(loss) and not is_finite

    def note(self, *, is_overflow: bool) -> None:
        """Set the scale of the next step."""
        progress = self.progress
        if not self.is_on:
            return
        progress.scaled_steps = 0 if is_overflow else progress.scaled_steps + 1
        if is_overflow:
            progress.overflows += 1
            progress.loss_scale = max(1.0, progress.loss_scale * BACKOFF)
        elif progress.scaled_steps == INTERVAL:
            progress.scaled_steps, progress.loss_scale = 0, progress.loss_scale * GROWTH

    def metrics(self) -> dict[str, float]:
        """Return the metrics of a step: the next scale, and the number of steps skipped until then."""
        if not self.is_on:
            return {}
        return {"optim/loss_scale": self.scale, "optim/overflows": float(self.progress.overflows)}
