"""What a run does about a step that is not finite: write it down, then stop, leave it out, or go back."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path

from nested_learning import checkpoint
from nested_learning.checkpoint import Progress
from nested_learning.data.source import Source
from nested_learning.errors import DivergedError
from nested_learning.nn.language_model import LanguageModel
from nested_learning.objective.training import Training
from nested_learning.optim.optimizer import Optimizer
from nested_learning.train.divergence.page import FILE as INCIDENT
from nested_learning.train.divergence.page import Incident, worst_rows, write_incident
from nested_learning.train.divergence.policy import judge
from nested_learning.train.divergence.watch import Findings, looking, parameter_norms
from nested_learning.train.run import RunContext, command_to_continue, count_micro_batches, open_feed
from nested_learning.train.stopwatch import Stopwatch


class Recovery:
    """Knows the last checkpoint of a run, and what `divergence` says."""

    def __init__(
        self,
        ctx: RunContext,
        source: Source,
        training: Training,
        optimizer: Optimizer,
        progress: Progress,
        watch: Stopwatch,
    ) -> None:
        self.ctx, self.config, self.world, self.source = ctx, ctx.config, ctx.world, source
        self.training, self.optimizer, self.progress, self.watch = training, optimizer, progress, watch
        # where the weights have come from, when that is a checkpoint of this run
        here = ctx.directory / checkpoint.FOLDER / f"step_{progress.step:08d}"
        self.saved: Path | None = here if here.is_dir() else None

    @property
    def needs_checkpoint(self) -> bool:
        """Say whether the run may have to go back, and has nowhere to go."""
        return self.config.divergence == "rollback" and self.saved is None

    def diverge(self, loss: float, norm: float, read: Callable[[], object]) -> None:
        """Do about the next step, whose `loss` or gradient `norm` is not finite, what `divergence` says.

        No parameter has been changed by it; `read` leaves its gradients again. Writes incident.md. Raises
        DivergedError, or leaves out the step and, for `rollback`, goes back. All processes decide by the same numbers.
        """
        progress, norms = self.progress, parameter_norms(self.training.model, self.world)
        verdict = judge(
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
        if verdict.goes_back:
            self.go_back()
        progress.skipped = verdict.skipped

    def read_again(self, read: Callable[[], object]) -> Findings:
        """Read this process's micro-batches once more, under watch; leave nothing of either reading."""
        self.optimizer.skip()
        with looking(self.training, self.training.model, self.world) as found:
            read()
        self.optimizer.skip()
        return found

    def nats_of_rows(self, found: Findings) -> list[float]:
        """Return what each row of the global batch cost; of the rows of other processes 0."""
        num_micro_batches, size = count_micro_batches(self.config, self.world), len(found.nats[0])
        rows = [0.0] * (size * num_micro_batches)
        for micro_batch, nats in zip(self.world.share_of(num_micro_batches), found.nats, strict=True):
            rows[micro_batch * size : (micro_batch + 1) * size] = nats.tolist()
        return rows

    def write(self, incident: Incident) -> None:
        """Write `incident` down, with the text of its worst rows; the first process reads them for all."""
        if not self.world.is_first:
            return
        feed = open_feed(self.config, self.source, self.world)
        batch = {row: feed.row(self.progress.step, row) for row in worst_rows(incident.rows)}
        write_incident(self.ctx.directory, incident, batch, self.source.tokenizer)

    def go_back(self) -> None:
        """Go on from the last checkpoint; what was made since is lost."""
        assert self.saved is not None, "a run that may go back has a checkpoint"
        vars(self.progress).update(vars(load(self.saved, self.training.model, self.optimizer)))
        self.watch.go_back(self.progress.phases)
        self.ctx.log.rewind(self.progress.step)

    def describe(self, loss: float, norm: float, norms: Mapping[str, tuple[float, float]], done: str) -> str:
        """Say where training left the finite numbers, and what to do."""
        gradients = {name: gradient for name, (_, gradient) in norms.items()}
        worst = sorted(gradients, key=lambda name: (math.isfinite(gradients[name]), -gradients[name]))[:3]
        saved = "nothing was saved yet" if self.saved is None else f"last good checkpoint: {self.saved}"
        return (
            f"diverged at step {self.progress.step + 1}: loss {loss:.4g}, gradient norm {norm:.4g}, largest in "
            f"{', '.join(f'{name} ({gradients[name]:.4g})' for name in worst)}; {saved}; {done}; "
            f"read {self.ctx.directory / INCIDENT}; start another run with lower learning rates "
            "(optim.groups.<n>.lr) or a longer optim.schedule.warmup, or go on with divergence=rollback"
        )


def load(saved: Path, model: LanguageModel, optimizer: Optimizer) -> Progress:
    """Fill model and optimizer from the checkpoint `saved`; return how far it was."""
    checkpoint.load_model(saved, model)
    checkpoint.load_optimizer(saved, optimizer)
    return checkpoint.read_progress(saved)
