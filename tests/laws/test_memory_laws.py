"""What every memory and every model must satisfy; `models.py` lists them."""

from dataclasses import replace
from functools import cache

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
    make_leveled_model,
    make_memory,
    make_model,
    new_memory,
)
from safetensors.torch import load_file, save_file

from nested_learning import tree

# models in which reading writes nothing
WITHOUT_MEMORY = ("transformer", "sliding_window", "hope_attention", "cms")
EVERYTHING = [*(("memory", name) for name in [*MEMORIES, "cms"]), *(("model", name) for name in MODELS)]
BATCH = 3


@cache
def make(kind, name):
    """Build a memory or a model, once: no law changes its parameters."""
    return make_memory(name) if kind == "memory" else make_model(name)


def make_input(kind, t, seed=0, rows=BATCH):
    generator = torch.Generator().manual_seed(seed)
    if kind == "memory":
        return torch.randn(rows, t, DIM, dtype=torch.float64, generator=generator)
    return torch.randint(VOCAB, (rows, t), generator=generator)


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


# token by token; and pieces that end before, at and after the end of a chunk
@laws
@pytest.mark.parametrize("cuts", [[1] * (2 * CHUNK + 1), [1, CHUNK - 1, CHUNK, CHUNK + 1, 1], [1, 3 * CHUNK + 1]])
def test_any_cut_gives_the_same_outputs_and_state(kind, name, cuts):
    module, x = make(kind, name), make_input(kind, sum(cuts))
    whole, end = module(x, module.init_state(BATCH))
    state, pieces = module.init_state(BATCH), []
    for piece in x.split(cuts, dim=1):
        y, state = module(piece, state)
        pieces.append(y)
    assert torch.allclose(torch.cat(pieces, dim=1), whole, atol=1e-10)
    assert distance(state, end) < 1e-10


def read_twice(module, x):
    """Read `x` in two calls, so that the second starts from a state that differs from row to row."""
    outputs, state = [], module.init_state(len(x))
    for piece in x.chunk(2, dim=1):
        y, state = module(piece, state)
        outputs.append(y)
    return torch.cat(outputs, dim=1), state


def assert_equal_alone(kind, name, x, rows):
    """Assert that each of `rows` of `x` gives the same outputs and state without the other rows."""
    module = make(kind, name)
    together, end = read_twice(module, x)
    for row in rows:
        alone, end_alone = read_twice(module, x[row : row + 1])
        assert torch.allclose(together[row : row + 1], alone, atol=1e-12)
        assert distance(tree.select_rows(end, torch.tensor([row])), end_alone) < 1e-12


@laws
def test_a_row_is_the_same_alone_and_in_a_batch_at_any_length(kind, name):
    for t in LENGTHS:
        assert_equal_alone(kind, name, make_input(kind, t), rows=[1])


# more rows than fast paths take at once
@laws
def test_each_of_nine_rows_is_the_same_alone_and_in_the_batch(kind, name):
    assert_equal_alone(kind, name, make_input(kind, CHUNK + 1, rows=9), rows=range(9))


@laws
def test_the_gradient_of_one_row_does_not_depend_on_another(kind, name):
    module, x = make(kind, name), make_input(kind, 20)
    y, _ = module(x, module.init_state(BATCH))
    ours = torch.autograd.grad(y[0].sin().sum(), list(module.parameters()), allow_unused=True)
    x[1:] = changed(kind, x, 3)[1:]
    y, _ = module(x, module.init_state(BATCH))
    after = torch.autograd.grad(y[0].sin().sum(), list(module.parameters()), allow_unused=True)
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(ours, after, strict=True) if a is not None)


@laws
def test_a_later_token_changes_no_earlier_output_to_the_bit(kind, name):
    module, x = make(kind, name), make_input(kind, 3 * CHUNK + 3)
    y, _ = module(x, module.init_state(BATCH))
    for at in (1, CHUNK - 1, CHUNK, 2 * CHUNK + 4):
        z, _ = module(changed(kind, x, at), module.init_state(BATCH))
        assert torch.equal(y[:, :at], z[:, :at])
        assert not torch.equal(y[:, at], z[:, at])


@laws
def test_without_writing_a_memory_stays_as_it_is(kind, name):
    module, x = make(kind, name), make_input(kind, 20)
    _, state = module(x[:, :13], module.init_state(BATCH))
    _, unwritten = module(x[:, 13:], state, write=False)
    before, after = tree.named_leaves(state), tree.named_leaves(unwritten)
    # windows and caches are context, not memory: they move on, or a frozen reader would lose its position
    memories = [path for path in before if ".memory" in path]
    assert all(torch.equal(before[path], after[path]) for path in memories)
    assert bool(memories) == (name not in WITHOUT_MEMORY)


def source_of(path):
    """Return where a new context takes the leaf `path` from: a path of the old state, or None for an empty context."""
    # the weights that a chunk is read from, and those that a segment of `mac` recalls from, start as the memory is
    path = path.replace(".reference", ".weight").replace(".start_weights", ".long_term.memory.weight")
    return path if ".memory" in path else None


@laws
def test_a_new_context_keeps_the_memory_and_empties_windows_caches_and_positions(kind, name):
    module, x = make(kind, name), make_input(kind, 2 * CHUNK + 3)
    empty = module.init_state(BATCH)
    _, read = module(x, empty)
    new, old, none = (tree.named_leaves(state) for state in (module.reset_context(read), read, empty))
    assert new.keys() == none.keys()
    for path, leaf in new.items():
        assert torch.equal(leaf, none[path] if source_of(path) is None else old[source_of(path)]), path
    assert tree.named_integers(module.reset_context(read)) == tree.named_integers(empty)
    assert any(not torch.equal(leaf, none[path]) for path, leaf in new.items()) == (name not in WITHOUT_MEMORY)


def test_a_new_context_keeps_the_levels_that_reading_writes():
    model = make_leveled_model("local")
    _, read = model(make_input("model", 7), model.init_state(BATCH))
    new, empty = model.reset_context(read), model.init_state(BATCH)
    for block, old, none in zip(new, read, empty, strict=True):
        assert distance(block.cms, old.cms) == 0 < distance(block.cms, none.cms)
        assert tree.named_integers(block.cms) == tree.named_integers(old.cms)
        assert tree.named_integers(block.mixer) == tree.named_integers(none.mixer)


@laws
def test_any_cut_gives_the_same_outputs_without_writing(kind, name):
    module, x = make(kind, name), make_input(kind, 20)
    whole, _ = module(x, module.init_state(BATCH), write=False)
    first, state = module(x[:, :7], module.init_state(BATCH), write=False)
    second, _ = module(x[:, 7:], state, write=False)
    assert torch.allclose(torch.cat([first, second], dim=1), whole, atol=1e-12)


@laws
def test_the_outer_gradient_reaches_every_parameter(kind, name):
    module, x = make(kind, name), make_input(kind, 40)
    y, _ = module(x, module.init_state(BATCH))
    names, parameters = zip(*module.named_parameters(), strict=True)
    gradients = torch.autograd.grad(y.sin().sum(), parameters, allow_unused=True)
    pairs = zip(names, gradients, strict=True)
    assert [name for name, gradient in pairs if gradient is None or not gradient.abs().max() > 0] == []


# of models the input is whole numbers, and the levels of `cms` are written by the loss, not by reading
@pytest.mark.parametrize("kind,name", [("memory", name) for name in MEMORIES])
def test_the_gradient_flows_through_the_writes(kind, name):
    module, x = make(kind, name), make_input(kind, 2 * CHUNK + 3).requires_grad_()
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


# the cache of full attention grows
@pytest.mark.parametrize("kind,name", [pair for pair in EVERYTHING if pair[1] not in ("hope_attention", "transformer")])
def test_a_state_has_one_shape_whatever_was_read(kind, name):
    module = make(kind, name)
    shapes = []
    for t in (5, CHUNK, 2 * CHUNK + 3):
        _, state = module(make_input(kind, t), module.init_state(BATCH))
        shapes.append({path: leaf.shape for path, leaf in tree.named_leaves(state).items()})
    assert shapes[0] == shapes[1] == shapes[2]


@laws
def test_a_state_survives_a_file(kind, name, tmp_path):
    module, x = make(kind, name), make_input(kind, 20)
    _, state = module(x[:, :9], module.init_state(BATCH))
    save_file({path: leaf.clone() for path, leaf in tree.named_leaves(state).items()}, tmp_path / "state.safetensors")
    reopened = tree.rebuild(state, load_file(tmp_path / "state.safetensors"))
    # torch's LSTM rounds differently where a gradient is required
    assert torch.allclose(module(x[:, 9:], state)[0], module(x[:, 9:], reopened)[0], rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("width", [32, 256])
def test_the_first_loss_is_the_logarithm_of_the_vocabulary(name, width):
    model = replace(make_config(*MODELS[name]), dim=width, expansion=1.0).build(257, seed=0)
    tokens = torch.randint(257, (2, 65), generator=torch.Generator().manual_seed(0))
    logits, _ = model(tokens[:, :-1], model.init_state(2))
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
    assert loss.item() == pytest.approx(torch.tensor(257.0).log().item(), rel=0.05)


@pytest.mark.parametrize("name", ["titans_lmm", "self_modifying"])
def test_untrained_gates_keep_half_of_a_memory_over_64_tokens(name):
    module = new_memory(name)
    kinds = module.kinds if name == "titans_lmm" else module.design.kinds
    bias = module.gates.bias.unflatten(0, (-1, HEADS)).T if name == "titans_lmm" else module.gate_bias
    retention = bias.unflatten(1, (-1, len(kinds.learned)))[..., kinds.learned.index("retention")].sigmoid()
    assert (retention**64 > 0.5).all()
