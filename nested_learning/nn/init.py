"""Initial weights: one table for all models. Each matrix has a random generator seeded by (seed, its name)."""

import torch
from torch import nn

from nested_learning.nn.memory_weights import MemoryWeights
from nested_learning.seeds import derive_seed
from nested_learning.shapes import Tensor


@torch.no_grad()
def initialise(model: nn.Module, num_layers: int, seed: int) -> None:
    """Draw the weights of all linear maps and embeddings of `model`, in place; other parameters keep their constants.

    A model on the meta device has no values and does not change. The scale of residual outputs is that of GPT-2.

    ========================  ==================================================================================
    weight of                 normal distribution with standard deviation
    ========================  ==================================================================================
    embedding, head           1 / width: with a tied head a token's own logit starts near 1, the others near 0,
                              so that the first loss is ln(vocabulary) within a few percent at any width
    output, down              1 / sqrt(inputs) / sqrt(2 * layers): the residual stream starts at one scale
    gates                     0: every gate starts at its bias
    memories                  what `nn/memory_weights.py` says
    other linear maps, LSTM   1 / sqrt(inputs)
    ========================  ==================================================================================
    """
    if next(model.parameters()).is_meta:
        return
    for name, module in model.named_modules():
        if isinstance(module, MemoryWeights):
            module.draw(torch.Generator().manual_seed(derive_seed(seed, "weights", name)))
        if isinstance(module, nn.LSTM):
            for key in ("weight_ih_l0", "weight_hh_l0"):
                weight = module.get_parameter(key)
                _draw(weight, weight.shape[1] ** -0.5, seed, f"{name}.{key}")
        if not isinstance(module, nn.Linear | nn.Embedding):
            continue
        inputs = module.weight.shape[1]
        match name.rpartition(".")[2]:
            case "embedding" | "head":
                std = 1 / inputs
            case "output" | "down":
                std = (2 * num_layers * inputs) ** -0.5
            case "gates":
                std = 0.0
            case _:
                std = inputs**-0.5
        _draw(module.weight, std, seed, f"{name}.weight")


def _draw(weight: Tensor, std: float, seed: int, name: str) -> None:
    # keyed by name: a weight stays the same when other parameters are added, and on any number of processes
    generator = torch.Generator().manual_seed(derive_seed(seed, "weights", name))
    weight.copy_(torch.randn(weight.shape, generator=generator) * std)
