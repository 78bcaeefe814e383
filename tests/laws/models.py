"""The models and memories that every law holds for: as configured, at the sizes of a test. Add one by one line."""

from functools import cache

import torch
from torch import nn

from nested_learning.command.compose import make_job
from nested_learning.config.option_files import open_option_files
from nested_learning.config.registry import CHOICES
from nested_learning.level import Level
from nested_learning.nn.cms import ContinuumMemory
from nested_learning.nn.init import initialise
from nested_learning.nn.language_model import LanguageModel

DIM, HEADS, CHUNK, VOCAB = 12, 2, 8, 19
LENGTHS = [1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 3]

SIZES = (f"model.dim={DIM}", "model.num_layers=2", f"model.num_heads={HEADS}", "model.expansion=0.75")
READS = {
    "chunk": ("model.memory.gradient=chunk", "model.memory.max_rate=0.2"),
    "frozen": ("model.memory.gradient=chunk", "model.memory.max_rate=0.2", "model.memory.read=chunk"),
}
WINDOW = ("model.window=5",)

# name -> command line; every option of `model=` is one without further overrides
MODELS: dict[str, tuple[str, ...]] = {
    **{name: (f"model={name}",) for name in CHOICES["model"]},
    "sliding_window": ("model=transformer", *WINDOW),
}
# the mixers of these models, apart from what surrounds them
MEMORIES: dict[str, tuple[str, ...]] = {
    **{name: line for name, line in MODELS.items() if name not in ("hope", "hope_attention")},
    "titans_no_conv": ("model=titans_lmm", "model.conv_width=1"),
    "titans_chunk": ("model=titans_lmm", *READS["chunk"]),
    "titans_frozen_read": ("model=titans_lmm", *READS["frozen"]),
    "titans_decaying": ("model=titans_deep", "model.start=learned"),
    "titans_deeper": ("model=titans_lmm", "model.memory.depth=3", *READS["frozen"]),
    "mac_deep": ("model=titans_mac", "model.memory.depth=2", "model.segment=6", "model.start=base", *READS["chunk"]),
    "mac_frozen_read": ("model=titans_mac", "model.num_persistent=0", "model.segment=11", *READS["frozen"]),
    "mag_deep": ("model=titans_mag", "model.memory.depth=2", "model.num_persistent=0", *READS["frozen"]),
    "mal_chunk": ("model=titans_mal", "model.start=base", *READS["chunk"]),
    "self_modifying_one_head": ("model=self_modifying", "model.num_heads=1"),
    "self_modifying_momentum": ("model=self_modifying", "model.memory.momentum=gate", "model.generating_chunk=3"),
    "self_modifying_deep": ("model=self_modifying", "model.memory.depth=2", *READS["chunk"]),
    "self_modifying_query": ("model=self_modifying", "model.adaptive=[key,value,gates,query]"),
    "self_modifying_static": ("model=self_modifying", "model.adaptive=[]"),
}

CLOCKS = {
    "task": ("model=hope_attention", "{rule: gd, lr: 0.05}", "sequential"),
    "task_nested": ("model=hope", "{rule: adamw, lr: 0.01, betas: [0.9, 0.9], eps: 1e-8}", "nested"),
    "task_inputs": ("model=transformer", "{rule: dgd, lr: 0.05, input_decay: 0.1}", "independent"),
    "local": ("model=titans_lmm", "{rule: gd, lr: 0.05, signal: local, gradient: through}", "sequential"),
}
# models whose levels are written inside the context, by the task's gradient or by a local signal
LEVELED = {
    name: (
        model,
        "objective=online",
        f"model.cms={cms}",
        f"model.levels=[{{name: fast, period: 4, context: {rule}}}, {{name: slow, period: 12, context: {rule}}}]",
    )
    for name, (model, rule, cms) in CLOCKS.items()
}


@cache
def make_config(*line: str):
    """The configuration of a model by its command line, with chunks of CHUNK tokens unless it says otherwise."""
    given = {override.split("=")[0] for override in line}
    sizes = [size for size in SIZES if size.split("=")[0] not in given]
    config = make_job(open_option_files(None), [*sizes, *line]).config.model
    if hasattr(config, "memory"):
        config.memory.chunk = CHUNK
    if hasattr(config, "segment") and "model.segment" not in given:
        config.segment = CHUNK
    if hasattr(config, "num_persistent") and hasattr(config, "window") and "model.window" not in given:
        config.window = 5
    if hasattr(config, "generating_chunk") and "model.generating_chunk" not in given:
        config.generating_chunk = CHUNK
    return config


def awaken(module: nn.Module) -> nn.Module:
    """Move every parameter off its initial value, in float64, so that no law holds just because a gate is constant."""
    for name, parameter in module.named_parameters():
        noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name)))
        parameter.data += 0.3 * noise
    return module.double()


def new_memory(name: str) -> nn.Module:
    """A memory as it starts out."""
    if name == "cms":
        cms = ContinuumMemory(DIM, [Level("fast", 0, ""), Level("slow", 64, "")], hidden_dim=8)
        initialise(cms, num_layers=1, seed=0)
        return cms
    return make_config(*MEMORIES[name]).build(VOCAB, seed=0).blocks[0].mixer


def make_memory(name: str) -> nn.Module:
    return awaken(new_memory(name))


def make_model(name: str) -> LanguageModel:
    return awaken(make_config(*MODELS[name]).build(VOCAB, seed=0))


def make_leveled_model(name: str) -> LanguageModel:
    return awaken(make_config(*LEVELED[name]).build(VOCAB, seed=0))
