"""`phase=train`: build the parts, train, say what came out and what to try next."""

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from nested_learning.checkpoint import Progress
from nested_learning.data.batch import Batch, to
from nested_learning.data.describe import describe_rows, packing_reports
from nested_learning.data.fingerprint import order_fingerprint
from nested_learning.data.loader import train_batch
from nested_learning.data.source import Source
from nested_learning.errors import ConfigError
from nested_learning.files import write_atomic
from nested_learning.hub.open_run import open_trained
from nested_learning.inference.samples import continuation, printable
from nested_learning.inference.session import Session
from nested_learning.logger.build import METRICS
from nested_learning.logger.jsonl import read_lines
from nested_learning.nn.backend import use_backend
from nested_learning.nn.dropout import evaluating
from nested_learning.nn.language_model import LanguageModel
from nested_learning.nn.recomputing import use_recompute
from nested_learning.nn.stacking import stack
from nested_learning.objective.protocol import Objective
from nested_learning.optim.build import build_optimizer
from nested_learning.optim.optimizer import Optimizer
from nested_learning.phase import Result
from nested_learning.phase.cost import group_table
from nested_learning.phase.dry_run import dry_run
from nested_learning.planning.flops import flops, utilisation
from nested_learning.train.branch import branch
from nested_learning.train.compiling import Compiled
from nested_learning.train.float8 import use_float8
from nested_learning.train.run import (
    count_micro_batches,
    lock_run,
    note_environment,
    open_feed,
    prepare_process,
    program,
)
from nested_learning.train.stopwatch import Stopwatch, peak_memory_bytes
from nested_learning.train.trainer import Trainer, start
from nested_learning.world.joining import open_world
from nested_learning.world.world import World

if TYPE_CHECKING:
    from nested_learning.config.schema import Config

SUMMARY = "summary.json"


class Parts(NamedTuple):
    """What is trained, by what, on what; `batch` is the first micro-batch of the first batch.

    `backend` says what computes the memories.
    """

    source: Source
    model: LanguageModel
    objective: Objective
    optimizer: Optimizer
    batch: Batch
    backend: str


def run(config: "Config") -> Result:
    """Train the configured model, or go on with a run that was stopped. Raises NestedLearningError for bad input.

    Nothing is created before all that can fail on the configuration, the data or a checkpoint has been tried.
    """
    config.memory.refuse_memorize("train")
    if config.dry_run:
        return dry_run(config)
    watch = Stopwatch()
    with open_world(config.device, config.world) as world:
        prepare_process(config.seed, world.device, is_elastic=config.world.is_deterministic)
        parts = build(config, world)
        with lock_run(config, world) as place:
            progress = begin_or_go_on(place.checkpoint, config, parts, world)
            if place.directory is not None and is_complete(place.directory, progress, config.steps):
                say(world, f"complete already: {place.directory}")
            else:
                progress.lost += lost_seconds(place.directory, progress)
                ctx = place.begin(progress.step)
                announce(ctx.directory, progress, parts, world)
                trainer = Trainer(
                    ctx, parts.source, parts.model, parts.objective, parts.optimizer, progress, watch, parts.batch
                )
                announce_compiled(ctx.directory, trainer.compiled, world)
                trainer.fit()
                write_summary(ctx.directory, trainer, parts)
        assert place.directory is not None
        return conclude(config, place.directory, progress, parts, world)


def begin_or_go_on(saved: Path | None, config: "Config", parts: Parts, world: World) -> Progress:
    """Return how far the run is: as far as the checkpoint `saved`, as the run it branches from, or at its beginning."""
    source, model, _, optimizer, *_ = parts
    if saved is None and config.branch_from is not None:
        return branch(Path(config.branch_from), config.steps, source, model, optimizer, config.seed)
    return start(saved, source, model, optimizer, config.seed, world)


def build(config: "Config", world: World) -> Parts:
    """Build all parts on the device of `world`, and read a first batch, so that no bad input is found later."""
    source, model = begin(config)
    model = model.to(world.device)
    backend = use_backend(model, config.backend, world.device)
    if config.dtype == "float8":
        use_float8(model, world.device)
    use_recompute(model, config.recompute)
    world.shard(model, list(model.blocks))
    if config.sample_every and source.tokenizer is None:
        raise ConfigError(
            f"sample_every={config.sample_every}: data={config.data.name} is no text to go on with; use sample_every=0"
        )
    objective = config.objective.build()
    feed = open_feed(config, source, world)
    named, least = list(model.named_parameters()), feed.min_step_tokens()
    optimizer = build_optimizer(config.optim, named, model.levels, least, config.steps, world, feed.tokens_before)
    optimizer.watch(model)
    if config.compile != "off" and optimizer.inputs:
        raise ConfigError(
            f"compile={config.compile}: a rule of optim reads the inputs of layers, which are compiled away; "
            "try compile=off"
        )
    if config.world.is_deterministic and optimizer.inputs:
        raise ConfigError(
            "world.reduction=deterministic: a rule of optim reads the inputs of layers, which are added up as they "
            "come; use world.reduction=fast, or another rule than dgd"
        )
    num_micro_batches = count_micro_batches(config, world)
    first, *_ = world.share_of(num_micro_batches)
    batch = train_batch(source, config.seed, 0, first, num_micro_batches, config.data.batch_size)
    return Parts(source, model, objective, optimizer, to(batch, world.device), backend)


def begin(config: "Config") -> tuple[Source, LanguageModel]:
    """Open the data and build the model; with `stack_from`, in the tokens of that run and with its weights."""
    if config.stack_from is None:
        source = config.data.build(config.seed)
        return source, config.model.build(source.vocab_size, config.seed)
    trained = open_trained(Path(config.stack_from), "cpu")
    source = config.data.build(config.seed, trained.tokenizer)
    model = config.model.build(source.vocab_size, config.seed)
    stack(model, trained.model)
    return source, model


def describe(world: World) -> str:
    """Say how many processes there are, and how they share the work."""
    words = [f"processes {world.size}"]
    if world.holds_parts:
        words.append(f"each with one of {world.config.num_shards(world.size)} parts of the parameters")
    if world.config.is_deterministic:
        words.append("deterministic sums, one thread a process")
    return ", ".join(words)


def announce(directory: Path, progress: Progress, parts: Parts, world: World) -> None:
    """Say what is about to be trained, and where."""
    goes_on = f", going on at step {progress.step}" if progress.step else ""
    say(
        world,
        group_table(parts.optimizer),
        parts.backend,
        *describe_rows(parts.source),
        f"run: {directory}{goes_on} (device {world.device}, {describe(world)})",
    )


def announce_compiled(directory: Path, compiled: Compiled, world: World) -> None:
    """Say whether the model was compiled as asked, and record it in environment.json."""
    if world.is_first:
        note_environment(directory, compile=compiled._asdict())
    if compiled.asked != "off":
        say(world, str(compiled))


def write_summary(directory: Path, trainer: Trainer, parts: Parts) -> None:
    """Write summary.json: the figures of the run, and what it cost."""
    config, progress, world = trainer.config, trainer.progress, trainer.world
    if not world.is_first:
        return
    known = flops(config.model, config.objective, parts.source.vocab_size, parts.source.seq_len)
    rate = progress.tokens / progress.seconds
    summary: dict[str, Any] = {
        "step": progress.step,
        "tokens": progress.tokens,
        "final": progress.metrics,
        "best": progress.best,
        "seconds": progress.seconds,
        "cpu_seconds": progress.cpu_seconds,
        "tokens_per_second": rate,
        "phase_seconds": progress.phases,
        "lost_seconds": progress.lost,
        "wall_seconds": (wall := sum(progress.phases.values()) + progress.lost),
        "goodput": progress.seconds / wall,
        "peak_memory_bytes": peak_memory_bytes(world.device),
        "parameters": count_parameters(parts.model),
        "data_order": order_fingerprint(open_feed(config, parts.source, world)),
        "packing": {name: report._asdict() for name, report in packing_reports(parts.source).items()},
        "flops_per_token": known.total,
        "memory_flops_per_token": known.memory,
        **utilisation(known, rate, trainer.most),
        "compile": trainer.compiled._asdict(),
    }
    write_atomic(directory / SUMMARY, json.dumps(summary, indent=2) + "\n")


def lost_seconds(directory: Path | None, progress: Progress) -> float:
    """Return the seconds that an earlier process logged after the checkpoint that `progress` is from."""
    lines = [] if directory is None else read_lines(directory / METRICS)
    wall = max((line["perf/wall_seconds"] for line in lines), default=0.0)
    return max(0.0, wall - sum(progress.phases.values()) - progress.lost)


def is_complete(directory: Path, progress: Progress, steps: int) -> bool:
    """Say whether nothing is left to do in `directory`."""
    return progress.step == steps and (directory / SUMMARY).exists()


def conclude(config: "Config", directory: Path, progress: Progress, parts: Parts, world: World) -> Result:
    """Print a sample of text, the final figures, the run directory and what to try next."""
    # writing takes all processes where each holds a part of the parameters
    if parts.source.tokenizer is not None and (world.is_first or world.holds_parts):
        say(world, "", "sample:", write_sample(config, parts.model, parts.source), "")
    if world.is_first:
        figures = "  ".join(f"{name} {value:.4f}" for name, value in progress.metrics.items() if name.endswith(SHOWN))
        rate = progress.tokens / progress.seconds
        asked = ["phase=eval"] if parts.source.tokenizer is None else ["phase=sample", "prompt=def "]
        say(
            world,
            f"done: {progress.step} steps, {progress.tokens:,} tokens, {progress.seconds:.1f} s, {rate:,.0f} tokens/s",
            f"final: {figures}",
            f"run: {directory}",
            f"next: {shlex.join([*program(), *asked, f'checkpoint={directory}'])}",
        )
    return Result(directory, dict(progress.metrics))


# the figures worth a place on the last line
SHOWN = ("/loss", "/bpb", "/accuracy", "/sequence_accuracy")


def write_sample(config: "Config", model: LanguageModel, source: Source) -> str:
    """Let the model go on with the configured prompt."""
    with evaluating(model):
        session = Session(model, source.tokenizer, policy=config.memory)
        return printable(config.prompt + continuation(session, config.prompt, config.sampling, config.seed))


def count_parameters(model: LanguageModel) -> int:
    """Count the numbers that are trained, shared ones once."""
    return sum(parameter.numel() for parameter in model.parameters())


def say(world: World, *lines: str) -> None:
    """Print `lines`, once, whatever the number of processes."""
    if world.is_first:
        print("\n".join(lines), flush=True)
