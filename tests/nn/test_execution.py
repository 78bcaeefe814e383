"""Recomputing in the backward pass changes no result and takes less memory."""

import multiprocessing
import resource
from dataclasses import replace

import pytest
import torch

from nested_learning.command.compose import make_job
from nested_learning.config.option_files import open_option_files
from nested_learning.data.batch import Batch
from nested_learning.nn.execution import change_designs, use_backend, use_recompute
from nested_learning.ops.recompute import spans

CPU = torch.device("cpu")
SIZES = ("model.dim=16", "model.num_layers=2", "model.num_heads=2")
CHUNKED = ("model.memory.chunk=4",)
TAUGHT = "[{name: fast, period: 8, context: {rule: gd, lr: 0.05}}, {name: slow, period: 0}]"
# name -> command line
MODELS = {
    "transformer": ("model=transformer", "model.dropout=0.2"),
    "titans_lmm": ("model=titans_lmm", *CHUNKED),
    "titans_deep": ("model=titans_deep", *CHUNKED),
    "titans_mac": ("model=titans_mac", *CHUNKED, "model.segment=8"),
    "hope": ("model=hope", *CHUNKED, "model.generating_chunk=6", "model.dropout=0.2"),
    "taught": ("model=deltanet", *CHUNKED, "objective=online", f"model.levels={TAUGHT}"),
}


def gradients(line, kind: str, backend: str = "eager"):
    """Loss and gradients of one batch in float64, reading on from a state that ends inside a chunk."""
    config = make_job(open_option_files(None), [*SIZES, *line]).config
    model, objective = config.model.build(29, seed=0).double(), config.objective.build()
    use_backend(model, backend, CPU)
    use_recompute(model, kind)
    tokens = torch.arange(2 * 19).view(2, 19) * 5 % 29
    batch = Batch(tokens, tokens.roll(-1), torch.zeros_like(tokens))
    torch.manual_seed(1)
    _, state = model(tokens[:, :3], model.init_state(2))
    step = objective(model, batch, state)
    step.loss.backward()
    return step.loss.detach(), {name: weight.grad for name, weight in model.named_parameters()}


DEFAULT = [("transformer", "block"), ("hope", "block"), ("hope", "chunk"), ("titans_lmm", "chunk"), ("taught", "block")]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        pytest.param(name, kind, marks=() if (name, kind) in DEFAULT else pytest.mark.slow)
        for name in MODELS
        for kind in ("block", "chunk")
    ],
)
def test_recomputing_changes_neither_loss_nor_gradients(name, kind):
    loss, wanted = gradients(MODELS[name], "off")
    again, found = gradients(MODELS[name], kind)
    assert torch.allclose(again, loss, rtol=1e-12, atol=0)
    for weight, gradient in wanted.items():
        assert gradient is not None and torch.allclose(found[weight], gradient, rtol=1e-9, atol=1e-11), weight


def test_n_chunks_are_grouped_into_about_sqrt_n_spans():
    assert spans([4] * 16) == [16] * 4
    assert spans([3, 4, 4, 2]) == [7, 6]
    assert spans([5]) == [5]
    assert sum(spans([1] + [64] * 30 + [7])) == 1 + 64 * 30 + 7


def measure(line, kind: str) -> float:
    """MiB that a step takes at its peak, of a process of its own."""
    queue = multiprocessing.get_context("fork").SimpleQueue()
    process = multiprocessing.get_context("fork").Process(target=_step, args=(line, kind, queue))
    process.start()
    process.join()
    assert process.exitcode == 0
    return queue.get()


def _step(line, kind, queue) -> None:
    sizes = ("model.dim=64", "model.num_layers=12", "model.num_heads=2")
    config = make_job(open_option_files(None), [*sizes, *line]).config
    model, objective = config.model.build(32, seed=0), config.objective.build()
    use_recompute(model, kind)
    # the first step, of a few tokens, loads code
    for num_tokens in (64, 512):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        tokens = torch.zeros(4, num_tokens, dtype=torch.int64)
        objective(model, Batch(tokens, tokens, tokens), model.init_state(4)).loss.backward()
    queue.put((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "kind", "fraction"),
    [(("model=transformer",), "block", 0.55), (("model=hope",), "chunk", 0.65)],
    ids=["block", "chunk"],
)
def test_recomputing_takes_less_memory(line, kind, fraction):
    assert measure(line, kind) < fraction * measure(line, "off")


@pytest.mark.parametrize("name", ["titans_lmm", "hope", "titans_mac"])
def test_change_designs_changes_the_given_fields_of_every_memory_only(name):
    model = make_job(open_option_files(None), [f"model={name}", *SIZES]).config.model.build(29, seed=0)

    def designs():
        found = [module.design for module in model.modules() if "design" in vars(module)]
        return [each for found in found for each in ((found.generating, found.read) if name == "hope" else (found,))]

    before = designs()
    assert len(before) == (4 if name == "hope" else 2) and not any(design.recompute for design in before)
    change_designs(model, recompute=True, backend="eager")
    assert designs() == [replace(design, recompute=True, backend="eager") for design in before]
