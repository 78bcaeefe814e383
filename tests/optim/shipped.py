"""The shipped optimizers, and the parameters of a small model for them."""

from pathlib import Path

import torch
from omegaconf import OmegaConf
from torch.nn import Parameter

from nested_learning.level import Level
from nested_learning.optim.config import GroupConfig, OptimConfig
from nested_learning.optim.optimizer import Optimizer
from nested_learning.optim.schedule import ScheduleConfig
from nested_learning.typed import convert

DIRECTORY = Path(__file__).parents[2] / "configs" / "optim"
SHIPPED = sorted(path.stem for path in DIRECTORY.glob("*.yaml"))

SLOW = Level("slow", 300, r"\.levels\.slow\.")
SHAPES = {
    "embedding.weight": (11, 6),
    "blocks.0.norm.weight": (6,),
    "blocks.0.mixer.query.weight": (6, 6),
    "blocks.0.mixer.key.weight": (6, 6),
    "blocks.0.mixer.conv.weight": (4, 6),
    "blocks.0.mixer.gate.weight": (2, 6),
    "blocks.0.mixer.gate.bias": (2,),
    "blocks.0.mixer.memory": (2, 3, 5),
    "blocks.0.mixer.temperature": (),
    "blocks.0.cms.levels.fast.up.weight": (12, 6),
    "blocks.0.cms.levels.slow.up.weight": (12, 6),
    "blocks.0.cms.levels.slow.norm.weight": (6,),
    "head.weight": (11, 6),
}


def shipped(name: str) -> OptimConfig:
    """Read one of the shipped files as the command line does."""
    return convert(OmegaConf.to_container(OmegaConf.load(DIRECTORY / f"{name}.yaml")), OptimConfig, "optim")


def group(name: str = "all", match: str = ".*", rule: str = "adamw", **keys) -> GroupConfig:
    """Make a group; keys that are not given have the usual values."""
    options = {"adamw": {"betas": [0.9, 0.95], "eps": 1e-8}, "muon": {"momentum": 0.95, "matrix": "batch"}}
    usual = {"lr": 0.01, "weight_decay": 0.0} | options.get(rule, {})
    return GroupConfig(name=name, match=match, rule=rule, **usual | keys)


def optim(*groups: GroupConfig, clip: float | None = None, **schedule) -> OptimConfig:
    """Make an optimizer configuration, at a constant rate unless the keys of the schedule say otherwise."""
    course = {"kind": "constant", "warmup": 0.0, "decay": 0.0, "final": 1.0} | schedule
    return OptimConfig(name="adamw", groups=list(groups), schedule=ScheduleConfig(**course), clip=clip)


def parameters(dtype: torch.dtype = torch.float32, device: str = "cpu") -> list[tuple[str, Parameter]]:
    """Make the parameters of a small model, always the same."""
    generator = torch.Generator().manual_seed(0)
    return [
        (name, Parameter(torch.randn(shape, generator=generator, dtype=dtype).to(device)))
        for name, shape in SHAPES.items()
    ]


def give_gradients(named_parameters: list[tuple[str, Parameter]], step: int) -> None:
    """Give every parameter the gradient of `step`."""
    generator = torch.Generator().manual_seed(1000 + step)
    for _, parameter in named_parameters:
        parameter.grad = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype).to(parameter.device)


def show_inputs(optimizer: Optimizer, step: int) -> None:
    """Give the optimizer random inputs of its layers for `step`, if its rules read inputs."""
    generator = torch.Generator().manual_seed(2000 + step)
    for inputs in optimizer.inputs.values():
        inputs.add(torch.randn(5, inputs.width, generator=generator).to(inputs.sum))
