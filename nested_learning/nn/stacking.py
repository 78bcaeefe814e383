"""Level stacking: initialize the levels of a continuum memory with the MLPs of a trained model."""

import re
from collections.abc import Iterable, Mapping
from typing import cast

import torch
from torch import Tensor

from nested_learning.errors import ConfigError
from nested_learning.level import Level
from nested_learning.nn.cms import MLPMemory
from nested_learning.nn.language_model import Block, LanguageModel

IN_A_LEVEL = re.compile(r"(blocks\.\d+\.cms\.levels)\.(\w+)\.(.+)")
# parameters that only a model of several levels has: they keep their initial values
ONLY_IN_LEVELS = re.compile(r"\.cms\.(scale|levels\.\w+\.(key|value)\.weight)$")


@torch.no_grad()
def stack(model: LanguageModel, trained: LanguageModel) -> None:
    """Copy the weights of `trained`, a model like `model` with one level in each block, into `model`.

    The slowest level of a block gets the block's MLP. The others get the same `up` and a `down` of zero: with the
    residual they are the identity, on trained hidden units, until an update changes `down`. So the outputs of `model`
    are those of `trained`, to the bit, until a level updates, in each variant of the continuum memory.
    Raises ConfigError when `trained` has several levels or the models do not fit.
    Source: Nested Learning, arXiv 2512.24695, section 7.3; the identity is ours.
    """
    (only, *others), levels = _levels(trained), _levels(model)
    if others:
        names = [only.name, *(other.name for other in others)]
        raise ConfigError(f"stack_from: that model has levels {names}; give one with a single level, a Transformer")
    saved, unused = dict(trained.named_parameters()), set(dict(trained.named_parameters()))
    slowest = max(levels, key=_slowness).name
    for name, parameter in model.named_parameters():
        if ONLY_IN_LEVELS.search(name):
            continue
        in_level = IN_A_LEVEL.fullmatch(name)
        # (blocks.0.cms.levels).(fast).(up.weight): the same parameter of the only level of the trained model
        source = f"{in_level[1]}.{only.name}.{in_level[3]}" if in_level else name
        parameter.copy_(_fitting(saved, source, parameter))
        unused.discard(source)
        if in_level and in_level[2] != slowest and in_level[3] == "down.weight":
            parameter.zero_()
    if unused:
        raise ConfigError(f"stack_from: this model has no place for {sorted(unused)[0]}; use model=hope_attention")


def _levels(model: LanguageModel) -> list[Level]:
    memories = cast(Iterable[MLPMemory], cast(Block, model.blocks[0]).cms.levels.values())
    return [memory.level for memory in memories]


def _slowness(level: Level) -> tuple[bool, int]:
    """Return a sort key from fast to slow: levels with a context clock by period, then the others by period."""
    return (level.context is None, level.period if level.context is None else level.context.period)


def _fitting(saved: Mapping[str, Tensor], name: str, wanted: Tensor) -> Tensor:
    if name not in saved:
        raise ConfigError(f"stack_from: that model has no {name}; give a run whose blocks mix tokens like this model's")
    if saved[name].shape != wanted.shape:
        raise ConfigError(
            f"stack_from: {name} is {list(saved[name].shape)} there and {list(wanted.shape)} here; "
            "leave out model.* keys that set a size"
        )
    return saved[name]
