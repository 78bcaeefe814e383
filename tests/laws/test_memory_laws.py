"""What every memory and every model must satisfy; `models.py` lists them."""

import pytest
import torch
from laws.models import (
    CHUNK,
    DIM,
    HEADS,
    LENGTHS,
    MEMORIES,
    MODELS,
    VOCAB,
    make_config,
    make_memory,
    make_model,
    new_memory,
)

from nested_learning import tree

# models that write nothing while they read
WITHOUT_MEMORY = ("transformer", "sliding_window", "hope_attention", "cms")
EVERYTHING = [*(("memory", name) for name in [*MEMORIES, "cms"]), *(("model", name) for name in MODELS)]
BATCH = 3


def make(kind, name):
    return make_memory(name) if kind == "memory" else make_model(name)


def make_input(kind, t, seed=0):
    generator = torch.Generator().manual_seed(seed)
    if kind == "memory":
        return torch.randn(BATCH, t, DIM, dtype=torch.float64, generator=generator)
    return torch.randint(VOCAB, (BATCH, t), generator=generator)


def changed(kind, x, at):
    """`x` with other content at token `at`."""
    other = make_input(kind, x.shape[1], seed=1)
    x = x.clone()
    x[:, at] = other[:, at] if kind == "memory" else (x[:, at] + 1) % VOCAB
    return x


def distance(left, right):
    pairs = zip(tree.leaves(left), tree.leaves(right), strict=True)
    return max((torch.dist(x, y, p=torch.inf).item() for x, y in pairs if x.numel()), default=0.0)


laws = pytest.mark.parametrize("kind,name", EVERYTHING)


@laws
@pytest.mark.parametrize("cuts", [[1, 62], [62, 1], [CHUNK - 1, CHUNK, CHUNK + 1, 63 - 3 * CHUNK], [1] * 63])
def test_any_cut_gives_the_same_outputs_and_state(kind, name, cuts):
    module, x = make(kind, name), make_input(kind, 63)
    whole, end = module(x, module.init_state(BATCH))
    state, pieces = module.init_state(BATCH), []
    for piece in x.split(cuts, dim=1):
        y, state = module(piece, state)
        pieces.append(y)
    assert torch.allclose(torch.cat(pieces, dim=1), whole, atol=1e-10)
    assert distance(state, end) < 1e-10


@laws
@pytest.mark.parametrize("t", LENGTHS)
def test_a_row_is_the_same_alone_and_in_a_batch(kind, name, t):
    module, x = make(kind, name), make_input(kind, t)
    together, end = module(x, module.init_state(BATCH))
    alone, end_alone = module(x[1:2], module.init_state(1))
    assert torch.allclose(together[1:2], alone, atol=1e-12)
    assert distance(tree.select_rows(end, torch.tensor([1])), end_alone) < 1e-12


@laws
def test_another_row_cannot_be_told_from_this_rows_gradient(kind, name):
    module, x = make(kind, name), make_input(kind, 20)
    y, _ = module(x, module.init_state(BATCH))
    ours = torch.autograd.grad(y[0].sin().sum(), list(module.parameters()), allow_unused=True)
    x[1:] = changed(kind, x, 3)[1:]
    y, _ = module(x, module.init_state(BATCH))
    after = torch.autograd.grad(y[0].sin().sum(), list(module.parameters()), allow_unused=True)
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(ours, after, strict=True) if a is not None)


@laws
@pytest.mark.parametrize("at", [1, CHUNK - 1, CHUNK, 40])
def test_what_comes_later_changes_nothing_before_to_exactly_zero(kind, name, at):
    module, x = make(kind, name), make_input(kind, 63)
    y, _ = module(x, module.init_state(BATCH))
    z, _ = module(changed(kind, x, at), module.init_state(BATCH))
    assert torch.equal(y[:, :at], z[:, :at])
    assert not torch.equal(y[:, at], z[:, at])


@laws
def test_not_writing_leaves_what_was_memorised_as_it_is(kind, name):
    module, x = make(kind, name), make_input(kind, 20)
    _, state = module(x[:, :13], module.init_state(BATCH))
    _, unwritten = module(x[:, 13:], state, write=False)
    before, after = tree.named_leaves(state), tree.named_leaves(unwritten)
    # windows and caches are context, not memory: they move on, else a frozen reader would lose its place
    memories = [path for path in before if ".memory" in path]
    assert all(torch.equal(before[path], after[path]) for path in memories)
    assert bool(memories) == (name not in WITHOUT_MEMORY)


@laws
def test_reading_without_writing_is_split_invariant_too(kind, name):
    module, x = make(kind, name), make_input(kind, 20)
    whole, _ = module(x, module.init_state(BATCH), write=False)
    first, state = module(x[:, :7], module.init_state(BATCH), write=False)
    second, _ = module(x[:, 7:], state, write=False)
    assert torch.allclose(torch.cat([first, second], dim=1), whole, atol=1e-12)


@laws
def test_the_outer_gradient_reaches_every_parameter(kind, name):
    module, x = make(kind, name), make_input(kind, 40)
    y, _ = module(x, module.init_state(BATCH))
    y.sin().sum().backward()
    untouched = [path for path, p in module.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert untouched == []


@laws
def test_the_gradient_flows_through_the_writes(kind, name):
    if name in ("cms",):
        pytest.skip("the task's error writes the levels, not a forward pass")
    module, x = make(kind, name), make_input(kind, 2 * CHUNK + 3)
    if kind == "model":
        pytest.skip("models take tokens; their memories are checked by themselves")
    x.requires_grad_()
    y, _ = module(x, module.init_state(BATCH))
    (gradient,) = torch.autograd.grad(y[:, -1].sin().sum(), x)
    reach = 2 * CHUNK - 2 if name != "sliding_window" else 2 * CHUNK
    assert gradient[:, reach].abs().max() > 1e-9


@laws
def test_training_and_evaluation_give_the_same_outputs(kind, name):
    module, x = make(kind, name), make_input(kind, 20)
    trained, _ = module.train()(x, module.init_state(BATCH))
    evaluated, _ = module.eval()(x, module.init_state(BATCH))
    assert torch.equal(trained, evaluated)


@laws
def test_a_state_is_a_value_that_reading_does_not_change(kind, name):
    module, x = make(kind, name), make_input(kind, 20)
    _, state = module(x[:, :9], module.init_state(BATCH))
    kept = tree.map(torch.clone, state)
    first, _ = module(x[:, 9:], state)
    second, _ = module(x[:, 9:], state)
    assert distance(state, kept) == 0.0
    assert torch.equal(first, second)


@laws
def test_a_state_has_one_shape_whatever_was_read(kind, name):
    if name in ("hope_attention", "transformer"):
        pytest.skip("the cache of full attention grows")
    module = make(kind, name)
    shapes = []
    for t in (5, CHUNK, 31):
        _, state = module(make_input(kind, t), module.init_state(BATCH))
        shapes.append({path: leaf.shape for path, leaf in tree.named_leaves(state).items()})
    assert shapes[0] == shapes[1] == shapes[2]


@laws
def test_a_state_survives_a_file(kind, name, tmp_path):
    from safetensors.torch import load_file, save_file

    module, x = make(kind, name), make_input(kind, 20)
    _, state = module(x[:, :9], module.init_state(BATCH))
    save_file({path: leaf.clone() for path, leaf in tree.named_leaves(state).items()}, tmp_path / "state.safetensors")
    reopened = tree.rebuild(state, load_file(tmp_path / "state.safetensors"))
    # torch's LSTM rounds in another way where a gradient is asked for
    assert torch.allclose(module(x[:, 9:], state)[0], module(x[:, 9:], reopened)[0], rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("width", [32, 256])
def test_the_first_loss_is_the_logarithm_of_the_vocabulary(name, width):
    from dataclasses import replace

    model = replace(make_config(*MODELS[name]), dim=width, expansion=1.0).build(257, seed=0)
    tokens = torch.randint(257, (2, 65), generator=torch.Generator().manual_seed(0))
    logits, _ = model(tokens[:, :-1], model.init_state(2))
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
    assert loss.item() == pytest.approx(torch.tensor(257.0).log().item(), rel=0.05)


@pytest.mark.parametrize("name", ["titans_lmm", "self_modifying"])
def test_at_the_start_a_memory_keeps_half_of_what_it_knows_over_64_tokens(name):
    module = new_memory(name)
    kinds = module.kinds if name == "titans_lmm" else module.design.kinds
    bias = module.gates.bias.unflatten(0, (-1, HEADS)).T if name == "titans_lmm" else module.gate_bias
    retention = bias.unflatten(1, (-1, len(kinds.learned)))[..., kinds.learned.index("retention")].sigmoid()
    assert (retention**64 > 0.5).all()
