"""`phase=train`: build the components, train, print the results and the next command."""

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from nested_learning.checkpoint import Progress
from nested_learning.data.batch import Batch, to
from nested_learning.data.describe import describe_rows, packing_reports
from nested_learning.data.feed import Feed
from nested_learning.data.fingerprint import order_fingerprint
from nested_learning.data.loader import train_batch
from nested_learning.data.source import Source
from nested_learning.errors import ConfigError
from nested_learning.files import write_atomic
from nested_learning.hub.open_run import open_trained
from nested_learning.inference.samples import print_continuation
from nested_learning.inference.session import Session
from nested_learning.logger.build import METRICS
from nested_learning.logger.jsonl import read_lines
from nested_learning.logger.words import decimal
from nested_learning.nn.dropout import evaluating
from nested_learning.nn.execution import use_backend, use_recompute
from nested_learning.nn.language_model import LanguageModel
from nested_learning.nn.stacking import stack
from nested_learning.objective.protocol import Objective
from nested_learning.optim.build import build_optimizer
from nested_learning.optim.optimizer import Optimizer
from nested_learning.phase import Result
from nested_learning.phase.cost import group_table
from nested_learning.phase.dry_run import dry_run
from nested_learning.phase.fit import require_fit
from nested_learning.planning.flops import flops, utilisation
from nested_learning.signals import hold_signals
from nested_learning.train.branch import branch
from nested_learning.train.compiling import Compiled
from nested_learning.train.environment import note_environment
from nested_learning.train.float8 import use_float8
from nested_learning.train.run import lock_run, open_feed, prepare_process, program
from nested_learning.train.stopwatch import Stopwatch, peak_memory_bytes
from nested_learning.train.trainer import Trainer, start
from nested_learning.world.joining import open_world
from nested_learning.world.world import World

if TYPE_CHECKING:
    from nested_learning.config.schema import Config

SUMMARY = "summary.json"
# the metrics that the last lines print
PRINTED = ("loss", "bpb", "accuracy")


class Components(NamedTuple):
    """What a run consists of, built and checked.

    `batch` is the first micro-batch of step 0, on the device; `backend` is a line that says what computes the memories.
    """

    feed: Feed
    model: LanguageModel
    objective: Objective
    optimizer: Optimizer
    batch: Batch
    backend: str

    @property
    def source(self) -> Source:
        """The data that the feed reads."""
        return self.feed.source


def run(config: "Config") -> Result:
    """Train the configured model, or resume a run that was stopped. Raises NestedLearningError for bad input.

    No file is created before everything that can fail on the configuration, the data or a checkpoint has been tried.
    """
    config.memory.refuse_memorize("train")
    if config.dry_run:
        return dry_run(config)
    stopwatch = Stopwatch()
    with open_world(config.device, config.world) as world:
        prepare_process(config.seed, world.device, is_elastic=config.world.is_deterministic)
        components = build(config, world)
        with lock_run(config, world) as lock:
            progress = load_progress(lock.checkpoint, config.branch_from, config.steps, components, world)
            if lock.directory is not None and is_complete(lock.directory, progress, config.steps):
                print_first(world, f"complete already: {lock.directory}")
            else:
                progress.lost += lost_seconds(lock.directory, progress)
                with hold_signals():
                    ctx = lock.open_run(progress.step)
                print_start(ctx.directory, progress.step, components, world)
                feed, model, objective, optimizer, batch, _ = components
                trainer = Trainer(ctx, feed, model, objective, optimizer, progress, stopwatch, batch)
                record_compiled(ctx.directory, trainer.compiled, world)
                with hold_signals():
                    trainer.fit()
                    if world.is_first:
                        write_summary(ctx.directory, trainer)
                lock.close_log()
            assert lock.directory is not None
            # with sharded parameters a forward pass takes all processes
            if components.source.tokenizer is not None and (world.is_first or world.is_sharding):
                print_first(world, "", "sample:")
                print_sample(components, config, world)
                print_first(world, "")
            print_end(lock.directory, config, progress, world, is_text=components.source.tokenizer is not None)
    return Result(lock.directory, dict(progress.metrics))


def build(config: "Config", world: World) -> Components:
    """Build all components on the device of `world` and read one batch, so that bad input is refused here."""
    source, model = open_data_and_model(config, world)
    model = model.to(world.device)
    backend = use_backend(model, config.backend, world.device)
    if config.dtype == "float8":
        use_float8(model, world.device)
    use_recompute(model, config.recompute)
    world.shard(model, list(model.blocks))
    if config.sample_every and source.tokenizer is None:
        raise ConfigError(
            f"sample_every={config.sample_every}: data={config.data.name} is not text, so nothing can be generated; "
            "use sample_every=0"
        )
    objective = config.objective.build()
    feed = open_feed(config, source, world)
    named, min_tokens = list(model.named_parameters()), feed.min_step_tokens()
    optimizer = build_optimizer(config.optim, named, model.levels, min_tokens, config.steps, world, feed.tokens_before)
    optimizer.record_inputs(model)
    if optimizer.inputs:
        refuse_input_rules(config.compile, is_deterministic=config.world.is_deterministic)
    num_micro_batches, first = feed.num_micro_batches, feed.own_micro_batches[0]
    batch = train_batch(source, config.seed, 0, first, num_micro_batches, config.data.batch_size)
    return Components(feed, model, objective, optimizer, to(batch, world.device), backend)


def open_data_and_model(config: "Config", world: World) -> tuple[Source, LanguageModel]:
    """Open the data and build the model; with `stack_from`, with the tokenizer of that run and its weights."""
    trained = None if config.stack_from is None else open_trained(Path(config.stack_from), "cpu")
    source = config.data.build(config.seed, None if trained is None else trained.tokenizer)
    require_fit(config, source, world)
    model = config.model.build(source.vocab_size, config.seed)
    if trained is not None:
        stack(model, trained.model)
    return source, model


def refuse_input_rules(compiling: str, *, is_deterministic: bool) -> None:
    """Raise ConfigError where a rule of `optim` that reads the inputs of layers cannot work."""
    if compiling != "off":
        raise ConfigError(
            f"compile={compiling}: a rule of optim reads the inputs of layers, which a compiled model does not show; "
            "try compile=off"
        )
    if is_deterministic:
        raise ConfigError(
            "world.reduction=deterministic: a rule of optim reads the inputs of layers, which are summed in any order; "
            "use world.reduction=fast, or another rule than dgd"
        )


def load_progress(
    saved: Path | None, branch_from: str | None, steps: int, components: Components, world: World
) -> Progress:
    """Return where training starts: at the checkpoint `saved`, at that of `branch_from`, or at step 0.

    From a checkpoint, model and optimizer are filled as well. A branch that has made all `steps` is refused.
    """
    source, model, optimizer = components.source, components.model, components.optimizer
    seed = components.feed.seed
    if saved is None and branch_from is not None:
        return branch(Path(branch_from), steps, source, model, optimizer, seed)
    return start(saved, source, model, optimizer, seed, world)


def describe_processes(world: World) -> str:
    """Return the number of processes and how they share the work, such as "processes 1"."""
    words = [f"processes {world.size}"]
    if world.is_sharding:
        words.append(f"each with one of {world.config.num_shards(world.size)} shards of the parameters")
    if world.config.is_deterministic:
        words.append("deterministic sums, one thread a process")
    return ", ".join(words)


def print_start(directory: Path, step: int, components: Components, world: World) -> None:
    """Print the optimizer's groups, the data, and where the run is."""
    resumes = f", resumes at step {step}" if step else ""
    print_first(
        world,
        group_table(components.optimizer),
        components.backend,
        *describe_rows(components.source),
        f"run: {directory}{resumes} (device {world.device}, {describe_processes(world)})",
    )


def record_compiled(directory: Path, compiled: Compiled, world: World) -> None:
    """Write to environment.json whether the model was compiled, and print it where compiling was requested."""
    if world.is_first:
        note_environment(directory, compile=compiled._asdict())
    if compiled.asked != "off":
        print_first(world, str(compiled))


def write_summary(directory: Path, trainer: Trainer) -> None:
    """Write summary.json: the metrics of the run, and its time, memory and FLOPs."""
    config, progress, source = trainer.config, trainer.progress, trainer.source
    cost = flops(config.model, config.objective, source.vocab_size, source.seq_len)
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
        "peak_memory_bytes": peak_memory_bytes(trainer.ctx.device),
        "parameters": sum(parameter.numel() for parameter in trainer.model.parameters()),
        "data_order": order_fingerprint(trainer.feed),
        "packing": {name: report._asdict() for name, report in packing_reports(source).items()},
        "flops_per_token": cost.total,
        "memory_flops_per_token": cost.memory,
        **utilisation(cost, rate, trainer.peak_flops),
        "compile": trainer.compiled._asdict(),
    }
    write_atomic(directory / SUMMARY, json.dumps(summary, indent=2) + "\n")


def lost_seconds(directory: Path | None, progress: Progress) -> float:
    """Return the seconds that an earlier process logged after the checkpoint of `progress`."""
    lines = [] if directory is None else read_lines(directory / METRICS)
    wall = max((line["perf/wall_seconds"] for line in lines), default=0.0)
    return max(0.0, wall - sum(progress.phases.values()) - progress.lost)


def is_complete(directory: Path, progress: Progress, steps: int) -> bool:
    """Return whether the run in `directory` has made its last step and written its summary."""
    return progress.step == steps and (directory / SUMMARY).exists()


def print_end(directory: Path, config: "Config", progress: Progress, world: World, *, is_text: bool) -> None:
    """Print the final metrics, the run directory and the next command."""
    metrics = "  ".join(
        f"{name} {decimal(value)}" for name, value in progress.metrics.items() if name.endswith(PRINTED)
    )
    rate = progress.tokens / progress.seconds
    chosen = [f"evals=[{','.join(config.evals)}]"] if set(config.evals) - {"validation"} else config.data.evaluation
    following = ["phase=sample", "prompt=def "] if is_text and not chosen else ["phase=eval", *chosen]
    print_first(
        world,
        f"done: {progress.step} steps, {progress.tokens:,} tokens, {progress.seconds:.1f} s, {rate:,.0f} tokens/s",
        f"final: {metrics}",
        f"run: {directory}",
        f"next: {shlex.join([*program(), *following, f'checkpoint={directory}'])}",
    )


def print_sample(components: Components, config: "Config", world: World) -> None:
    """Print the prompt with the continuation that the model generates. Sharded models need every process for it."""
    with evaluating(components.model):
        session = Session(components.model, components.source.tokenizer, policy=config.memory)
        print_continuation(session, config.prompt, config.sampling, components.feed.seed, is_shown=world.is_first)


def print_first(world: World, *lines: str) -> None:
    """Print `lines` on the first process only."""
    if world.is_first:
        print("\n".join(lines), flush=True)
