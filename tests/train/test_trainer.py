"""The training loop: exact means, no side effects, a stop before a bad update."""

import json
import math
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import fingerprints, tiny, trace
from torch.nn import functional as F

from nested_learning import checkpoint
from nested_learning.checkpoint import Progress
from nested_learning.data.batch import IGNORE
from nested_learning.data.loader import train_batch, validation_batches
from nested_learning.data.source import Row
from nested_learning.errors import DataError, DivergedError
from nested_learning.logger.protocol import Fanout
from nested_learning.optim.build import build_optimizer
from nested_learning.phase.train import run
from nested_learning.train.run import RunContext, open_feed
from nested_learning.train.trainer import Trainer
from nested_learning.train.validation import validate
from nested_learning.world.world import World

ALONE = World(0, 1, 0, torch.device("cpu"), "gloo")


class Ragged:
    """A source with fewer targets in some rows than in others."""

    vocab_size, seq_len, tokenizer, fingerprint = 11, 8, None, "ragged"

    def num_rows(self, split):
        return 7

    def row(self, split, epoch, index):
        draw = np.random.default_rng([index, split == "train"])
        tokens = draw.integers(0, 11, self.seq_len)
        targets = np.where(np.arange(self.seq_len) % (index + 1) == 0, draw.integers(0, 11, self.seq_len), IGNORE)
        return Row(tokens, targets, np.zeros_like(tokens))


def make_trainer(folder, source=None, **given) -> Trainer:
    config = tiny(folder, **given)
    source = config.data.build(config.seed) if source is None else source
    model = config.model.build(source.vocab_size, config.seed)
    tokens_per_step = config.data.batch_size * source.seq_len
    optimizer = build_optimizer(
        config.optim, list(model.named_parameters()), model.levels, tokens_per_step, config.steps
    )
    ctx = RunContext(folder, config, config.seed, ALONE.device, torch.float32, ALONE, Fanout())
    progress = Progress(seed=config.seed, source="", tokenizer=None)
    return Trainer(ctx, open_feed(config, source, ALONE), model, config.objective.build(), optimizer, progress)


def gradients(trainer: Trainer) -> dict[str, torch.Tensor]:
    batches = trainer.micro_batches(0)
    trainer.backward(batches, trainer.count_targets(batches), 0)
    return {name: parameter.grad for name, parameter in trainer.model.named_parameters()}


def test_the_gradient_does_not_depend_on_the_micro_batches_even_with_ragged_targets(tmp_path):
    whole = gradients(make_trainer(tmp_path, Ragged()))
    cut = gradients(make_trainer(tmp_path, Ragged(), micro_batches=4))
    for name, gradient in whole.items():
        torch.testing.assert_close(cut[name], gradient, rtol=1e-5, atol=1e-6, msg=name)


def test_the_logged_loss_is_the_mean_over_all_targets_of_the_step(tmp_path):
    trainer = make_trainer(tmp_path, Ragged(), micro_batches=2)
    batch = train_batch(trainer.source, 0, 0, 0, 1, 4)
    with torch.no_grad():
        logits, _ = trainer.model(batch.tokens, trainer.model.init_state(4))
    by_hand = F.cross_entropy(logits.flatten(0, 1).double(), batch.targets.flatten(), ignore_index=IGNORE).item()
    trainer.train_step(lambda: False)
    assert trainer.progress.metrics["train/loss"] == pytest.approx(by_hand, rel=1e-6)
    assert trainer.progress.tokens == 4 * 8


def test_a_batch_without_targets_is_refused(tmp_path):
    class Empty(Ragged):
        def row(self, split, epoch, index):
            row = super().row(split, epoch, index)
            return row._replace(targets=np.full_like(row.targets, IGNORE))

    with pytest.raises(DataError, match=r"step 0: no targets"):
        make_trainer(tmp_path, Empty()).train_step(lambda: False)


def test_gradients_are_clipped_to_the_norm_and_logged_unclipped(tmp_path):
    trainer = make_trainer(tmp_path, optim__clip=0.01)
    seen = []
    real = trainer.optimizer.step

    def step(number):
        seen.append(math.sqrt(sum(float(parameter.grad.square().sum()) for parameter in trainer.model.parameters())))
        real(number)

    trainer.optimizer.step = step
    trainer.train_step(lambda: False)
    assert seen == [pytest.approx(0.01, rel=1e-3)] and trainer.progress.metrics["optim/grad_norm"] > 0.1


@pytest.mark.parametrize("poison", ["weight", "gradient"])
def test_a_loss_or_gradient_that_is_not_finite_stops_the_run_before_the_update(tmp_path, poison):
    trainer = make_trainer(tmp_path, Ragged())
    name, victim = next((n, p) for n, p in trainer.model.named_parameters() if p.dim() == 2)
    if poison == "weight":
        with torch.no_grad():
            victim[0, 0] = torch.nan
    else:
        victim.register_hook(lambda gradient: gradient.clone().fill_(torch.inf))
    before = {key: tensor.clone() for key, tensor in trainer.model.state_dict().items()}
    states = {key: tensor.clone() for key, tensor in trainer.optimizer.state_dict().items()}
    with pytest.raises(
        DivergedError, match=rf"step 1: .*largest in .*{name if poison == 'gradient' else ''}.*nothing was saved"
    ):
        trainer.train_step(lambda: False)
    assert all(torch.equal(before[key], t) or t.isnan().any() for key, t in trainer.model.state_dict().items())
    assert all(torch.equal(states[key], tensor) for key, tensor in trainer.optimizer.state_dict().items())


def test_a_divergence_names_the_last_good_checkpoint(tmp_path):
    trainer = make_trainer(tmp_path, Ragged())
    trainer.train_step(lambda: False)
    trainer.save()
    with torch.no_grad():
        next(trainer.model.parameters()).fill_(torch.nan)
    with pytest.raises(DivergedError, match=r"last good checkpoint: .*step_00000001"):
        trainer.train_step(lambda: False)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 5])
def test_validation_does_not_depend_on_the_batch_size_and_equals_brute_force(tmp_path, batch_size):
    trainer = make_trainer(tmp_path)
    model, source = trainer.model, trainer.source
    nats = targets = text_nats = text_bytes = 0.0
    for batch in validation_batches(source, 5, 1):
        logits, _ = model(batch.tokens, model.init_state(1))
        for position, target in enumerate(batch.targets[0].tolist()):
            if target != IGNORE:
                cost = -logits[0, position].double().log_softmax(0)[target].item()
                nats, targets = nats + cost, targets + 1
                if target != source.tokenizer.end:
                    text_nats, text_bytes = text_nats + cost, text_bytes + 1
    found = validate(model, trainer.objective, source, num_rows=5, batch_size=batch_size, world=ALONE)
    assert found["val/loss"] == pytest.approx(nats / targets, rel=1e-6)
    assert found["val/bpb"] == pytest.approx(text_nats / text_bytes / math.log(2), rel=1e-6)


def test_validation_sums_over_processes_like_over_batches(tmp_path):
    trainer = make_trainer(tmp_path, Ragged())
    alone = validate(trainer.model, trainer.objective, trainer.source, num_rows=5, batch_size=2, world=ALONE)
    seen = []

    class Recorder(World):
        def sum(self, values):
            seen.append([math.fsum(terms) for terms in values])
            return seen[-1]

    for rank in range(2):
        part = Recorder(rank, 2, 0, ALONE.device, "gloo")
        validate(trainer.model, trainer.objective, trainer.source, num_rows=5, batch_size=2, world=part)

    class Total(World):
        def sum(self, values):
            return [sum(column) for column in zip(*seen, strict=True)]

    both = validate(
        trainer.model,
        trainer.objective,
        trainer.source,
        num_rows=5,
        batch_size=2,
        world=Total(0, 2, 0, ALONE.device, "gloo"),
    )
    assert both == pytest.approx(alone, rel=1e-6) and set(both) == {"val/loss", "val/accuracy", "val/sequence_accuracy"}


def test_random_guessing_has_a_loss_of_log2_of_the_vocabulary_per_byte(tmp_path):
    trainer = make_trainer(tmp_path)
    with torch.no_grad():
        for parameter in trainer.model.parameters():
            parameter.zero_()
    found = validate(trainer.model, trainer.objective, trainer.source, num_rows=5, batch_size=2, world=ALONE)
    assert found["val/bpb"] == pytest.approx(math.log2(257), rel=1e-6)
    assert found["val/loss"] == pytest.approx(math.log(257), rel=1e-6)


def test_validating_and_saving_often_changes_nothing_that_is_learned(tmp_path):
    (tmp_path / "often").mkdir()
    (tmp_path / "once").mkdir()
    often = run(tiny(tmp_path / "often", val_every=1, save_every=1, log_every=1)).directory
    once = run(tiny(tmp_path / "once", val_every=6, save_every=6, log_every=1)).directory
    assert fingerprints(often) == fingerprints(once)
    training = [[line for line in trace(each) if line["split"] == "train"] for each in (often, once)]
    assert training[0] == training[1] and len(training[0]) == 6


def test_validation_happens_before_the_first_step_every_so_often_and_at_the_end(tmp_path):
    lines = trace(run(tiny(tmp_path, steps=5, val_every=2)).directory)
    assert [line["step"] for line in lines if line["split"] == "validation"] == [0, 2, 4, 5]
    assert all(line["tokens"] == line["step"] * 4 * 32 for line in lines)


def test_equal_seeds_give_equal_bytes_and_another_seed_others(tmp_path):
    first, same, other = (run(tiny(tmp_path, seed=seed)).directory for seed in (1, 1, 2))
    assert fingerprints(first) == fingerprints(same) and trace(first) == trace(same)
    assert fingerprints(first)["model.safetensors"] != fingerprints(other)["model.safetensors"]
    assert trace(first)[0] != trace(other)[0]


def test_the_seed_fixes_the_initial_weights_whatever_was_drawn_before(tmp_path):
    config = tiny(tmp_path)
    first = config.model.build(257, 5)
    torch.rand(3)
    again, other = config.model.build(257, 5), config.model.build(257, 6)
    pairs = zip(first.parameters(), again.parameters(), strict=True)
    assert all(torch.equal(one, two) for one, two in pairs)
    assert not torch.equal(first.embedding.weight, other.embedding.weight)


def test_half_precision_stays_close_and_keeps_parameters_in_float32(tmp_path):
    full, half = (run(tiny(tmp_path, dtype=dtype)) for dtype in ("float32", "bfloat16"))
    assert half.metrics["val/loss"] != full.metrics["val/loss"]
    assert half.metrics["val/loss"] == pytest.approx(full.metrics["val/loss"], rel=0.02)
    model = tiny(tmp_path).model.build(257, 0)
    checkpoint.load_model(checkpoint.find(half.directory), model)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_a_stop_signal_however_often_finishes_the_step_saves_and_prints_how_to_resume(
    tmp_path, monkeypatch, capfd, number
):
    config = tiny(tmp_path, name="a", save_every=100)
    real = Trainer.micro_batches

    def interrupted(self, step):
        if step == 2 and self.progress.step == 2:
            # a terminal and a wrapper each send Ctrl-C; schedulers repeat SIGTERM
            for each in (number, number, signal.SIGTERM):
                signal.raise_signal(each)
        return real(self, step)

    monkeypatch.setattr(Trainer, "micro_batches", interrupted)
    before = signal.getsignal(number)
    with pytest.raises(
        KeyboardInterrupt, match=r"stopped at step 3 of 6, saved in .*step_00000003; resume with: .* resume="
    ) as raised:
        run(config)
    assert signal.getsignal(number) is before
    assert capfd.readouterr().err.count("saved first; a second Ctrl-C ends at once, without saving") == 1
    assert f"resume={tmp_path / 'runs' / 'a'}" in str(raised.value)
    monkeypatch.setattr(Trainer, "micro_batches", real)
    resumed = run(replace(config, resume=str(tmp_path / "runs" / "a"))).directory
    whole = run(replace(config, name="b")).directory
    assert trace(resumed) == trace(whole) and fingerprints(resumed) == fingerprints(whole)


def test_best_is_the_validation_with_the_lowest_loss(tmp_path):
    directory = run(tiny(tmp_path, steps=6, val_every=1, optim__groups__0__lr=3)).directory
    best = json.loads((directory / "summary.json").read_text())["best"]
    losses = {line["step"]: line["val/loss"] for line in trace(directory) if line["split"] == "validation"}
    assert losses[int(best["step"])] == best["val/loss"] == min(losses.values())


def test_the_first_weights_and_those_of_every_so_many_steps_are_kept(tmp_path):
    directory = run(tiny(tmp_path, name="kept", keep_every=3, save_every=1)).directory
    assert directory is not None
    saved = directory / "checkpoints"
    assert [path.name for path in sorted(saved.glob("step_*"))] == [f"step_{step:08d}" for step in (0, 3, 5, 6)]
    first, config = saved / "step_00000000", tiny(tmp_path, name="kept", keep_every=3)
    model, other = (config.model.build(257, seed) for seed in (config.seed, 1))
    checkpoint.load_model(first, other)
    assert all(map(torch.equal, model.parameters(), other.parameters()))
