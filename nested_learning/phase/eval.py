"""`phase=eval`: ask a trained model, under a memory policy, and keep the reports in its run directory."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from nested_learning.errors import ConfigError
from nested_learning.evals.files import table, write_report
from nested_learning.evals.protocol import Report, Subject
from nested_learning.nn.backend import use_backend
from nested_learning.phase import Result
from nested_learning.report import HINT, plot_panels
from nested_learning.run import prepare_process
from nested_learning.trained import Trained, open_trained
from nested_learning.world import pick_device

if TYPE_CHECKING:
    from nested_learning.config import Config


def run(config: "Config") -> Result:
    """Run every pack of `evals=` on the model of `checkpoint=` and write `<run>/evals/<pack>.json` (rows, plot).

    Model and tokenizer are those of the checkpoint; the data, its seed and the memory policy are those of `config`.
    Results under `memory=frozen` and with `weights=ema` get names of their own: `<pack>_frozen.json`,
    `<pack>_ema.json`. Raises ConfigError when there is nothing to run, CheckpointError for a checkpoint that cannot be
    used.
    """
    if not config.evals:
        raise ConfigError("evals=[]: nothing to evaluate; use evals=validation or evals=[validation,by_position]")
    packs = {name: options.build() for name, options in config.evals.items()}
    prepare_process(config.seed, pick_device(config.device))
    trained = open_trained(given(config), config.device, config.weights)
    refuse_other_model(config, trained)
    policy = config.memory.name
    subject = Subject(
        model=trained.model, tokenizer=trained.tokenizer, data=config.data, seed=config.seed, policy=policy
    )
    console = Console()
    console.print(
        use_backend(trained.model, config.backend, pick_device(config.device)), soft_wrap=True, highlight=False
    )
    metrics: dict[str, float] = {}
    for name, pack in packs.items():
        report = pack.run(subject)
        label = "_".join(
            [name, *([policy] if policy != "online" else []), *(["ema"] if config.weights == "ema" else [])]
        )
        path = write_report(trained.run, label, report, about(config, trained))
        console.print(table(label, report))
        console.print(f"written: {path}", soft_wrap=True, highlight=False)
        if report.curves:
            console.print(draw(path.with_suffix(".png"), report), soft_wrap=True, highlight=False)
        metrics |= {f"{label}/{figure}": metric.value for figure, metric in report.metrics.items()}
    return Result(trained.run, metrics)


def draw(path: Path, report: Report) -> str:
    """Draw the curves of `report`; say where they are, or what is missing to draw them."""
    try:
        plot_panels(path, report.curves, "position in the context")
    except ImportError:
        return f"for a plot of it: {HINT}"
    return f"plot: {path}"


def given(config: "Config") -> Path:
    """Return the path of `checkpoint=`; raise ConfigError when there is none."""
    if config.checkpoint is None:
        raise ConfigError(f"phase={config.phase.name}: give checkpoint=<run directory or checkpoints/step_*>")
    return Path(config.checkpoint)


def refuse_other_model(config: "Config", trained: Trained) -> None:
    """Raise ConfigError when `config` asks for another model than the checkpoint holds. Source: ours."""
    if config.model != trained.config.model:
        raise ConfigError(
            f"model={config.model.name}: {trained.checkpoint} holds a {trained.config.model.name} of its own shape; "
            "leave model= and model.* out, the checkpoint brings them"
        )


def about(config: "Config", trained: Trained) -> dict[str, Any]:
    """Say what a report is about."""
    return {
        "checkpoint": trained.checkpoint.name,
        "step": trained.progress.step,
        "tokens": trained.progress.tokens,
        "model": trained.config.model.name,
        "data": config.data.name,
        "seed": config.seed,
        "memory": config.memory.name,
        "weights": config.weights,
    }
