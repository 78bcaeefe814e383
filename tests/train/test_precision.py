"""Types of a training step: what autocast narrows, what stays float32, and the scale of float16."""

import json
from dataclasses import replace

import pytest
import torch
from tiny import fingerprints, tiny, trace
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from nested_learning import tree
from nested_learning.checkpoint import Progress
from nested_learning.command.compose import make_job
from nested_learning.config.option_files import open_option_files
from nested_learning.data.batch import Batch
from nested_learning.errors import ConfigError, DivergedError
from nested_learning.nn.level_state import MLPWeights, advance, init_level, write_gradient
from nested_learning.phase.train import run
from nested_learning.train.float8 import is_hidden, use_float8
from nested_learning.train.precision import LossScale, autocast
from nested_learning.train.trainer import Trainer

CPU = torch.device("cpu")
LOCAL = "[{name: fast, period: 8, context: {rule: gd, lr: 0.1, signal: local, gradient: through}}]"
TAUGHT = "[{name: fast, period: 8, context: {rule: muon, lr: 0.1, momentum: 0.9}}, {name: slow, period: 0}]"
# name -> command line
MODELS = {
    "transformer": ("model=transformer",),
    "window": ("model=titans_mag",),
    "titans_lmm": ("model=titans_lmm",),
    "titans_deep": ("model=titans_deep",),
    "hope": ("model=hope", "optim=mixed_muon"),
    "local": ("model=hope_attention", f"model.levels={LOCAL}"),
    "taught": ("model=hope_attention", "objective=online", f"model.levels={TAUGHT}"),
}
# in these no number may be narrow: norms, gates, softmax, the loss
ISLANDS = {
    "rms_norm", "layer_norm", "normalize", "softmax", "log_softmax", "cross_entropy", "sigmoid", "log_sigmoid",
    "cumsum", "exp",
}  # fmt: skip


class Census(TorchFunctionMode):
    """Counts the dtypes of the arguments of functions, by function name."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, set[torch.dtype]] = {}

    def __torch_function__(self, function, types, args=(), kwargs=None):
        name = getattr(function, "__name__", "").strip("_")
        given = [x for x in tree.leaves((args, kwargs or {})) if isinstance(x, Tensor) and x.is_floating_point()]
        result = function(*args, **(kwargs or {}))
        # narrow types count where they go in, and, of products, where they come out
        seen = [x.dtype for x in given] if name in ISLANDS else [x.dtype for x in tree.leaves(result)]
        self.found.setdefault(name, set()).update(seen)
        return result


def configure(*line: str):
    sizes = ("model.dim=32", "model.num_layers=2", "model.num_heads=2")
    return make_job(open_option_files(None), [*sizes, *line]).config


def one_step(config, dtype: torch.dtype):
    model = config.model.build(61, seed=0)
    tokens = torch.arange(48).view(2, 24)
    with autocast(CPU, dtype), Census() as census:
        step = config.objective.build()(model, Batch(tokens, tokens, torch.zeros_like(tokens)), model.init_state(2))
    step.loss.backward()
    return model, step, census.found


@pytest.mark.parametrize(
    ("name", "dtype"), [*((name, torch.bfloat16) for name in MODELS), ("hope", torch.float16)], ids=str
)
def test_products_are_in_the_autocast_dtype_and_full_precision_parts_are_not(name, dtype):
    model, step, found = one_step(configure(*MODELS[name]), dtype)
    assert dtype in found["linear"]
    for island in ISLANDS & found.keys():
        assert found[island] == {torch.float32}, island
    assert {"rms_norm", "cross_entropy"} <= found.keys()
    assert (name in ("transformer", "local", "taught")) or {"sigmoid", "log_sigmoid"} <= found.keys()
    if name in ("titans_lmm", "titans_deep", "hope"):
        # the products of linear maps are narrow, those of memories are not
        assert found["matmul"] == {torch.float32}
    assert step.nats.dtype == step.loss.dtype == torch.float32
    for where, leaf in tree.named_leaves(step.state).items():
        is_memory = ".memory." in where or ".cms" in where or "['" in where
        assert leaf.dtype == torch.float32 or not is_memory, where
    assert all(parameter.grad.dtype == torch.float32 for parameter in model.parameters() if parameter.grad is not None)


def test_updates_of_levels_are_computed_without_autocast():
    level = configure(*MODELS["taught"]).model.levels[0].build()
    weights = MLPWeights(torch.ones(6, 4), torch.ones(4, 3))
    pick = torch.Generator().manual_seed(0)
    gradient = MLPWeights(*(torch.randn(2, *matrix.shape, generator=pick) for matrix in weights))
    written = []
    for dtype in (torch.float32, torch.bfloat16):
        state = advance(init_level(level, (level.context,), weights, 2), level.context.period)
        with autocast(CPU, dtype):
            written.append(write_gradient(state, gradient))
    assert torch.equal(written[0].delta().up, written[1].delta().up) and written[0].writes == 1


def test_the_census_finds_narrow_numbers_where_they_are_wanted():
    _, step, found = one_step(configure("model=transformer"), torch.bfloat16)
    assert torch.bfloat16 in found["scaled_dot_product_attention"]
    assert step.state[0].mixer.key.dtype == torch.bfloat16
    with Census() as census, autocast(CPU, torch.bfloat16):
        F.softmax(torch.ones(3, dtype=torch.bfloat16), -1)
    assert torch.bfloat16 in census.found["softmax"]


@pytest.mark.parametrize("model", ["transformer", "titans_lmm", "hope"])
def test_bfloat16_learns_the_same_as_float32(tmp_path, capsys, model):
    given = {"model": model, "steps": 8, "val_every": 8, "data__batch_size": 8}
    loss = {
        dtype: run(tiny(tmp_path, name=f"{model}{dtype}", dtype=dtype, **given)).metrics["val/loss"]
        for dtype in ("float32", "bfloat16")
    }
    assert loss["bfloat16"] != loss["float32"]
    assert loss["bfloat16"] == pytest.approx(loss["float32"], rel=0.01)


def test_float16_learns_the_same_as_float32_and_resumes_with_its_scale(tmp_path, capsys):
    whole = run(tiny(tmp_path, name="whole", dtype="float16", steps=6)).directory
    wide = run(tiny(tmp_path, name="wide", steps=6))
    last = trace(whole)[-2]
    assert last["optim/loss_scale"] == 2.0**16 and last["optim/overflows"] == 0
    assert trace(whole)[-1]["val/loss"] == pytest.approx(wide.metrics["val/loss"], rel=0.01)
    # the norm that is clipped by is that of the gradient without the scale
    assert trace(whole)[1]["optim/grad_norm"] == pytest.approx(trace(wide.directory)[1]["optim/grad_norm"], rel=0.02)


@pytest.fixture
def short_interval(monkeypatch):
    monkeypatch.setattr("nested_learning.train.precision.INTERVAL", 2)


class KilledError(Exception):
    """A kill, for a test."""


def overflowing(monkeypatch, at: set[int], kill_at: int | None = None) -> None:
    """Make the gradients of the steps `at` overflow when their loss is scaled by more than 2**15; maybe be killed."""
    backward = Trainer.backward

    def broken(self, batches, num_targets, step):
        if step == kill_at:
            raise KilledError
        scale = self.scale.scale
        result = backward(self, batches, num_targets, step)
        if step in at and scale > 2.0**15:
            next(self.model.parameters()).grad[0] = torch.inf
        return result

    monkeypatch.setattr(Trainer, "backward", broken)


def test_an_overflow_skips_the_step_and_is_no_divergence(tmp_path, capsys, monkeypatch):
    overflowing(monkeypatch, {2})
    result = run(tiny(tmp_path, name="a", dtype="float16", steps=4))
    lines = [line for line in trace(result.directory) if line["split"] == "train"]
    assert [line["optim/overflows"] for line in lines] == [0, 0, 1, 1]
    assert [line["optim/loss_scale"] for line in lines] == [2.0**16, 2.0**16, 2.0**15, 2.0**15]
    assert lines[2]["optim/grad_norm"] is None and lines[2]["train/loss"] > 0
    json.loads((result.directory / "summary.json").read_text(), parse_constant=pytest.fail)


def test_a_loss_that_is_not_finite_at_any_scale_is_a_divergence(tmp_path, capsys, monkeypatch):
    overflowing(monkeypatch, {1})
    monkeypatch.setattr("nested_learning.train.precision.START", 1.0)
    backward = Trainer.backward

    def broken(self, batches, num_targets, step):
        result = backward(self, batches, num_targets, step)
        if step == 1:
            next(self.model.parameters()).grad[0] = torch.inf
        return result

    monkeypatch.setattr(Trainer, "backward", broken)
    with pytest.raises(DivergedError, match="diverged at step 2"):
        run(tiny(tmp_path, name="a", dtype="float16", steps=4))


def test_a_killed_run_resumes_with_its_scale(tmp_path, capsys, monkeypatch, short_interval):
    given = {"dtype": "float16", "steps": 7, "save_every": 1}
    with monkeypatch.context() as patch:
        overflowing(patch, {2, 3})
        whole = run(tiny(tmp_path, name="whole", **given)).directory
    with monkeypatch.context() as patch:
        overflowing(patch, {2, 3}, kill_at=4)
        with pytest.raises(KilledError):
            run(tiny(tmp_path, name="cut", **given))
    with monkeypatch.context() as patch:
        overflowing(patch, {2, 3})
        cut = run(tiny(tmp_path, name="cut", **given)).directory
    scales = [line["optim/loss_scale"] for line in trace(whole) if line["split"] == "train"]
    assert scales == [2.0**exponent for exponent in (16, 17, 16, 15, 15, 16, 16)]
    assert trace(cut) == trace(whole) and fingerprints(cut) == fingerprints(whole)


def test_the_scale_follows_that_of_torch(short_interval):
    progress = Progress(seed=0, source="", tokenizer=None)
    scale = LossScale(progress, torch.float16)
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=0.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16, growth_interval=2)
    for is_overflow in (False, False, True, False, True, True, False, False, False, False, True):
        weight.grad = torch.tensor([torch.inf if is_overflow else 1.0])
        # the first scaling makes the scaler's numbers
        scaler.scale(torch.ones(1))
        scaler.step(optimizer)
        scaler.update()
        scale.note(is_overflow=is_overflow)
        assert scale.scale == scaler.get_scale()


def test_other_types_have_no_scale():
    progress = Progress(seed=0, source="", tokenizer=None)
    scale = LossScale(progress, torch.bfloat16)
    scale.note(is_overflow=False)
    assert scale.scale == 1.0 and scale.metrics() == {} and progress.scaled_steps == 0
    assert not scale.is_overflow(1.0, is_finite=False)


def test_float8_converts_hidden_maps_and_keeps_names_and_weights():
    model = configure("model=hope", "model.expansion=2").model.build(64, 0)
    before = dict(model.named_parameters())
    hidden = sum(is_hidden(module, name) for name, module in model.named_modules())
    assert use_float8(model, CPU, emulate=True) == hidden > 0
    after = dict(model.named_parameters())
    assert list(after) == list(before) and all(after[name] is before[name] for name in before)
    assert type(model.head) is torch.nn.Linear


def test_emulated_float8_learns_the_same_as_float32():
    torch.manual_seed(0)
    losses = {}
    for is_narrow in (False, True):
        config = configure("model=titans_lmm", "model.expansion=2")
        model = config.model.build(64, seed=0)
        if is_narrow:
            use_float8(model, CPU, emulate=True)
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
        tokens = torch.arange(64).view(2, 32) * 7 % 64
        batch = Batch(tokens, (tokens + 7) % 64, torch.zeros_like(tokens))
        for _ in range(8):
            with autocast(CPU, torch.bfloat16 if is_narrow else torch.float32):
                step = config.objective.build()(model, batch, model.init_state(2))
            (step.loss / step.num_targets).backward()
            optimizer.step()
            optimizer.zero_grad()
        losses[is_narrow] = float(step.loss.detach() / step.num_targets)
    assert losses[True] != losses[False]
    assert losses[True] == pytest.approx(losses[False], rel=0.05) and losses[True] < 3.5


def test_float8_is_refused_where_there_is_none(tmp_path):
    with pytest.raises(ConfigError, match=r"dtype=float8: needs a GPU .* use dtype=bfloat16"):
        run(tiny(tmp_path, name="a", dtype="float8"))
    assert not (tmp_path / "runs").exists()


def test_an_unknown_type_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="dtype=float17"):
        replace(tiny(tmp_path), dtype="float17")
