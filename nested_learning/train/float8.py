"""Linear maps in float8, by torchao: the products of hidden layers, forward and backward; weights stay as they are."""

import torch
from torch import nn

from nested_learning.errors import ConfigError

# matrix units need widths that are multiples of this
ALIGNMENT = 16
# (major, minor) of the first GPUs with float8 products
CAPABILITY = (8, 9)


def use_float8(model: nn.Module, device: torch.device, *, emulate: bool = False) -> int:
    """Let the hidden linear maps of `model` multiply in float8, in place; return their number.

    Each tensor is scaled by its largest number, weights and inputs to e4m3, gradients to e5m2 (arXiv 2209.05433). The
    head, gates, and maps whose widths are no multiples of 16 stay as they are. `emulate` rounds as float8 does and
    multiplies in float32, on any device. Raises ConfigError without torchao, or where the GPU has no float8.
    """
    if not emulate and not has_float8(device):
        raise ConfigError(
            f"dtype=float8: needs a GPU that multiplies in float8 (compute capability {CAPABILITY[0]}.{CAPABILITY[1]}, "
            f"such as H100 or L4), and {device} does not; use dtype=bfloat16"
        )
    try:
        from torchao.float8 import Float8LinearConfig, convert_to_float8_training
    except ImportError:
        raise ConfigError("dtype=float8: torchao is missing; pip install -e '.[fp8]', or use dtype=bfloat16") from None
    chosen = [name for name, module in model.named_modules() if is_hidden(module, name)]
    convert_to_float8_training(
        model, config=Float8LinearConfig(emulate=emulate), module_filter_fn=lambda _module, name: name in chosen
    )
    return len(chosen)


def is_hidden(module: nn.Module, name: str) -> bool:
    """Return whether a module is a linear map between hidden layers that float8 can multiply."""
    if not isinstance(module, nn.Linear) or name.rpartition(".")[2] in ("head", "gates"):
        return False
    return module.in_features % ALIGNMENT == 0 and module.out_features % ALIGNMENT == 0


def has_float8(device: torch.device) -> bool:
    """Return whether `device` multiplies in float8."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= CAPABILITY
