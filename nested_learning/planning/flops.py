"""The FLOPs of a model for a token, computed from its configuration without numbers.

Only the multiplications and additions (two for a pair) of matrix products are counted, as is usual, and those of
triangular systems, which matter in memories. Linear maps and memories are counted on the meta device, as torch would
compute them; softmax attention follows from the number of tokens that a token attends to.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from nested_learning.data.batch import Batch
from nested_learning.objective.config import LossConfig, ReconstructConfig
from nested_learning.planning.hardware import peak

if TYPE_CHECKING:
    from nested_learning.model.config import ModelConfig
    from nested_learning.objective.config import NextTokenConfig, OnlineConfig

    AnyObjective = NextTokenConfig | OnlineConfig | ReconstructConfig

# products with weights that all rows share; all other products belong to memories, whose weights differ by row
SHARED = (torch.ops.aten.mm, torch.ops.aten.addmm)


class Flops(NamedTuple):
    """Operations of one token, as a mean over a row. Every field but the last two counts forward and backward.

    `linear`: products with the model's weights, 6 for each weight. `memory`: reads and updates of memories, with
    the gradients through them. `attention`: softmax attention over all that the window holds, 12 for each
    token seen and feature of the width (the convention of PaLM, arXiv 2204.02311, appendix B); `causal`: the same
    without what a causal mask hides. `forward`: all of a forward pass, with `attention`; `head`: the part of it that is
    the product with the vocabulary.
    """

    linear: float
    memory: float
    attention: float
    causal: float
    forward: float
    head: float

    @property
    def total(self) -> float:
        """Return the operations of forward and backward by the convention of 12: what `mfu_12` counts."""
        return self.linear + self.memory + self.attention

    @property
    def total_causal(self) -> float:
        """Return those without what a causal mask hides: what `mfu_causal` counts."""
        return self.linear + self.memory + self.causal


def flops(model: "ModelConfig", objective: "AnyObjective", vocab_size: int, seq_len: int) -> Flops:
    """Return the operations of a token of a model that is trained on rows of `seq_len` tokens by `objective`.

    All layers have the same cost, and so have spans of `model.span` tokens after the first two, so only a few of each
    are counted.
    """
    if isinstance(objective, LossConfig):
        # by convention MFU leaves out recomputation, here that of logits
        objective = replace(objective, chunk=None)
    counted = row_lengths(model.span, seq_len, objective)
    ends = [_of_layers(model, objective, vocab_size, length) for length in counted]
    row = {name: line(counted, [end[name] for end in ends], seq_len) for name in ends[0]}
    # two products, q k and weights v, of 2 operations for each attended token and feature
    width = 4 * model.dim * model.num_layers
    seen, visible = model.attended(seq_len)
    return Flops(
        linear=row["linear"] / seq_len,
        memory=row["memory"] / seq_len,
        attention=3 * width * seen,
        causal=3 * width * visible,
        forward=row["forward"] / seq_len + width * seen,
        head=2.0 * model.dim * vocab_size,
    )


def row_lengths(span: int, seq_len: int, objective: "AnyObjective | None" = None) -> list[int]:
    """Return the row lengths to measure: two and three spans of `span` tokens and the remainder, or `seq_len`.

    `objective=reconstruct` divides its logits by the positions of a row, so that only whole rows can be measured.
    """
    spans, remainder = divmod(seq_len, span)
    if spans <= 3 or isinstance(objective, ReconstructConfig):
        return [seq_len]
    return [2 * span + remainder, 3 * span + remainder]


def line(x: list[int], y: list[float], at: int) -> float:
    """Return the value at `at` of the line through two points, or through one, where it is constant."""
    if len(x) == 1:
        return y[0]
    return y[0] + (y[1] - y[0]) * (at - x[0]) / (x[1] - x[0])


def _of_layers(model: "ModelConfig", objective: "AnyObjective", vocab_size: int, seq_len: int) -> dict[str, float]:
    """Return the operations of a row of all layers, from those of one and of none; attention is left out."""
    # FLOPs are linear in the number of layers, so two points give all; without layers only the head is left, once
    # forward and twice backward
    head = 2.0 * model.dim * vocab_size * seq_len
    layers, found = [0], [{"linear": 3 * head, "memory": 0.0, "forward": head}]
    if any(level.is_taught for level in model.levels):
        # levels with signal=teach differentiate the head once more, so 0 layers is not on the line
        layers, found = [2], [_count(replace(model, num_layers=2), objective, vocab_size, seq_len)]
    layers.append(1)
    found.append(_count(replace(model, num_layers=1), objective, vocab_size, seq_len))
    return {name: line(layers, [each[name] for each in found], model.num_layers) for name in found[0]}


def _count(model: "ModelConfig", objective: "AnyObjective", vocab_size: int, seq_len: int) -> dict[str, float]:
    """Count the operations of one row, without softmax attention, once for each configuration in this process."""
    key = repr((model, objective, vocab_size, seq_len))
    if key not in _COUNTED:
        _COUNTED[key] = _count_on_meta(model, objective, vocab_size, seq_len)
    return _COUNTED[key]


# configurations hold lists, so that they cannot be keys themselves
_COUNTED: dict[str, dict[str, float]] = {}


def _count_on_meta(model: "ModelConfig", objective: "AnyObjective", vocab_size: int, seq_len: int) -> dict[str, float]:
    with torch.device("meta"):
        built = model.build(vocab_size, seed=0)
        tokens = torch.zeros(1, seq_len, dtype=torch.int64)
        with _NoAttention():
            with _Products() as forward:
                step = objective.build()(built, Batch(tokens, tokens, tokens), built.init_state(1))
            with _Products() as backward:
                step.loss.backward()
    both = forward.found + backward.found
    linear = sum(both[kind] for kind in SHARED)
    return {"linear": float(linear), "memory": float(both.total() - linear), "forward": float(forward.found.total())}


class _NoAttention(TorchFunctionMode):
    """Replaces softmax attention by an operation without matrix products that passes gradients to all inputs."""

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call `function`, or the replacement of attention."""
        if function is F.scaled_dot_product_attention:
            q, k, v = args[:3]
            return q.mean(-1, keepdim=True) + k.mean((-2, -1), keepdim=True) + v.mean(-2, keepdim=True)
        return function(*args, **(kwargs or {}))


class _Products(TorchDispatchMode):
    """Counts as torch's FlopCounterMode does, by its formulas, and triangular systems too, in a tenth of the time."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[Any] = Counter()

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call `function`, and count its products."""
        result = function(*args, **(kwargs or {}))
        kind = function.overloadpacket
        if kind is torch.ops.aten.linalg_solve_triangular:
            # n equations in a triangle are n² operations for each right-hand side
            self.found[kind] += args[0].shape[-1] * args[1].numel()
        elif kind in flop_registry:
            self.found[kind] += flop_registry[kind](*args, **(kwargs or {}), out_val=result)
        return result


def parameters_in_products(model: torch.nn.Module) -> int:
    """Count the weights of linear maps, including the head: each takes two operations per token in a forward pass."""
    return sum(module.weight.numel() for module in model.modules() if isinstance(module, torch.nn.Linear))


def utilisation(known: Flops, tokens_per_second: float, most: float | None) -> dict[str, float | None]:
    """Return the MFU, by both conventions, of a run whose devices could make `most` operations a second together.

    None where the peak is unknown. Recomputed activations do not count.
    """
    if most is None:
        return {"mfu_12": None, "mfu_causal": None}
    return {
        "mfu_12": known.total * tokens_per_second / most,
        "mfu_causal": known.total_causal * tokens_per_second / most,
    }


def most_operations(device: torch.device, dtype: str, number: int) -> float | None:
    """Return the peak FLOP/s of `number` devices like this one in `dtype` (see `hardware.py`), None where unknown."""
    if device.type != "cuda":
        return None
    if dtype == "float32" and torch.get_float32_matmul_precision() != "highest":
        dtype = "tfloat32"
    each = peak(torch.cuda.get_device_name(device), dtype)
    return None if each is None else each * number
