"""The training loop: batch, objective, backward, finite check, clip, step, log, validate, save."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from nested_learning import checkpoint
from nested_learning.checkpoint import Progress
from nested_learning.data.batch import IGNORE, Batch, to
from nested_learning.data.feed import Feed
from nested_learning.data.source import Source
from nested_learning.errors import CheckpointError, DataError, Stopped
from nested_learning.inference.samples import FILE as SAMPLES
from nested_learning.inference.samples import draw_samples
from nested_learning.logger.jsonl import JsonlLogger
from nested_learning.nn.language_model import LanguageModel
from nested_learning.objective.metrics import Mean, add_means, clipped, means, memory_metrics
from nested_learning.objective.protocol import Objective, Step
from nested_learning.objective.training import Training
from nested_learning.optim.clip import clip_gradients
from nested_learning.optim.optimizer import Optimizer
from nested_learning.planning.flops import Flops, flops, most_operations, utilisation
from nested_learning.seeds import derive_seed
from nested_learning.signals import hold_signals
from nested_learning.train.compiling import compile_training
from nested_learning.train.memory_stats import observe
from nested_learning.train.precision import LossScale, autocast
from nested_learning.train.profiler import profiling
from nested_learning.train.recovery import Recovery, load_checkpoint
from nested_learning.train.run import RunContext, command_to_continue
from nested_learning.train.stopwatch import Stopwatch, peak_memory_bytes
from nested_learning.train.validation import validate
from nested_learning.world.world import World

STOPS = "stopping after this step, which is saved first; a second Ctrl-C ends at once, without saving"


class Trainer:
    """Trains a model, from the step of `progress` to the last step of the configuration."""

    def __init__(
        self,
        ctx: RunContext,
        feed: Feed,
        model: LanguageModel,
        objective: Objective,
        optimizer: Optimizer,
        progress: Progress,
        stopwatch: Stopwatch | None = None,
        trial: Batch | None = None,
    ) -> None:
        """Store the components, compile the model if configured, and prepare gradient reduction and recovery.

        `stopwatch` counts from the start of the process; None starts one now. `trial` is a micro-batch of the feed,
        with which compiling is tried.
        """
        self.ctx, self.config, self.world = ctx, ctx.config, ctx.world
        self.feed, self.source = feed, feed.source
        self.model, self.objective, self.optimizer = model, objective, optimizer
        self.progress = progress
        self.scale = LossScale(progress, ctx.dtype)
        self.stopwatch = Stopwatch() if stopwatch is None else stopwatch
        self.stopwatch.add_earlier(progress.phases, progress.lost)
        # tokens and seconds at the last log, from which the throughput since then follows
        self.logged = (progress.tokens, progress.seconds)
        # the module whose gradient is taken; validation and checkpoints use the model inside it
        resets, fixed_passes = self.config.data.resets, self.world.is_sharding
        training = Training(model, objective, resets=resets, fixed_passes=fixed_passes)
        with self.stopwatch.phase("compile"):
            self.compiled = compile_training(training, self.config.compile, trial, ctx.dtype, self.world)
        # peak FLOP/s of all devices, and the FLOPs of a token; None where the peak is unknown, as on a CPU
        self.peak_flops = most_operations(ctx.device, self.config.dtype, self.world.size)
        self.flops: Flops | None = None
        if self.peak_flops is not None:
            self.flops = flops(self.config.model, self.config.objective, feed.source.vocab_size, feed.source.seq_len)
        self.reduction = self.world.reduction(training)
        self.recovery = Recovery(ctx, feed, training, optimizer, progress, self.stopwatch)

    def fit(self) -> Progress:
        """Train to the last step. At a signal that stops finish the step, save, and raise Stopped with the path."""
        config, progress = self.config, self.progress
        profile = profiling(self.ctx.directory, self.world.rank, config.profile)
        with hold_signals(STOPS) as stop_requested, profile as profiler, self.feed:
            if progress.step == 0:
                self.validate()
            if self.recovery.needs_checkpoint or (progress.step == 0 and self.is_saved(0)):
                self.save()
            while progress.step < config.steps:
                with profiler.step(progress.step + 1):
                    must_stop = self.train_step(stop_requested)
                is_last = progress.step == config.steps
                if progress.step % config.world.check_every == 0:
                    self.check_replicas()
                if is_last or progress.step % config.val_every == 0:
                    self.validate()
                if config.sample_every and (is_last or progress.step % config.sample_every == 0):
                    self.sample()
                if is_last or must_stop or self.is_saved(progress.step):
                    self.save()
                if must_stop and not is_last:
                    raise self.stopped()
        return progress

    def train_step(self, stop_requested: Callable[[], bool]) -> bool:
        """Make one optimizer step; return whether any process was signalled to stop."""
        cpu_start, step = time.process_time(), self.progress.step
        if step + 1 in self.progress.skipped:
            (stops,) = self.world.sum([float(stop_requested())])
            self.count_step({}, cpu_start)
            return stops > 0
        with self.stopwatch.phase("data"):
            batches = self.micro_batches(step)
            num_targets = self.count_targets(batches)
        with self.stopwatch.phase("forward_backward"):
            nats, memory = self.backward(batches, num_targets, step)
        with self.stopwatch.phase("optimizer"):
            # the norm is only measured here: a gradient is clipped after the check that it is finite
            norm = float(clip_gradients(self.model.parameters(), None, self.world))
            # all processes must decide the same, so they decide by the same sums
            total, stops, broken = self.world.sum([nats, float(stop_requested()), float(not math.isfinite(norm))])
            loss = total / num_targets
            is_finite = math.isfinite(loss) and not broken
            is_overflow = self.scale.is_overflow(loss, is_finite=is_finite)
            if is_finite:
                self.update(step, norm)
            elif is_overflow:
                self.optimizer.skip()
        if not (is_finite or is_overflow):
            self.recovery.diverge(loss, norm, lambda: self.backward(batches, num_targets, step))
            self.logged = self.progress.tokens, self.progress.seconds
            # the step is now among the skipped ones, or a rollback has returned to an earlier step
            return self.train_step(stop_requested)
        metrics = {"train/loss": loss, "optim/grad_norm": norm} | means(memory, self.world)
        metrics |= self.optimizer.metrics(step)
        metrics |= clipped(self.progress.metrics, step, is_clipped=self.exceeds_clip(norm))
        self.scale.note(is_overflow=is_overflow)
        metrics |= self.scale.metrics()
        self.count_step(metrics, cpu_start)
        return stops > 0

    def count_step(self, metrics: dict[str, float], cpu_start: float) -> None:
        """Count a step that was made or skipped, and log its `metrics`."""
        progress = self.progress
        progress.tokens += self.feed.tokens_before(progress.step + 1) - self.feed.tokens_before(progress.step)
        progress.step += 1
        progress.seconds = self.stopwatch.training()
        progress.cpu_seconds += time.process_time() - cpu_start
        if progress.skipped:
            metrics["optim/skipped"] = float(sum(each <= progress.step for each in progress.skipped))
        self.log_training(metrics)

    def micro_batches(self, step: int) -> list[Batch]:
        """Return this process's micro-batches of the global batch of `step`."""
        return [to(batch, self.ctx.device) for batch in self.feed.read(step)]

    def count_targets(self, batches: list[Batch]) -> int:
        """Count the valid targets of the global batch, over which its loss and its gradient are a mean."""
        here = sum(int((batch.targets != IGNORE).sum()) for batch in batches)
        everywhere = int(self.world.sum([float(here)])[0])
        if everywhere == 0:
            raise DataError(
                f"step {self.progress.step}: no targets in the batch; raise data.batch_size or data.seq_len"
            )
        return everywhere

    def backward(self, batches: list[Batch], num_targets: int, step: int) -> tuple[list[float], dict[str, Mean]]:
        """Accumulate the gradient of the global batch's mean loss in `.grad`, one micro-batch at a time.

        Returns the summed loss in nats of each micro-batch of this process and, where the step is logged, the
        statistics of what their rows wrote to memories.
        """
        losses: list[Tensor] = []
        memory: list[tuple[str, Mean]] = []
        for micro_batch, batch in zip(self.feed.own_micro_batches, batches, strict=True):
            is_last = micro_batch == self.feed.own_micro_batches[-1]
            # random numbers from the global generator depend on step and micro-batch only, so that neither the number
            # of processes nor a resume changes them
            torch.manual_seed(derive_seed(self.config.seed, "forward", step, micro_batch))
            with self.reduction.micro_batch(is_last=is_last):
                with autocast(self.ctx.device, self.ctx.dtype):
                    done: Step = self.reduction.module(batch)
                # dividing by the targets of the global batch makes the sum over micro-batches its mean, however uneven
                (done.loss * (self.scale.scale * self.reduction.weight / num_targets)).backward()
            # read after the loop: waiting for the device once a step is cheaper than once a micro-batch
            losses.append(done.nats.sum())
            if self.is_logged(step + 1):
                memory += memory_metrics(done.state).items()
        self.reduction.finish()
        self.scale.undo(self.model.parameters())
        return [loss.item() for loss in losses], add_means(memory)

    def update(self, step: int, norm: float) -> None:
        """Clip the gradients, whose norm is `norm`, and update the parameters."""
        if self.exceeds_clip(norm):
            clip_gradients(self.model.parameters(), self.config.optim.clip)
        self.optimizer.step(step)
        self.optimizer.zero_grad()

    def exceeds_clip(self, norm: float) -> bool:
        """Return whether a gradient of this `norm` is clipped."""
        return self.config.optim.clip is not None and norm > self.config.optim.clip

    def is_logged(self, step: int) -> bool:
        """Return whether metrics are logged after `step` steps: every `log_every` steps, and at the last."""
        return step % self.config.log_every == 0 or step == self.config.steps

    def is_saved(self, step: int) -> bool:
        """Return whether a checkpoint is written after `step` steps; at step 0 only with `keep_every`."""
        config = self.config
        return checkpoint.is_kept(step, config.keep_every) or (step > 0 and step % config.save_every == 0)

    def log_training(self, metrics: dict[str, float]) -> None:
        """Log the step that was just made, where it is logged."""
        progress = self.progress
        # the norm of a gradient that overflowed is not finite
        progress.metrics |= {name: value for name, value in metrics.items() if math.isfinite(value)}
        if not self.is_logged(progress.step):
            return
        tokens, seconds = self.logged
        if progress.seconds > seconds:
            rate = (progress.tokens - tokens) / (progress.seconds - seconds)
            metrics["perf/tokens_per_second"] = rate
            if self.flops is not None:
                mfu = utilisation(self.flops, rate, self.peak_flops)
                metrics |= {f"perf/{name}": value for name, value in mfu.items() if value is not None}
        self.logged = progress.tokens, progress.seconds
        self.log("train", metrics)

    def validate(self) -> None:
        """Validate, log the results with statistics of the memories, and keep the metrics of the best validation."""
        progress = self.progress
        with self.stopwatch.phase("validation"):
            metrics = self.measure()
            if self.optimizer.average is not None:
                with self.optimizer.averaged():
                    averaged = self.measure()
                metrics |= {f"val/ema_{name.removeprefix('val/')}": value for name, value in averaged.items()}
            memory = observe(self.model, self.objective, self.source, self.ctx.device, self.ctx.dtype)
        progress.metrics |= metrics | memory
        if not progress.best or metrics["val/loss"] < progress.best["val/loss"]:
            progress.best = {"step": float(progress.step), **metrics}
        self.log("validation", metrics | memory)

    def measure(self) -> dict[str, float]:
        """Return the validation metrics of the current weights."""
        config = self.config
        return validate(
            self.model,
            self.objective,
            self.source,
            num_rows=config.data.val_rows,
            batch_size=config.data.batch_size // self.feed.num_micro_batches,
            world=self.world,
            dtype=self.ctx.dtype,
            resets=config.data.resets,
        )

    def sample(self) -> None:
        """Generate a continuation of each prompt and append them to samples.jsonl."""
        config, progress, tokenizer = self.config, self.progress, self.source.tokenizer
        assert tokenizer is not None, "sample_every was checked when the components were built"
        prompts = config.prompts or [config.prompt]
        samples = draw_samples(self.model, tokenizer, prompts, config.sampling, config.memory.name, config.seed)
        if self.world.is_first:
            # drops what a run that was stopped or rolled back wrote after this step
            file = JsonlLogger(self.ctx.directory / SAMPLES, progress.step - 1)
            for each in samples:
                file.log(progress.step, {"tokens": progress.tokens, **each})
            file.close()

    def log(self, split: str, metrics: Mapping[str, float]) -> None:
        """Log `metrics` of `split` at the current step, with the time and memory used until now."""
        progress = self.progress
        with self.stopwatch.phase("log"):
            spent = {"perf/seconds": progress.seconds, "perf/cpu_seconds": progress.cpu_seconds}
            spent |= {f"perf/seconds/{name}": seconds for name, seconds in self.stopwatch.read().items()}
            spent |= {"perf/wall_seconds": self.stopwatch.wall(), "perf/lost_seconds": self.stopwatch.lost}
            spent["perf/memory_bytes"] = float(peak_memory_bytes(self.ctx.device))
            self.ctx.log.log(progress.step, {"tokens": progress.tokens, "split": split, **metrics, **spent})

    def check_replicas(self) -> None:
        """Compare the replicas of all processes. Raises ReplicaError for the first tensor that differs."""
        if self.world.size > 1:
            self.world.check_replicas(dict(self.model.named_parameters()) | self.optimizer.local_tensors())

    def save(self) -> None:
        """Write a checkpoint of this step, unless its weights are not finite; every process must call this.

        Such weights would become the last good checkpoint. They are handled as `divergence` says: DivergedError, or a
        rollback, after which `progress` is at an earlier step.
        """
        self.check_replicas()
        if checkpoint.not_finite(checkpoint.model_tensors(self.model)):
            step = self.progress.step
            batches = self.feed.micro_batches(step)
            num_targets = self.count_targets(batches)
            self.recovery.diverge(math.nan, math.nan, lambda: self.backward(batches, num_targets, step))
            return
        plain, tokenizer = asdict(self.config), self.source.tokenizer
        with self.stopwatch.phase("checkpoint"):
            self.progress.phases, self.progress.lost = self.stopwatch.read(), self.stopwatch.lost
            self.recovery.saved = checkpoint.save(
                *(self.ctx.directory, self.model, self.optimizer, tokenizer, plain, self.progress),
                world=self.world,
                keep_every=self.config.keep_every,
            )

    def stopped(self) -> Stopped:
        """Return the exception of a run that was stopped: where it is saved, and the command that resumes it."""
        directory, step = self.ctx.directory, self.progress.step
        return Stopped(
            f"stopped at step {step} of {self.config.steps}, saved in {checkpoint.find(directory)}",
            f"resume with: {command_to_continue(directory, self.world.size)}",
        )


def start(
    saved: Path | None, source: Source, model: LanguageModel, optimizer: Optimizer, seed: int, world: World
) -> Progress:
    """Return the progress of a new run, or fill model and optimizer from the checkpoint `saved`.

    Raises CheckpointError when the checkpoint is damaged or made for something else, or when the data has changed.
    """
    tokenizer = None if source.tokenizer is None else source.tokenizer.fingerprint
    if saved is None:
        return Progress(seed=seed, source=source.fingerprint, tokenizer=tokenizer)
    checkpoint.verify(saved, world)
    progress = checkpoint.read_progress(saved)
    if (progress.source, progress.tokenizer) != (source.fingerprint, tokenizer):
        raise CheckpointError(
            f"{saved}: the data is not what this run was trained on (its sha256 differs); "
            "bring the old files back, or start another run with another name="
        )
    return load_checkpoint(saved, model, optimizer)
