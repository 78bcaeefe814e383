"""A step that is not finite stops the run, is skipped or rolled back, also after a kill; incident.md reports it."""

import math
import re
from contextlib import suppress

import pytest
import torch
from tiny import fingerprints, tiny, trace

from nested_learning import checkpoint
from nested_learning.errors import DivergedError
from nested_learning.logger.jsonl import JsonlLogger
from nested_learning.logger.protocol import Fanout
from nested_learning.optim.build import build_optimizer
from nested_learning.train.divergence.policy import MAX_SKIPPED, decide
from nested_learning.train.run import RunContext, open_feed
from nested_learning.train.trainer import Trainer, start
from nested_learning.world.world import World

ALONE = World(0, 1, 0, torch.device("cpu"), "gloo")
# a clock that falls between steps: its gradients must live through a step that is left out
LEVELS = "[{name: fast, period: 0}, {name: slow, period: 256}]"


class KilledError(Exception):
    """A kill of the process, which saves nothing."""


def make(folder, name="a", **given) -> Trainer:
    """Build a trainer in the run directory `name`, resuming where it was."""
    config = tiny(folder, **({"steps": 7, "save_every": 3, "val_every": 9, "data__val_rows": 1} | given))
    directory = folder / name
    directory.mkdir(exist_ok=True)
    source = config.data.build(config.seed)
    model = config.model.build(source.vocab_size, config.seed)
    tokens_per_step = config.data.batch_size * source.seq_len
    optimizer = build_optimizer(
        config.optim, list(model.named_parameters()), model.levels, tokens_per_step, config.steps
    )
    optimizer.record_inputs(model)
    saved = checkpoint.find(directory) if checkpoint.has_checkpoint(directory) else None
    progress = start(saved, source, model, optimizer, config.seed, ALONE)
    log = Fanout([JsonlLogger(directory / "metrics.jsonl", progress.step)])
    ctx = RunContext(directory, config, config.seed, ALONE.device, torch.float32, ALONE, log)
    return Trainer(ctx, open_feed(config, source, ALONE), model, config.objective.build(), optimizer, progress)


def break_gradient(monkeypatch, *steps, scale=math.nan, times=10**6):
    """Multiply the gradient of these steps by `scale`, the first `times` times."""
    real, left = Trainer.backward, [times]

    def backward(self, batches, num_targets, step):
        result = real(self, batches, num_targets, step)
        if step + 1 in steps and left[0]:
            left[0] -= 1
            gradient = next(parameter.grad for parameter in self.model.parameters())
            gradient *= torch.tensor(scale)
        return result

    monkeypatch.setattr(Trainer, "backward", backward)


def break_weights(monkeypatch, step):
    """Make the update of `step` leave a weight that is not finite, every time."""
    real = Trainer.update

    def update(self, number, norm):
        real(self, number, norm)
        if number + 1 == step:
            next(self.model.parameters()).data[0] = math.inf

    monkeypatch.setattr(Trainer, "update", update)


def page(folder, name="a"):
    return (folder / name / "incident.md").read_text()


@pytest.mark.parametrize(
    ("policy", "step", "skipped", "saved", "finite", "stops", "rolls_back", "left_out"),
    [
        ("raise", 5, [], 3, True, True, False, []),
        ("skip", 5, [], None, True, False, False, [5]),
        ("skip", 5, [2], 3, True, False, False, [2, 5]),
        ("skip", 5, [], 3, False, True, False, []),
        ("rollback", 5, [], 3, True, False, True, [5]),
        ("rollback", 6, [], 3, False, False, True, [5]),
        ("rollback", 6, [5], 3, False, False, True, [4, 5]),
        ("rollback", 4, [], 3, False, True, False, []),
        ("rollback", 5, [], None, True, True, False, []),
        ("skip", 9, [1, 2, 3, 4, 8], 3, True, True, False, [1, 2, 3, 4, 8]),
        ("skip", 120, [1, 2, 3, 4, 8], 3, True, False, False, [1, 2, 3, 4, 8, 120]),
        ("rollback", 9, [4, 5, 6, 7, 8], 3, True, True, False, [4, 5, 6, 7, 8]),
    ],
)
def test_the_verdict_is_a_pure_function(policy, step, skipped, saved, finite, stops, rolls_back, left_out):
    verdict = decide(policy, step, skipped, saved, weights_are_finite=finite)
    assert (verdict.stops, verdict.rolls_back, verdict.skipped) == (stops, rolls_back, left_out)


@pytest.mark.parametrize(
    ("optim", "model"), [("adamw", {"model": "hope", "model__levels": LEVELS}), ("dgd", {"model": "transformer"})]
)
def test_skip_and_rollback_learn_the_same_as_a_run_without_the_batch(tmp_path, monkeypatch, optim, model):
    without = make(tmp_path, "without", optim=optim, **model)
    without.progress.skipped = [5]
    without.fit()
    break_gradient(monkeypatch, 5)
    for policy in ("skip", "rollback"):
        trainer = make(tmp_path, policy, optim=optim, divergence=policy, **model)
        trainer.fit()
        assert trainer.progress.skipped == [5]
        assert fingerprints(tmp_path / policy) == fingerprints(tmp_path / "without")
        assert trainer.stopwatch.lost > 0 if policy == "rollback" else trainer.stopwatch.lost == 0
        lines = [line for line in trace(tmp_path / policy) if line["split"] == "train"]
        assert [line["step"] for line in lines] == list(range(1, 8)), "one series without gaps"
        assert [line["optim/skipped"] for line in lines if "optim/skipped" in line][-1] == 1
        assert "train/loss" not in lines[4] and all("train/loss" in line for line in lines if line["step"] != 5)


@pytest.mark.parametrize(("policy", "killed_at"), [("skip", 6), ("skip", 7), ("rollback", 6), ("rollback", 7)])
def test_a_killed_run_skips_the_same_steps_again(tmp_path, monkeypatch, policy, killed_at):
    break_gradient(monkeypatch, 5)
    make(tmp_path, "whole", divergence=policy).fit()
    killed = make(tmp_path, "killed", divergence=policy)
    real = Trainer.count_targets

    def die(self, batches):
        if self.progress.step + 1 == killed_at:
            raise KilledError
        return real(self, batches)

    with monkeypatch.context() as patch, suppress(KilledError):
        patch.setattr(Trainer, "count_targets", die)
        killed.fit()
    again = make(tmp_path, "killed", divergence=policy)
    again.fit()
    assert again.progress.skipped == [5]
    assert fingerprints(tmp_path / "killed") == fingerprints(tmp_path / "whole")
    assert trace(tmp_path / "killed") == trace(tmp_path / "whole")


def test_weights_that_an_update_broke_are_undone_by_rollback_only(tmp_path, monkeypatch):
    break_weights(monkeypatch, 5)
    with pytest.raises(DivergedError, match=r"step 6: .*the weights themselves are not finite.*divergence=rollback"):
        make(tmp_path, "skip", divergence="skip").fit()
    trainer = make(tmp_path, "rollback", divergence="rollback")
    trainer.fit()
    assert trainer.progress.skipped == [5] and math.isfinite(trainer.progress.metrics["train/loss"])
    assert "looks like: weights" in page(tmp_path, "rollback")


def test_weights_that_are_not_finite_are_never_saved(tmp_path, monkeypatch):
    break_weights(monkeypatch, 4)
    with pytest.raises(DivergedError, match=r"largest in embedding.weight \(inf\).*last good .*step_00000002"):
        make(tmp_path, steps=4, save_every=2).fit()
    trainer = make(tmp_path, steps=4, save_every=2, divergence="rollback")
    trainer.fit()
    assert trainer.progress.skipped == [4]
    checkpoint.load_model(checkpoint.find(tmp_path / "a"), trainer.model)


def test_a_run_that_diverges_repeatedly_stops_with_an_error(tmp_path, monkeypatch):
    break_gradient(monkeypatch, *range(2, 20))
    with pytest.raises(DivergedError, match=f"{MAX_SKIPPED + 1} of the last 100 steps were not finite"):
        make(tmp_path, divergence="rollback").fit()
    assert page(tmp_path).count("## Step") == MAX_SKIPPED + 1


def test_a_stopped_run_resumes_with_another_policy(tmp_path, monkeypatch):
    break_gradient(monkeypatch, 5)
    with pytest.raises(DivergedError, match=r"step 5: .*last good checkpoint: .*step_00000003.*incident\.md"):
        make(tmp_path).fit()
    make(tmp_path, divergence="skip").fit()
    make(tmp_path, "whole", divergence="skip").fit()
    assert fingerprints(tmp_path / "a") == fingerprints(tmp_path / "whole")
    assert trace(tmp_path / "a") == trace(tmp_path / "whole")


def test_a_spike_that_is_finite_is_no_divergence(tmp_path, monkeypatch):
    break_gradient(monkeypatch, 3, scale=1e12)
    trainer = make(tmp_path, divergence="rollback", steps=4)
    trainer.fit()
    assert trainer.progress.skipped == [] and not (tmp_path / "a" / "incident.md").exists()


def poison(module, how):
    """Pass the input of `module` through `how`."""
    module.register_forward_pre_hook(lambda _module, arguments: (how(arguments[0]), *arguments[1:]))


@pytest.mark.parametrize(
    ("how", "kind", "words"),
    [
        (lambda x: x - (-1 - x.square()).log(), "forward", r"`aten\.log\.default` in `blocks\.1\.\S+` \(forward"),
        (lambda x: x + (0 * x).sqrt(), "backward", r"in `blocks\.1\.\S+` \(backward"),
        (lambda x: x * torch.tensor([1.0, math.inf, 1.0, 1.0])[:, None, None], "rows", r"Row 1, nan nats"),
    ],
)
def test_the_report_names_the_first_operation_and_the_module_it_is_in(tmp_path, how, kind, words):
    trainer = make(tmp_path)
    poison(list(trainer.model.blocks[1].children())[-1], how)
    with pytest.raises(DivergedError):
        trainer.train_step(lambda: False)
    text = page(tmp_path)
    assert f"looks like: {kind}" in text
    assert re.search(words, text), text


def test_the_report_has_the_text_the_norms_and_what_to_do(tmp_path, monkeypatch):
    break_gradient(monkeypatch, 2)
    trainer = make(tmp_path)
    trainer.train_step(lambda: False)
    before = trainer.progress.metrics["train/loss"]
    with pytest.raises(DivergedError):
        trainer.train_step(lambda: False)
    text = page(tmp_path)
    row = trainer.micro_batches(1)[0].tokens[0]
    assert trainer.source.tokenizer.decode(row.tolist()).split("\n")[0] in text
    assert f"train/loss {before:.4g}" in text and "divergence=rollback" in text
    for name, _ in trainer.model.named_parameters():
        assert f"| `{name}` |" in text
    row = next(line for line in text.splitlines() if line.startswith("| `embedding.weight`"))
    weights, gradient, activations = (float(cell) for cell in row.split("|")[2:-1])
    assert weights > 0 and activations > 0 and math.isnan(gradient)
    assert all(parameter.grad is None for parameter in trainer.model.parameters())


def test_a_batch_that_is_finite_when_it_is_read_again_points_to_the_machine(tmp_path, monkeypatch):
    break_gradient(monkeypatch, 2, times=1)
    trainer = make(tmp_path, divergence="skip", data="copy", data__length=8, steps=3)
    trainer.fit()
    text = page(tmp_path)
    assert "looks like: transient" in text and "tokens [" in text and "targets [" in text
