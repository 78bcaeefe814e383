"""The continuum memory: one level is a Transformer's MLP, and a row's own writes answer for that row alone."""

import torch
from torch.nn import functional as F

from nested_learning.level import Level
from nested_learning.nn.cms import ContinuumMemory, MLPDelta
from nested_learning.nn.init import initialise

DIM, HIDDEN, BATCH = 6, 4, 3


def make_cms(*names: str) -> ContinuumMemory:
    cms = ContinuumMemory(DIM, [Level(name, 0, "") for name in names], HIDDEN)
    initialise(cms, num_layers=1, seed=0)
    return cms.double()


def make_x() -> torch.Tensor:
    return torch.randn(BATCH, 5, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def make_delta(level) -> MLPDelta:
    generator = torch.Generator().manual_seed(1)
    shapes = (level.up.weight.shape, level.down.weight.shape)
    return MLPDelta(*(torch.randn(BATCH, *shape, generator=generator, dtype=torch.float64) for shape in shapes))


def test_one_level_is_the_residual_swiglu_block_of_a_transformer():
    cms, x = make_cms("mlp"), make_x()
    level = cms.levels["mlp"]
    gate, value = (F.rms_norm(x, (DIM,)) @ level.up.weight.T).chunk(2, dim=-1)
    y, _ = cms(x, cms.init_state(BATCH))
    assert torch.allclose(y, x + (F.silu(gate) * value) @ level.down.weight.T)


def test_levels_form_a_chain_in_their_order():
    cms, x = make_cms("fast", "slow"), make_x()
    y, _ = cms(x, cms.init_state(BATCH))
    middle = x + cms.levels["fast"](x, None)
    assert torch.allclose(y, middle + cms.levels["slow"](middle, None))


def test_a_delta_of_zero_reads_as_no_delta():
    cms, x = make_cms("fast", "slow"), make_x()
    zero = MLPDelta(*(torch.zeros_like(part) for part in make_delta(cms.levels["slow"])))
    assert torch.allclose(cms(x, (None, zero))[0], cms(x, (None, None))[0], atol=1e-15)


def test_a_rows_delta_equals_that_row_read_with_changed_weights():
    cms, x = make_cms("mlp"), make_x()
    level = cms.levels["mlp"]
    delta = make_delta(level)
    y, state = cms(x, (delta,))
    assert state == (delta,)
    for row in range(BATCH):
        changed = make_cms("mlp")
        changed.levels["mlp"].up.weight.data += delta.up[row]
        changed.levels["mlp"].down.weight.data += delta.down[row]
        alone, _ = changed(x[row : row + 1], changed.init_state(1))
        assert torch.allclose(y[row : row + 1], alone)
    assert not torch.allclose(y, cms(x, (None,))[0])
