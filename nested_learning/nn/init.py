"""Initial weights: one table for all models, every parameter drawn from a generator keyed by (seed, its name)."""

import torch
from torch import nn

from nested_learning.seeds import derive_seed


@torch.no_grad()
def initialise(model: nn.Module, num_layers: int, seed: int) -> None:
    """Draw the matrices of `model` in place; vectors, biases and convolutions keep the constants of their modules.

    Source: ours; the residual scale is GPT-2's.

    ========================  ================================================================================
    parameter                 normal distribution with standard deviation
    ========================  ================================================================================
    embedding, head           1 / width: with a tied head a token's own logit starts near 1, the others near 0, so that
                              the first loss is ln(vocabulary) within a few percent at any width
    output, down              1 / sqrt(inputs) / sqrt(2 * layers): the residual stream starts at a width-free scale
    gates                     0: every gate starts at its bias
    other matrices            1 / sqrt(inputs); a memory's weights are [heads, inputs, outputs]
    ========================  ================================================================================
    """
    for name, parameter in model.named_parameters():
        parts = name.split(".")
        if parameter.dim() < 2 or "conv" in name or parts[-1].endswith("bias"):
            continue
        inputs = parameter.shape[-1] if parameter.dim() == 2 else parameter.shape[-2]
        std = inputs**-0.5
        if "embedding" in parts or "head" in parts:
            std = 1 / inputs
        elif "output" in parts or "down" in parts:
            std *= (2 * num_layers) ** -0.5
        elif any("gate" in part for part in parts):
            std = 0.0
        generator = torch.Generator().manual_seed(derive_seed(seed, "weights", name))
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * std)
