"""Planned bytes of activations and states equal measured ones, at sizes that can be measured."""

from typing import Any

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from nested_learning import tree
from nested_learning.command.compose import make_job
from nested_learning.config.option_files import open_option_files
from nested_learning.config.registry import CHOICES
from nested_learning.config.schema import Config
from nested_learning.data.batch import Batch
from nested_learning.nn.execution import use_recompute
from nested_learning.planning.flops import parameters_in_products
from nested_learning.planning.footprint import activations, state_bytes

VOCAB, LENGTH = 61, 36
SIZES = ["model.dim=16", "model.num_heads=2"]


def configure(*lines: str) -> Config:
    """Compose a small configuration, with chunks so short that a row has several of them."""
    config = make_job(
        open_option_files(None),
        [*SIZES, *(["model.num_layers=4"] if not any("num_layers" in line for line in lines) else []), *lines],
    ).config
    for owner in (config.model, *(vars(config.model)[key] for key in ("memory",) if key in vars(config.model))):
        for key in ("chunk", "generating_chunk", "segment"):
            if key in vars(owner):
                vars(owner)[key] = 8
    return config


def really_kept(config: Config, num_rows: int, dtype: torch.dtype, recompute: str = "off") -> int:
    """Count the bytes that a real forward pass keeps for its backward pass, parameters left out."""
    model = config.model.build(VOCAB, seed=0)
    use_recompute(model, recompute)
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    tokens = torch.arange(num_rows * LENGTH).reshape(num_rows, LENGTH) % VOCAB
    state = model.init_state(num_rows)
    cast = torch.autocast("cpu", dtype, enabled=dtype != torch.float32)
    with saved_tensors_hooks(note, lambda tensor: tensor), cast:
        step: Any = config.objective.build()(model, Batch(tokens, tokens, tokens), state)
    assert step.loss.requires_grad
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@pytest.mark.parametrize(
    "name, dtype",
    [
        ("transformer", torch.bfloat16),
        ("deltanet", torch.float32),
        *(
            pytest.param(name, dtype, marks=pytest.mark.slow)
            for name in ("transformer", "titans_lmm", "hope", "titans_mac")
            for dtype in (torch.float32, torch.bfloat16)
        ),
    ],
    ids=str,
)
def test_planned_activations_equal_those_that_a_forward_pass_keeps(name: str, dtype: torch.dtype) -> None:
    config = configure(f"model={name}")
    known = activations(config.model, config.objective, VOCAB, LENGTH, dtype)
    for num_rows in (2, 4):
        # a few numbers are kept once for all rows, or once per span
        assert known.of(num_rows) == pytest.approx(really_kept(config, num_rows, dtype), rel=0.01)
    if dtype == torch.bfloat16:
        # weights in the narrower type are kept once
        with torch.device("meta"):
            model = config.model.build(VOCAB, seed=0)
        assert known.once >= 2 * parameters_in_products(model)


def test_recomputed_blocks_keep_their_inputs_and_one_block_all_its_activations() -> None:
    config, dtype = configure("model=transformer"), torch.float32
    known = activations(config.model, config.objective, VOCAB, LENGTH, dtype, "block")
    one, two = (really_kept(configure("model=transformer", f"model.num_layers={n}"), 3, dtype) for n in (1, 2))
    assert known.of(3) == pytest.approx(really_kept(config, 3, dtype, "block") + two - one, rel=0.02)
    assert known.row < 0.6 * activations(config.model, config.objective, VOCAB, LENGTH, dtype).row


QUICK = ("transformer", "deltanet")


@pytest.mark.parametrize(
    "name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in CHOICES["model"] if name not in QUICK)]
)
def test_the_planned_state_of_a_row_equals_the_measured_one(name: str) -> None:
    config = configure(f"model={name}")
    model = config.model.build(VOCAB, seed=0)
    before = model.init_state(1)
    with torch.no_grad():
        _, after = model(torch.zeros(1, LENGTH, dtype=torch.int64), before)
    assert state_bytes(config.model, VOCAB, LENGTH) == (tree.nbytes(before), tree.nbytes(after))
