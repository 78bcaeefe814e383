"""`dry_run=true`: sizes, memory, time and price of a run, computed from its configuration without training."""

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch

from nested_learning.data.curriculum import Stage, plan_stages, tokens_before
from nested_learning.data.loader import check_micro_batches
from nested_learning.data.source import Source
from nested_learning.errors import ConfigError, DataError
from nested_learning.hub.open_run import open_trained
from nested_learning.nn.language_model import LanguageModel
from nested_learning.ops.backend import resolve
from nested_learning.optim.build import build_optimizer
from nested_learning.optim.optimizer import Optimizer
from nested_learning.phase import Result
from nested_learning.phase.cost import group_table
from nested_learning.planning.config import PlanConfig
from nested_learning.planning.flops import Flops, flops
from nested_learning.planning.footprint import activations, state_bytes
from nested_learning.planning.hardware import GPUS, peak
from nested_learning.train.run import DTYPES
from nested_learning.world.joining import pick_device

if TYPE_CHECKING:
    from nested_learning.config.schema import Config

GB = 1e9


class Memory(NamedTuple):
    """Bytes on one GPU.

    `gathered`: the parameters that FSDP holds whole at a time: those outside of blocks, and two blocks.
    """

    weights: float
    gradients: float
    optimizer: float
    gathered: float
    activations: float

    @property
    def total(self) -> float:
        """The sum; temporary buffers of operations and fragmentation come on top."""
        return sum(self)


class Outline(NamedTuple):
    """The components of a run without numbers: `source` is None where the data is not prepared yet, for `reason`."""

    source: Source | None
    reason: str
    vocab_size: int
    stages: list[Stage]
    num_micro_batches: int
    model: LanguageModel
    optimizer: Optimizer


def dry_run(config: "Config") -> Result:
    """Print sizes and costs of the run of `config`; create no file. Raises NestedLearningError."""
    config.world.check(config.plan.num_gpus)
    run = outline(config)
    costs = [flops(config.model, config.objective, run.vocab_size, stage.seq_len) for stage in run.stages]
    tokens = [count_tokens(stage, config.steps) for stage in run.stages]
    per_token = sum(cost.total * count for cost, count in zip(costs, tokens, strict=True)) / sum(tokens)
    parameters = sum(parameter.numel() for parameter in run.model.parameters())
    before, after = state_bytes(config.model, run.vocab_size, run.stages[-1].seq_len)
    memory = memory_of(config, run, config.plan.num_gpus)
    plan = config.plan
    hours, dollars = price(plan, config.dtype, per_token * sum(tokens))
    fits = memory.total < GPUS[plan.gpu].memory_bytes
    verdict = "fits" if fits else advise(memory, run.num_micro_batches, config.recompute)
    lines = [
        group_table(run.optimizer),
        f"parameters: {parameters:,}",
        f"state of a row: {before:,.0f} bytes at its start, {after:,.0f} after {run.stages[-1].seq_len} tokens",
        *(describe_flops(stage, cost) for stage, cost in zip(run.stages, costs, strict=True)),
        resolve(config.backend, pick_device(config.device))[1],
        describe_data(run),
        f"a run of {config.steps} steps reads {sum(tokens):,} tokens",
        f"{describe_memory(plan, config.world.parallel, memory)}: {verdict}",
        describe_price(plan, config.dtype, hours, dollars),
    ]
    if os.environ.get("RANK", "0") == "0":
        print("\n".join(lines), flush=True)
    metrics = {
        "parameters": float(parameters),
        "tokens": float(sum(tokens)),
        "state_bytes_per_row": before,
        "state_bytes_per_row_read": after,
        "forward_flops_per_token": costs[-1].forward,
        "train_flops_per_token": per_token,
        **{f"{name}_bytes": value for name, value in memory._asdict().items()},
        "memory_bytes": memory.total,
    }
    known = {"hours": hours, "dollars": dollars}
    return Result(None, metrics | {name: value for name, value in known.items() if value is not None})


def outline(config: "Config") -> Outline:
    """Open the data if it is there, and build model and optimizer on the meta device, which keeps shapes only."""
    source, reason, vocab_size, seq_len = None, "", config.plan.vocab_size, 0
    try:
        source = _open_source(config)
        vocab_size, seq_len = source.vocab_size, source.seq_len
    except DataError as error:
        # only packed text says how long its rows are before it is there
        if vocab_size is None or "seq_len" not in vars(config.data):
            raise
        reason, seq_len = str(error), vars(config.data)["seq_len"]
    assert vocab_size is not None
    stages = plan_stages(config.stages, config.data.batch_size, seq_len)
    number = num_micro_batches(config.micro_batches, config.plan.num_gpus)
    for stage in stages:
        check_micro_batches(stage, number)
    return Outline(source, reason, vocab_size, stages, number, *without_numbers(config, vocab_size, stages))


def without_numbers(config: "Config", vocab_size: int, stages: list[Stage]) -> tuple[LanguageModel, Optimizer]:
    """Build model and optimizer on the meta device, which keeps shapes only."""
    with torch.device("meta"):
        model = config.model.build(vocab_size, config.seed)
        named, least = list(model.named_parameters()), min(stage.batch_size * stage.seq_len for stage in stages)
        optimizer = build_optimizer(
            config.optim, named, model.levels, least, config.steps, tokens_before=partial(tokens_before, stages)
        )
    return model, optimizer


def _open_source(config: "Config") -> Source:
    """Open the data; with `stack_from`, with the tokenizer of that run."""
    tokenizer = None if config.stack_from is None else open_trained(Path(config.stack_from), "cpu").tokenizer
    return config.data.build(config.seed, tokenizer)


def num_micro_batches(configured: int | None, num_gpus: int) -> int:
    """Return the number of micro-batches of a step: `configured`, None for one on each GPU. Raises ConfigError."""
    number = configured or num_gpus
    if number % num_gpus:
        raise ConfigError(
            f"micro_batches={number}: must be a multiple of the GPUs, plan.num_gpus={num_gpus}; "
            f"use micro_batches={max(1, round(number / num_gpus)) * num_gpus}"
        )
    return number


def memory_of(config: "Config", run: Outline, num_processes: int) -> Memory:
    """Return the memory of one of `num_processes` devices at the end of a forward pass."""
    shards = config.world.num_shards(num_processes)
    weights = sum(parameter.nbytes for parameter in run.model.parameters())
    states = sum(tensor.nbytes for tensor in run.optimizer.state_dict().values())
    blocks = [sum(parameter.nbytes for parameter in block.parameters()) for block in run.model.blocks]
    gathered = weights - sum(blocks) + 2 * max(blocks) if shards > 1 else 0.0
    dtype = DTYPES[config.dtype]
    kept = []
    for stage in run.stages:
        one = activations(config.model, config.objective, run.vocab_size, stage.seq_len, dtype, config.recompute)
        kept.append(one.of(stage.batch_size // run.num_micro_batches))
    return Memory(weights / shards, weights / shards, states / shards, gathered, max(kept))


def count_tokens(stage: Stage, steps: int) -> int:
    """Return the number of tokens that a run of `steps` steps reads in `stage`."""
    end = steps if stage.end_step is None else min(steps, stage.end_step)
    return max(0, end - stage.first_step) * stage.batch_size * stage.seq_len


def price(plan: PlanConfig, dtype: str, operations: float) -> tuple[float | None, float | None]:
    """Return hours and dollars for a number of FLOPs, None where the GPU's peak in this dtype is unknown."""
    fastest = peak(GPUS[plan.gpu].name, dtype)
    if fastest is None:
        return None, None
    hours = operations / (fastest * plan.mfu * plan.num_gpus) / 3600
    return hours, hours * plan.num_gpus * hourly_rate(plan)


def hourly_rate(plan: PlanConfig) -> float:
    """Return the dollars for an hour of one GPU."""
    return GPUS[plan.gpu].dollars_per_hour if plan.price is None else plan.price


def describe_flops(stage: Stage, cost: Flops) -> str:
    """Return a line with the FLOPs of a token in this stage."""
    return (
        f"operations per token: {cost.forward:,.0f} forward, {cost.total:,.0f} forward and backward, in rows of "
        f"{stage.seq_len} tokens"
    )


def describe_data(run: Outline) -> str:
    """Return a line about the data, or why it cannot be read yet."""
    if run.source is None:
        return f"data: not there yet, planned with a vocabulary of {run.vocab_size} (plan.vocab_size): {run.reason}"
    rows = run.source.num_rows("train")
    return f"data: {rows:,} training rows of {run.source.seq_len} tokens, vocabulary {run.vocab_size}"


def describe_memory(plan: PlanConfig, parallel: str, memory: Memory) -> str:
    """Return a line with the memory of one GPU, by what it holds."""
    parts = ", ".join(f"{name} {value / GB:.2f}" for name, value in memory._asdict().items() if value)
    return (
        f"memory of each of {plan.num_gpus} {plan.gpu} in GB ({parallel}): {parts}; "
        f"together {memory.total / GB:.2f} of {GPUS[plan.gpu].memory_bytes / GB:.0f}"
    )


def advise(memory: Memory, num_micro_batches: int, recompute: str) -> str:
    """Return what makes a run fit that needs more memory than a GPU has."""
    if memory.activations > memory.total / 2:
        helps = " or recompute=block" if recompute == "off" else ""
        return f"does not fit; try micro_batches={2 * num_micro_batches}{helps}"
    return "does not fit; try world.parallel=fsdp, or more GPUs (plan.num_gpus)"


def describe_price(plan: PlanConfig, dtype: str, hours: float | None, dollars: float | None) -> str:
    """Return a line with time, price and the assumptions."""
    if hours is None:
        return f"time: the peak of {plan.gpu} in {dtype} is not known; try dtype=bfloat16"
    return (
        f"time: {hours:,.2f} hours on {plan.num_gpus} {plan.gpu}, {dollars:,.2f} dollars; assumed: {plan.mfu:.0%} of "
        f"the peak in {dtype} (plan.mfu), {hourly_rate(plan):g} dollars an hour for each (plan.price)"
    )
