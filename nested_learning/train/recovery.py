"""Recovery from a step whose loss or gradient is not finite: report it, then stop, skip it, or roll back."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path

from nested_learning import checkpoint
from nested_learning.checkpoint import Progress
from nested_learning.data.feed import Feed
from nested_learning.errors import DivergedError
from nested_learning.nn.language_model import LanguageModel
from nested_learning.objective.training import Training
from nested_learning.optim.optimizer import Optimizer
from nested_learning.train.divergence.diagnosis import Findings, parameter_norms, recording
from nested_learning.train.divergence.page import FILE as INCIDENT
from nested_learning.train.divergence.page import Incident, worst_rows, write_incident
from nested_learning.train.divergence.policy import decide
from nested_learning.train.run import RunContext, command_to_continue
from nested_learning.train.stopwatch import Stopwatch


class Recovery:
    """Handles steps that are not finite as `divergence` says, with the last checkpoint of the run."""

    def __init__(
        self,
        ctx: RunContext,
        feed: Feed,
        training: Training,
        optimizer: Optimizer,
        progress: Progress,
        stopwatch: Stopwatch,
    ) -> None:
        self.ctx, self.config, self.world, self.feed = ctx, ctx.config, ctx.world, feed
        self.training, self.optimizer = training, optimizer
        self.progress, self.stopwatch = progress, stopwatch
        # the checkpoint that this process resumed from, where there is one in this run
        here = ctx.directory / checkpoint.FOLDER / f"step_{progress.step:08d}"
        self.saved: Path | None = here if here.is_dir() else None

    @property
    def needs_checkpoint(self) -> bool:
        """Whether a rollback may be needed while the run has no checkpoint yet."""
        return self.config.divergence == "rollback" and self.saved is None

    def diverge(self, loss: float, norm: float, read: Callable[[], object]) -> None:
        """Handle the next step, whose `loss` or gradient `norm` is not finite, as `divergence` says.

        The step has not changed the parameters; `read` computes its gradients once more. Writes incident.md. Raises
        DivergedError, or skips the step and, with `rollback`, returns to the last checkpoint. Every process must call
        this, and all decide by the same numbers.
        """
        progress, norms = self.progress, parameter_norms(self.training.model, self.world)
        verdict = decide(
            self.config.divergence,
            progress.step + 1,
            progress.skipped,
            None if self.saved is None else int(self.saved.name.removeprefix("step_")),
            weights_are_finite=all(math.isfinite(weight) for weight, _ in norms.values()),
        )
        found = self.read_again(read)
        shown = ("train/loss", "optim/grad_norm")
        before = {name: value for name, value in progress.metrics.items() if name in shown}
        words = command_to_continue(self.ctx.directory, self.world.size).split(" ")
        command = " ".join([*(word for word in words if not word.startswith("divergence=")), "divergence=rollback"])
        self.write(
            Incident(
                step=progress.step + 1,
                loss=loss,
                norm=norm,
                norms=norms,
                found=found,
                rows=self.world.sum(self.nats_of_rows(found)),
                before=before,
                done=verdict.done,
                command=command if verdict.stops else "",
            )
        )
        if verdict.stops:
            raise DivergedError(self.describe(loss, norm, norms, verdict.done))
        if verdict.rolls_back:
            self.roll_back()
        progress.skipped = verdict.skipped

    def read_again(self, read: Callable[[], object]) -> Findings:
        """Repeat forward and backward of this step with every operation checked; drop the gradients of both."""
        # the gradients of the failed step would be added to those of its repetition
        self.optimizer.skip()
        with recording(self.training, self.training.model, self.world) as found:
            read()
        self.optimizer.skip()
        return found

    def nats_of_rows(self, found: Findings) -> list[float]:
        """Return the loss in nats of each row of the global batch; 0 for rows of other processes."""
        size = len(found.nats[0])
        rows = [0.0] * (size * self.feed.num_micro_batches)
        for micro_batch, nats in zip(self.feed.own_micro_batches, found.nats, strict=True):
            rows[micro_batch * size : (micro_batch + 1) * size] = nats.tolist()
        return rows

    def write(self, incident: Incident) -> None:
        """Write `incident` to incident.md, with the text of its worst rows, on the first process only."""
        if not self.world.is_first:
            return
        batch = {row: self.feed.row(self.progress.step, row) for row in worst_rows(incident.rows)}
        write_incident(self.ctx.directory, incident, batch, self.feed.source.tokenizer)

    def roll_back(self) -> None:
        """Return to the last checkpoint; the steps since then are lost."""
        assert self.saved is not None, "a run with divergence=rollback has a checkpoint"
        # the trainer and others hold this very object, so its fields change, not the reference
        vars(self.progress).update(vars(load_checkpoint(self.saved, self.training.model, self.optimizer)))
        self.stopwatch.roll_back(self.progress.phases)
        self.ctx.log.rewind(self.progress.step)

    def describe(self, loss: float, norm: float, norms: Mapping[str, tuple[float, float]], done: str) -> str:
        """Return the error message: where training diverged, and what to do."""
        # weights that are not finite are the cause, whatever their gradients
        values = {name: weight for name, (weight, _) in norms.items() if not math.isfinite(weight)}
        values = values or {name: gradient for name, (_, gradient) in norms.items()}
        worst = sorted(values, key=lambda name: (math.isfinite(values[name]), -values[name]))[:3]
        saved = "nothing was saved yet" if self.saved is None else f"last good checkpoint: {self.saved}"
        return (
            f"diverged at step {self.progress.step + 1}: loss {loss:.4g}, gradient norm {norm:.4g}, largest in "
            f"{', '.join(f'{name} ({values[name]:.4g})' for name in worst)}; {saved}; {done}; "
            f"read {self.ctx.directory / INCIDENT}; start another run with lower learning rates "
            "(optim.groups.<n>.lr) or a longer optim.schedule.warmup, or resume with divergence=rollback"
        )


def load_checkpoint(saved: Path, model: LanguageModel, optimizer: Optimizer) -> Progress:
    """Fill model and optimizer from the checkpoint `saved`; return its progress."""
    checkpoint.load_model(saved, model)
    checkpoint.load_optimizer(saved, optimizer)
    return checkpoint.read_progress(saved)
