"""What each process does in tests of several processes."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from pytest import MonkeyPatch
from safetensors.torch import save_file
from torch import nn

from nested_learning.checkpoint import Progress
from nested_learning.config.schema import Config
from nested_learning.data.batch import IGNORE
from nested_learning.data.source import Row, Source
from nested_learning.errors import DivergedError, ReplicaError
from nested_learning.logger.protocol import Fanout
from nested_learning.phase.train import build, run
from nested_learning.train.run import RunContext, open_feed, prepare_process
from nested_learning.train.trainer import Trainer
from nested_learning.world.config import WorldConfig
from nested_learning.world.joining import open_world
from nested_learning.world.reduction import FixedTree
from nested_learning.world.world import World

ALONE = World(0, 1, 0, torch.device("cpu"), "gloo")


class Ragged:
    """The rows of another source, each with a different number of targets, so that a mean of means would be wrong."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.vocab_size, self.seq_len, self.tokenizer = source.vocab_size, source.seq_len, source.tokenizer
        self.fingerprint = source.fingerprint

    def num_rows(self, split: str) -> int:
        return self.source.num_rows(split)

    def row(self, split: str, epoch: int, index: int) -> Row:
        row = self.source.row(split, epoch, index)
        targets = row.targets.copy()
        targets[: 7 * index % self.seq_len] = IGNORE
        return row._replace(targets=targets)


@contextmanager
def trainer(config: Config, world: World, folder: Path) -> Iterator[Trainer]:
    """Make a trainer in double precision, so that an error is not mistaken for rounding; it writes no files."""
    torch.set_default_dtype(torch.float64)
    try:
        prepare_process(config.seed, world.device)
        parts = build(config, world)
        progress = Progress(seed=config.seed, source="", tokenizer=None)
        ctx = RunContext(folder, config, config.seed, world.device, torch.float32, world, Fanout())
        feed = open_feed(config, Ragged(parts.source), world)
        yield Trainer(ctx, feed, parts.model, parts.objective, parts.optimizer, progress)
    finally:
        torch.set_default_dtype(torch.float32)


def learn(config: Config, world: World, folder: Path) -> list[list[float]]:
    """Train, save the whole parameters in `folder`, and return the loss and gradient norm of every step."""
    metrics = []
    with trainer(config, world, folder) as made:
        for _ in range(config.steps):
            made.train_step(lambda: False)
            metrics.append([made.progress.metrics[name] for name in ("train/loss", "optim/grad_norm")])
        made.validate()
        metrics.append([value for name, value in made.progress.metrics.items() if name.startswith("val/")])
        parameters = {name: world.whole(weight.detach()) for name, weight in made.model.named_parameters()}
        if world.is_first:
            save_file(parameters, folder / "model.safetensors")
        metrics.append([sum(world.is_sharded(weight) for weight in made.model.parameters())])
    return metrics


def learn_all(cases: dict[str, Config], folder: Path) -> dict[str, list[list[float]]]:
    """Train every case with the world of its configuration."""
    found = {}
    for name, config in cases.items():
        with open_world("cpu", config.world) as world:
            (folder / name).mkdir(exist_ok=True)
            found[name] = learn(config, world, folder / name)
    return found


def add_up() -> dict[str, Any]:
    """Add up a number of each process, 1, 10, 100 and so on, with every operation of a world."""
    with open_world("cpu", WorldConfig(backend="gloo")) as world:
        own = 10.0**world.rank
        return {
            "sum": world.sum([own, [own, own]]),
            "gather": world.gather([own]),
            "total": world.total(torch.tensor(own)).item(),
        }


def gradients_of_pieces(size: int | None) -> dict[str, str | None]:
    """Read this process's share of 8 micro-batches, sum all gradients in a tree, and return the bits of the sum."""
    if size is None:
        return _gradients(ALONE)
    with open_world("cpu", WorldConfig(reduction="deterministic")) as world:
        return _gradients(world)


def _gradients(world: World) -> dict[str, str | None]:
    model = nn.ParameterDict({name: torch.ones(3, 5) for name in ("read", "late", "idle")})
    tree = FixedTree(model, world.size)
    for micro_batch in world.share_of(8):
        with tree.micro_batch(is_last=False):
            x = torch.randn(3, 5, generator=torch.Generator().manual_seed(micro_batch))
            loss = (model["read"] * x / 3).sum()
            if micro_batch == 7:
                loss = loss + (model["late"] * -0.0).sum()
            loss.backward()
    tree.finish()
    gradients = {name: parameter.grad for name, parameter in model.items()}
    bits = {
        name: None if grad is None else [number.hex() for number in grad.flatten().tolist()]
        for name, grad in gradients.items()
    }
    return bits | {"late": bits["late"][0]}


def find_what_differs(config: Config) -> dict[str, str]:
    """Compare replicas after changing a bit on one process: of nothing, a weight, an optimizer slot, a shard."""
    found = {}
    for kind, sharing in (("ddp", WorldConfig()), ("hsdp", WorldConfig(parallel="fsdp", shards=2))):
        with open_world("cpu", sharing) as world, trainer(config, world, Path("/nowhere")) as made:
            made.train_step(lambda: False)
            found[kind] = compared(made)
            weight = dict(made.model.named_parameters())["blocks.0.mixer.query.weight"].detach()
            if kind == "ddp":
                slot = made.optimizer.local_tensors()["embedding.weight/mean"]
                found["ddp, state"] = compared(made, slot if world.rank == 1 else None)
                found["ddp, weights"] = compared(made, weight if world.rank == 3 else None)
            else:
                found["hsdp, part"] = compared(made, weight.to_local() if world.rank == 3 else None)
    return found


def compared(made: Trainer, changed: torch.Tensor | None = None) -> str:
    """Return the error of comparing replicas while one bit of `changed` is flipped."""
    bits = None if changed is None else changed.view(torch.int64).flatten()[-1:]
    if bits is not None:
        bits ^= 1
    try:
        made.check_replicas()
    except ReplicaError as error:
        return str(error)
    finally:
        if bits is not None:
            bits ^= 1
    return ""


def run_all(configs: list[Config]) -> None:
    """Train every run to its end."""
    for config in configs:
        run(config)


def run_with_accident(configs: list[Config], rank: int, step: int, accident: str) -> list[str]:
    """Train every run, with an infinite gradient before `step` of process `rank`; return the divergence errors."""

    def train_step(trainer: Trainer, stop_asked: Callable[[], bool]) -> bool:
        if (trainer.world.rank, trainer.progress.step + 1) == (rank, step):
            ACCIDENTS[accident](trainer)
        return whole(trainer, stop_asked)

    whole, words = Trainer.train_step, []
    with MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "train_step", train_step)
        for config in configs:
            try:
                run(config)
            except DivergedError as error:
                words.append(str(error))
    return words


def make_infinite(trainer: Trainer) -> None:
    """Make the gradients of the next step infinite on this process, and of no later step."""
    step = trainer.progress.step

    def break_gradient(_module: nn.Module, _read: tuple[Any, ...], found: tuple[torch.Tensor, Any]) -> None:
        if trainer.progress.step == step and found[0].requires_grad:
            found[0].register_hook(lambda gradient: gradient / 0)

    trainer.model.register_forward_hook(break_gradient)


ACCIDENTS: dict[str, Callable[[Trainer], object]] = {
    "killed": lambda trainer: os.kill(os.getpid(), signal.SIGKILL),
    "hangs": lambda trainer: time.sleep(1000),
    "infinite": make_infinite,
}
