"""The workloads that fault_injection.py interrupts: started again in the same folder, they end with the same bytes."""

import math
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from nested_learning import checkpoint
from nested_learning.checkpoint import Progress
from nested_learning.command import main as cli
from nested_learning.command.compose import make_job
from nested_learning.config.option_files import open_option_files
from nested_learning.config.schema import Config
from nested_learning.data.tokenizers.tokenizer import ByteTokenizer
from nested_learning.optim.build import build_optimizer

TOKENS = ByteTokenizer()
SMALL = ["optim=mixed_muon", "data=copy", "data.length=4", "data.batch_size=2", "data.val_rows=2", "device=cpu"]
SMALL += ["model=transformer", "model.dim=8", "model.num_layers=1", "model.num_heads=1", "evals=[]", "backend=eager"]


@dataclass(frozen=True)
class Workload:
    """`prepare(folder)` makes the initial state; `work(folder)` is interrupted, and called again to resume.

    `before` are the steps of checkpoints that there were, `last` is the step that the work ends with, and `run` the
    run directory in the folder.
    """

    name: str
    what: str
    prepare: Callable[[Path], None]
    work: Callable[[Path], None]
    before: tuple[int, ...]
    last: int
    run: str = "runs/a"


def result(workload: Workload, folder: Path) -> dict[str, Any]:
    """Return what must be the same whatever happened on the way: the tensors at the last step, and the trace."""
    run = folder / workload.run
    found = checkpoint.find(run)
    checkpoint.verify(found)
    step = checkpoint.read_progress(found).step
    files = {path.name: sha256(path.read_bytes()).hexdigest() for path in sorted(found.glob("*.safetensors"))}
    metrics = run / "metrics.jsonl"
    lines = metrics.read_text().splitlines() if metrics.exists() else []
    trace = [line.partition(', "perf/')[0] for line in lines]
    return {"step": step, "trace": trace, **files}


def config_of(folder: Path, *more: str) -> Config:
    """Compose a run of a few hundred parameters on made-up data in `folder`."""
    return make_job(open_option_files(None), [*SMALL, f"out={folder / 'runs'}", "name=a", *more]).config


def make_parts(config: Config) -> tuple[Any, Any]:
    """Build a model and its optimizer."""
    model = config.model.build(TOKENS.vocab_size, 0)
    return model, build_optimizer(config.optim, list(model.named_parameters()), model.levels, 10, 10)


def take_step(model: Any, optimizer: Any, step: int) -> None:
    """Update by made-up gradients that depend on the weights and the step alone."""
    for number, parameter in enumerate(model.parameters()):
        parameter.grad = torch.cos(parameter.detach() * 7 + math.sin(step + number))
    optimizer.step(step)
    optimizer.zero_grad()


def save(run: Path, parts: tuple[Any, Any], step: int) -> None:
    """Save `parts` as those of `step`."""
    progress = Progress(step=step, tokens=10 * step, seed=0, source="made up", tokenizer=TOKENS.fingerprint)
    checkpoint.save(run, *parts, TOKENS, {"model": {"name": "transformer"}, "data": {"name": "copy"}}, progress)


def go_on(run: Path, config: Config, saved: Path, last: int) -> None:
    """Make the steps from the checkpoint `saved` to `last`, each of them saved."""
    parts = make_parts(config)
    checkpoint.tidy(run)
    checkpoint.verify(saved)
    checkpoint.load_model(saved, parts[0])
    checkpoint.load_optimizer(saved, parts[1])
    for step in range(checkpoint.read_progress(saved).step, last):
        take_step(*parts, step)
        save(run, parts, step + 1)


def saving(folder: Path) -> Workload:
    """Return the workload of one save, the third, which lets the first checkpoint go."""
    config = config_of(folder)

    def prepare(folder: Path) -> None:
        run, parts = folder / "runs" / "a", make_parts(config)
        run.mkdir(parents=True)
        for step in (0, 1):
            take_step(*parts, step)
            save(run, parts, step + 1)

    def work(folder: Path) -> None:
        run = folder / "runs" / "a"
        go_on(run, config, checkpoint.find(run), 3)

    return Workload("save", "a save that lets an older checkpoint go", prepare, work, (1, 2), 3)


def replacing(folder: Path) -> Workload:
    """Return the workload of a run that resumes from an older checkpoint and saves a step that exists already."""
    first = saving(folder)
    config = config_of(folder)

    def prepare(folder: Path) -> None:
        first.prepare(folder)
        run, parts = folder / "runs" / "a", make_parts(config)
        # of another future
        save(run, parts, 3)

    def work(folder: Path) -> None:
        run = folder / "runs" / "a"
        go_on(run, config, run / "checkpoints" / "step_00000002", 3)

    return Workload("again", "a save of a step that was saved before", prepare, work, (2, 3), 3)


def training(_folder: Path) -> Workload:
    """Return the workload of a whole run from its first file to its summary, with a save at every other step."""
    lines = [*SMALL, "name=a", "steps=6", "save_every=2", "val_every=3", "log_every=1"]

    def work(folder: Path) -> None:
        if status := cli.main([*lines, f"out={folder / 'runs'}"]):
            sys.exit(status)

    return Workload("run", "a whole run of 6 steps, saved every 2", lambda folder: folder.mkdir(), work, (), 6)


WORKLOADS: dict[str, Callable[[Path], Workload]] = {"save": saving, "again": replacing, "run": training}


def copy(template: Path, folder: Path) -> Path:
    """Copy what was there before to `folder`, in the place of what is there."""
    shutil.rmtree(folder, ignore_errors=True)
    return Path(shutil.copytree(template, folder))
