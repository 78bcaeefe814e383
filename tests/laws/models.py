"""The subjects of the laws: a new memory or model joins by one line."""

from collections.abc import Callable

import torch
from torch import nn

from nested_learning.level import Level
from nested_learning.model.config import LevelConfig
from nested_learning.model.hope import HopeConfig
from nested_learning.model.hope_attention import HopeAttentionConfig
from nested_learning.model.titans_lmm import TitansLMMConfig
from nested_learning.model.transformer import TransformerConfig
from nested_learning.nn.attention import Attention
from nested_learning.nn.cms import ContinuumMemory
from nested_learning.nn.init import initialise
from nested_learning.nn.language_model import LanguageModel
from nested_learning.nn.self_modifying import SelfModifyingMemory
from nested_learning.nn.titans import TitansMemory

DIM, HEADS, CHUNK, VOCAB = 12, 2, 8, 19
LENGTHS = [1, CHUNK - 1, CHUNK, CHUNK + 1, 63]

MEMORIES: dict[str, Callable[[], nn.Module]] = {
    "attention": lambda: Attention(DIM, HEADS),
    "sliding_window": lambda: Attention(DIM, HEADS, window=5),
    "titans": lambda: TitansMemory(DIM, HEADS, conv_width=4, chunk=CHUNK),
    "titans_no_conv": lambda: TitansMemory(DIM, HEADS, conv_width=1, chunk=CHUNK),
    "self_modifying": lambda: SelfModifyingMemory(DIM, HEADS, conv_width=4, chunk=CHUNK),
    "self_modifying_one_head": lambda: SelfModifyingMemory(DIM, 1, conv_width=4, chunk=CHUNK),
    "cms": lambda: ContinuumMemory(DIM, [Level("fast", 0, ""), Level("slow", 64, "")], hidden_dim=8),
}

COMMON = dict(dim=DIM, num_layers=2, num_heads=HEADS, expansion=0.75, tie_embedding=True)
ONE_LEVEL = dict(levels=[LevelConfig(name="mlp", period=0)])
TWO_LEVELS = dict(levels=[LevelConfig(name="fast", period=0), LevelConfig(name="slow", period=64)])
WRITING = dict(conv_width=4, chunk=CHUNK)

MODELS = {
    "transformer": TransformerConfig(name="transformer", window=None, **COMMON, **ONE_LEVEL),
    "sliding_window": TransformerConfig(name="transformer", window=5, **COMMON, **ONE_LEVEL),
    "titans_lmm": TitansLMMConfig(name="titans_lmm", **COMMON, **ONE_LEVEL, **WRITING),
    "hope": HopeConfig(name="hope", **COMMON, **TWO_LEVELS, **WRITING),
    "hope_attention": HopeAttentionConfig(name="hope_attention", window=None, **COMMON, **TWO_LEVELS),
}


def awaken(module: nn.Module) -> nn.Module:
    """Move every parameter off its initial value, in float64, so that no law holds just because a gate is constant."""
    for name, parameter in module.named_parameters():
        noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name)))
        parameter.data += 0.3 * noise
    return module.double()


def make_memory(name: str) -> nn.Module:
    module = MEMORIES[name]()
    initialise(module, num_layers=1, seed=0)
    return awaken(module)


def make_model(name: str) -> LanguageModel:
    return awaken(MODELS[name].build(VOCAB, seed=0))
