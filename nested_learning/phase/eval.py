"""`phase=eval`: evaluate a trained model under a memory policy and write the reports to its run directory."""

import math
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console

from nested_learning.errors import ConfigError, Stopped
from nested_learning.evals.files import FOLDER, differences, table, write_report
from nested_learning.evals.protocol import EvalContext, EvalPack, Report
from nested_learning.evals.runner import evaluate, make_examples
from nested_learning.hub.open_run import Trained, open_trained
from nested_learning.inference.config import MemorizeConfig, MemoryConfig
from nested_learning.logger.progress import show_progress
from nested_learning.nn.execution import use_backend
from nested_learning.nn.language_model import LanguageModel
from nested_learning.phase import Result
from nested_learning.report import HINT, plot_maps, plot_panels
from nested_learning.train.run import prepare_process, program
from nested_learning.train.stopwatch import peak_memory_bytes
from nested_learning.world.joining import pick_device

if TYPE_CHECKING:
    from nested_learning.config.schema import Config


def run(config: "Config") -> Result:
    """Run every pack of `evals=` on the model of `checkpoint=` and write `<run>/evals/<pack>.json` (rows, plot).

    Model and tokenizer are those of the checkpoint; the data, its seed and the memory policy are those of `config`.
    Results under `memory=frozen` and with `weights=ema` have their own names: `<pack>_frozen.json`, `<pack>_ema.json`.
    Raises ConfigError where there is nothing to run, CheckpointError for a checkpoint that cannot be opened, Stopped
    when interrupted.
    """
    if not config.evals:
        raise ConfigError("evals=[]: nothing to evaluate; use evals=validation or evals=[validation,perplexity]")
    packs = {name: options.build(config.data) for name, options in config.evals.items()}
    prepare_process(config.seed, pick_device(config.device))
    trained = open_trained(checkpoint_path(config), config.device, config.weights)
    refuse_other_model(config, trained)
    ctx = EvalContext(
        model=trained.model,
        tokenizer=trained.tokenizer,
        data=config.data,
        seed=config.seed,
        policy=config.memory,
        run=trained.run,
        weights=config.weights,
    )
    say(use_backend(trained.model, config.backend, pick_device(config.device)))
    online = replace(ctx, policy=MemoryConfig(name="online"))
    # drafts stay until all packs have finished, so that an interruption loses no answer of any
    drafts = [draft_of(label_of(name, config, each), each) for name in packs for each in (ctx, online)]
    metrics: dict[str, float] = {}
    try:
        try_packs(packs, ctx, config)
        for name, pack in packs.items():
            memorizes = isinstance(config.memory, MemorizeConfig)
            baseline = report_on(name, pack, online, config, trained) if memorizes else None
            report = report_on(name, pack, ctx, config, trained, baseline)
            label = label_of(name, config, ctx)
            metrics |= {f"{label}/{key}": metric.value for key, metric in report.metrics.items()}
    except KeyboardInterrupt as interrupt:
        raise stopped(drafts, ctx) from interrupt
    for draft in drafts:
        draft.unlink(missing_ok=True)
    return Result(trained.run, metrics)


def try_packs(packs: dict[str, EvalPack], ctx: EvalContext, config: "Config") -> None:
    """Raise NestedLearningError where one of `packs` cannot be evaluated, before the first of them is."""
    for name, pack in packs.items():
        make_examples(pack, ctx)
        session = ctx.open_session(1)
        if session.memorizes and config.evals[name].memorizes_while_reading:
            token = torch.zeros(1, 1, dtype=torch.int64)
            session.read_and_memorize(token, token)


def stopped(drafts: Sequence[Path], ctx: EvalContext) -> Stopped:
    """Return what to tell who interrupted an evaluation: whether answers are kept, and how to go on."""
    command = shlex.join([*program(), *sys.argv[1:]])
    if ctx.policy.carries:
        return Stopped("interrupted; answers of memory.reset=carry are not kept", f"start again with: {command}")
    if not any(draft.exists() for draft in drafts):
        return Stopped("interrupted before anything was answered", f"start again with: {command}")
    return Stopped(f"interrupted; the answers so far are kept in {ctx.run / FOLDER}", f"resume with: {command}")


def report_on(
    name: str, pack: EvalPack, ctx: EvalContext, config: "Config", trained: Trained, baseline: Report | None = None
) -> Report:
    """Evaluate one pack, write its report to the run directory, and print it."""
    label, before = label_of(name, config, ctx), fingerprint_parameters(trained.model)
    about_run = describe_evaluation(name, config, trained, ctx) | {"parameters_sha256": before}
    started = time.process_time()
    with show_progress(label) as show:
        report = evaluate(pack, ctx, draft_of(label, ctx), about_run, say, show)
    after = fingerprint_parameters(trained.model)
    assert before == after, "an evaluation changed the model"
    about_run |= {
        "parameters_sha256_after": after,
        "cpu_seconds": time.process_time() - started,
        "peak_memory_bytes": peak_memory_bytes(pick_device(config.device)),
    }
    path = write_report(ctx.run, label, report, about_run, baseline)
    console = Console()
    console.print(table(label, report.metrics))
    if baseline is not None:
        console.print(table(f"{label} - {name}", differences(report, baseline)))
    say(f"written: {path}")
    if report.curves:
        say(save_plot(path.with_suffix(".png"), lambda file: plot_panels(file, report.curves, report.axis)))
    if report.grids:
        say(save_plot(path.with_name(f"{label}_map.png"), lambda file: plot_maps(file, report.grids)))
    return report


def label_of(pack: str, config: "Config", ctx: EvalContext) -> str:
    """Return the name of a report: the pack, then the policy and the weights if not the defaults, then `name=`."""
    words = [pack]
    if ctx.policy.name != "online":
        words.append(ctx.policy.name)
    if config.weights == "ema":
        words.append("ema")
    return "_".join(words if config.name is None else [*words, config.name])


def draft_of(label: str, ctx: EvalContext) -> Path:
    """Return the file that collects the answers during an evaluation."""
    return ctx.run / FOLDER / f".{label}.draft.jsonl"


def say(line: str) -> None:
    """Print one line without wrapping it."""
    Console().print(line, soft_wrap=True, highlight=False)


def fingerprint_parameters(model: LanguageModel) -> str:
    """Return the SHA-256 of all parameters and buffers."""
    digest = sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode() + tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def save_plot(path: Path, plot: Callable[[Path], None]) -> str:
    """Call `plot` with `path`; return a line that says where the plot is, or which package is missing."""
    try:
        plot(path)
    except ImportError:
        return f"for a plot of it: {HINT}"
    return f"plot: {path}"


def checkpoint_path(config: "Config") -> Path:
    """Return the path of `checkpoint=`; raise ConfigError where it is missing."""
    if config.checkpoint is None:
        raise ConfigError(f"phase={config.phase.name}: give checkpoint=<run directory or checkpoints/step_*>")
    return Path(config.checkpoint)


def refuse_other_model(config: "Config", trained: Trained) -> None:
    """Raise ConfigError where `config` has another model than the checkpoint."""
    if config.model != trained.config.model:
        raise ConfigError(
            f"model={config.model.name}: {trained.checkpoint} has a {trained.config.model.name} with its own options; "
            "leave out model= and model.*, which come from the checkpoint"
        )


def describe_evaluation(name: str, config: "Config", trained: Trained, ctx: EvalContext) -> dict[str, Any]:
    """Return what identifies an evaluation: the pack, the checkpoint, the data and the memory policy."""
    return {
        "pack": asdict(config.evals[name]),
        "checkpoint": trained.checkpoint.name,
        "step": trained.progress.step,
        "tokens": trained.progress.tokens,
        "model": trained.config.model.name,
        "data": config.data.name,
        "data_options": asdict(config.data),
        "seed": config.seed,
        "memory": ctx.policy.name,
        "policy": {key: _in_json(value) for key, value in asdict(ctx.policy).items()},
        "weights": config.weights,
    }


def _in_json(value: Any) -> Any:
    # JSON has no infinity, which is a valid surprise_threshold
    return str(value) if value == math.inf else value
