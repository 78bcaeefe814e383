"""`objective=online`: updates of levels by the task's loss while a row is read, against a loop over rows and tokens."""

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from nested_learning import tree
from nested_learning.data.batch import IGNORE, Batch
from nested_learning.errors import ConfigError
from nested_learning.model.hope_attention import HopeAttentionConfig
from nested_learning.model.levels import ContextConfig, LevelConfig
from nested_learning.nn.level_state import LevelState
from nested_learning.objective.loss import cross_entropy
from nested_learning.objective.next_token import NextToken
from nested_learning.objective.online import Online, refuse_single_derivatives
from nested_learning.ops.rules import RULES
from nested_learning.ops.rules.functions import FUNCTIONS

VOCAB, TOKENS, BATCH = 11, 14, 2
RULE_OPTIONS = {
    "gd": {},
    "momentum": {"momentum": 0.9},
    "dgd": {"input_decay": 1.0},
    "adamw": {"betas": [0.9, 0.95], "eps": 1e-8},
    "muon": {"momentum": 0.9},
}


def context(rule="gd", lr=0.05, **given) -> ContextConfig:
    return ContextConfig(rule=rule, lr=lr, **(RULE_OPTIONS[rule] | given))


def level(name, period, of_context=None) -> LevelConfig:
    return LevelConfig(name=name, period=period, context=of_context)


def make_model(*levels: LevelConfig, cms: str = "sequential", num_layers: int = 2):
    config = HopeAttentionConfig(
        name="hope_attention", dim=8, num_layers=num_layers, num_heads=2, expansion=1.0, tie_embedding=True,
        window=None, levels=list(levels), cms=cms,
    )  # fmt: skip
    model = config.build(VOCAB, seed=0).double()
    for name, parameter in model.named_parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name)))
    return model


def make_batch(rows: int = BATCH, num_tokens: int = TOKENS) -> Batch:
    draw = torch.Generator().manual_seed(0)
    tokens = torch.randint(VOCAB, (rows, num_tokens + 1), generator=draw)
    targets = tokens[:, 1:].clone()
    targets[:, 2::5] = IGNORE
    return Batch(tokens[:, :-1], targets, torch.zeros_like(targets))


def read(objective, model, batch, **changes):
    batch = batch._replace(**changes)
    return objective(model, batch, model.init_state(len(batch.tokens)))


def gradients(loss, model) -> dict[str, torch.Tensor]:
    found = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    return {
        name: torch.zeros_like(parameter) if gradient is None else gradient
        for (name, parameter), gradient in zip(model.named_parameters(), found, strict=True)
    }


def naive_online(model: nn.Module, batch: Batch, levels: dict[str, tuple[int, ContextConfig]]) -> torch.Tensor:
    """The loss of each position, row by row and token by token: the weights of each row are a dictionary.

    `levels` are the taught ones: name -> (period, context). All are gd, whose update is spelled out.
    """
    everything = []
    for row in range(len(batch.tokens)):
        # the model without any clock: its weights are all that matters
        base = dict(model.named_parameters())
        own = {path: name for name in levels for path in base if f".levels.{name}." in path and "norm" not in path}
        weights, pending, losses = dict(base), dict.fromkeys(levels, 0.0), []
        state = tree.map_nodes(LevelState, lambda _: None, model.init_state(1))
        # the node that a period's gradient is taken of
        current = {path: base[path] * 1.0 for path in own}
        for t in range(batch.tokens.shape[1]):
            logits, state = functional_call(model, weights | current, (batch.tokens[row : row + 1, t : t + 1], state))
            losses.append(cross_entropy(logits, batch.targets[row : row + 1, t : t + 1]))
            for name in levels:
                pending[name] = pending[name] + losses[-1].sum()
            updated = dict(current)
            for name, (period, of_context) in levels.items():
                if (t + 1) % period:
                    continue
                paths = [path for path in own if own[path] == name]
                found = torch.autograd.grad(pending[name], [current[path] for path in paths], create_graph=True)
                for path, gradient in zip(paths, found, strict=True):
                    change = current[path] - base[path] - of_context.lr * gradient
                    if of_context.gradient == "first_order":
                        change = change.detach()
                    updated[path] = base[path] + change
                pending[name] = 0.0
            current = updated
        everything.append(torch.cat(losses, 1))
    return torch.cat(everything)


CASES = {
    "one level": ("sequential", {"fast": (4, {})}),
    "every token": ("sequential", {"fast": (1, {"lr": 0.02})}),
    "two levels in a chain": ("sequential", {"fast": (2, {}), "mid": (5, {})}),
    "two levels side by side": ("independent", {"fast": (3, {}), "mid": (6, {})}),
}


@pytest.mark.parametrize("gradient", ["first_order", "through"])
@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_are_those_of_the_loop_over_rows_and_tokens(case, gradient):
    variant, levels = CASES[case]
    clocks = {name: (period, context(gradient=gradient, **given)) for name, (period, given) in levels.items()}
    model = make_model(*(level(name, *clock) for name, clock in clocks.items()), level("slow", 0), cms=variant)
    batch = make_batch()
    with sdpa_kernel(SDPBackend.MATH):
        naive = naive_online(model, batch, clocks)
    step = read(Online(), model, batch)
    assert torch.allclose(step.nats, naive, atol=1e-12)
    ours, plain = gradients(step.loss, model), gradients(naive.sum(), model)
    for name in ours:
        assert torch.allclose(ours[name], plain[name], atol=1e-10), name


def test_updates_change_later_tokens_and_the_two_gradients_differ():
    batch, losses, found = make_batch(), {}, {}
    for gradient in ("first_order", "through"):
        model = make_model(level("fast", 4, context(gradient=gradient)))
        step = read(Online(), model, batch)
        losses[gradient], found[gradient] = step.nats, gradients(step.loss, model)
    still = read(NextToken(), model, batch).nats
    assert torch.allclose(losses["first_order"], losses["through"], atol=1e-12)
    assert torch.allclose(still[:, :4], losses["through"][:, :4])
    assert (still[:, 4:] - losses["through"][:, 4:]).abs().max() > 1e-3
    assert any((found["first_order"][name] - found["through"][name]).abs().max() > 1e-4 for name in found["through"])


@pytest.mark.parametrize("rule", RULE_OPTIONS)
@pytest.mark.parametrize("gradient", ["first_order", "through"])
def test_every_rule_writes_once_a_period_by_the_sum_of_its_gradients(rule, gradient):
    model = make_model(level("fast", 5, context(rule, gradient=gradient, weight_decay=0.1)), num_layers=1)
    batch = make_batch()
    (state,) = tree.nodes(LevelState, read(Online(), model, batch).state)
    assert (state.writes, state.position) == (2, TOKENS)
    # the first write, by hand: one row, the weights of the level as ordinary parameters
    first, mlp = Batch(*(tensor[:1, :5] for tensor in batch)), model.blocks[0].cms.levels["fast"]
    found = torch.autograd.grad(read(NextToken(), model, first).loss, [mlp.up.weight, mlp.down.weight])
    (after,) = tree.nodes(LevelState, read(Online(), model, first).state)
    inputs = []
    hooks = [part.register_forward_pre_hook(lambda _, given: inputs.append(given[0])) for part in (mlp.up, mlp.down)]
    read(NextToken(), model, first)
    for hook in hooks:
        hook.remove()
    for index, gradient in enumerate(found):
        zero = torch.zeros_like(gradient[None])
        x = {"x": inputs[index]} if RULES[rule].reads_inputs else {}
        wanted, _ = FUNCTIONS[rule].update(
            zero, gradient[None], FUNCTIONS[rule].init(zero), lr=0.05, weight_decay=0.1, **RULE_OPTIONS[rule], **x
        )
        assert torch.allclose(after.fast[0].delta[index], wanted, atol=1e-12)
    norm = sum(gradient.square().sum() for gradient in found).sqrt()
    assert torch.allclose(after.surprise, norm, atol=1e-12)


@pytest.mark.parametrize("gradient", ["first_order", "through"])
@pytest.mark.parametrize("segment", [1, 2, 8])
def test_segments_change_nothing(gradient, segment):
    model = make_model(level("fast", 4, context(gradient=gradient)), level("slow", 8, context(gradient=gradient)))
    whole, cut = read(Online(), model, make_batch()), read(Online(segment), model, make_batch())
    assert torch.allclose(whole.nats, cut.nats, atol=1e-12)
    left, right = gradients(whole.loss, model), gradients(cut.loss, model)
    assert all(torch.allclose(left[name], right[name], atol=1e-10) for name in left)
    for ours, theirs in zip(tree.leaves(whole.state), tree.leaves(cut.state), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-10)


@pytest.mark.parametrize("at", [1, 4, 6, 13])
def test_a_partial_period_survives_any_cut_of_the_input(at):
    model, batch = make_model(level("fast", 4, context(gradient="through"))), make_batch()
    whole = read(Online(), model, batch)
    first = read(Online(), model, Batch(*(tensor[:, :at] for tensor in batch)))
    second = Online()(model, Batch(*(tensor[:, at:] for tensor in batch)), first.state)
    assert torch.allclose(torch.cat([first.nats, second.nats], 1), whole.nats, atol=1e-12)
    for ours, theirs in zip(tree.leaves(whole.state), tree.leaves(second.state), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-10)


@pytest.mark.parametrize("cms", ["sequential", "nested"])
def test_later_tokens_do_not_change_earlier_ones_at_all(cms):
    model, batch = make_model(level("fast", 2, context()), level("mid", 4, context()), cms=cms), make_batch()
    for at in (1, 3, 4, 9):
        tokens, targets = batch.tokens.clone(), batch.targets.clone()
        tokens[:, at], targets[:, at - 1] = (tokens[:, at] + 1) % VOCAB, (tokens[:, at] + 1) % VOCAB
        before, after = (
            read(Online(), model, batch).nats,
            read(Online(), model, batch, tokens=tokens, targets=targets).nats,
        )
        assert torch.equal(before[:, : at - 1], after[:, : at - 1])
        assert not torch.equal(before[:, at:], after[:, at:])


def test_a_row_updates_only_its_own_weights():
    model, batch = make_model(level("fast", 4, context(lr=0.2))), make_batch(3)
    together = read(Online(), model, batch)
    for row in range(3):
        alone = read(Online(), model, Batch(*(tensor[row : row + 1] for tensor in batch)))
        assert torch.allclose(alone.nats, together.nats[row : row + 1], atol=1e-12)
        picked = tree.select_rows(together.state, torch.tensor([row]))
        for ours, theirs in zip(tree.leaves(alone.state), tree.leaves(picked), strict=True):
            assert torch.allclose(ours, theirs, atol=1e-12)


def test_under_no_grad_the_updates_are_the_same_and_no_graph_is_kept():
    model, batch = make_model(level("fast", 4, context(gradient="through"))), make_batch()
    with torch.no_grad():
        quiet = read(Online(), model, batch)
    assert torch.equal(quiet.nats, read(Online(), model, batch).nats)
    assert not quiet.loss.requires_grad
    assert not any(leaf.requires_grad for leaf in tree.leaves(quiet.state))
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_row_without_targets_writes_nothing_and_stays_finite():
    levels = [level("fast", 4, context(rule, gradient="through")) for rule in ("adamw",)]
    model, batch = make_model(*levels), make_batch()
    batch.targets[0] = IGNORE
    step = read(Online(), model, batch)
    for state in tree.nodes(LevelState, step.state):
        assert (state.delta().up[0] == 0).all() and (state.delta().up[1] != 0).any()
    assert all(gradient.isfinite().all() for gradient in gradients(step.loss, model).values())


def test_a_local_level_is_written_by_the_forward_pass_whatever_the_objective():
    model, batch = make_model(level("fast", 4, context(signal="local", gradient="through"))), make_batch()
    online, parallel = read(Online(), model, batch), read(NextToken(), model, batch)
    assert torch.allclose(online.nats, parallel.nats, atol=1e-12)
    assert [state.writes for state in tree.nodes(LevelState, parallel.state)] == [TOKENS // 4] * 2


class OnceOnly(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.exp()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return gradient * x.exp()


def test_an_operation_without_second_derivative_is_refused_where_one_is_needed():
    x = torch.ones(2, requires_grad=True)
    for once in (
        lambda x: OnceOnly.apply(x).square(),
        lambda x: nn.functional.scaled_dot_product_attention(*[x.view(1, 1, 1, 2)] * 3),
    ):
        (gradient,) = torch.autograd.grad(once(x * x).sum(), x, create_graph=True)
        with pytest.raises(ConfigError, match="gradient: first_order"):
            refuse_single_derivatives((gradient,))
    (gradient,) = torch.autograd.grad(x.exp().square().sum(), x, create_graph=True)
    refuse_single_derivatives((gradient,))


def test_the_outer_backward_pass_leaves_no_gradient_on_the_weights_of_rows():
    model, batch = make_model(level("fast", 4, context())), make_batch()
    step = read(Online(), model, batch)
    step.loss.backward()
    (state, _) = tree.nodes(LevelState, step.state)
    assert all(leaf.grad is None for leaf in (node.variable for node in leaves_of(state.fast[0].delta.up)))
    assert all(parameter.grad is not None for parameter in model.parameters())


def leaves_of(tensor):
    """The nodes at which the graph above `tensor` ends."""
    waiting, found = [tensor.grad_fn], []
    while waiting:
        node = waiting.pop()
        found += [node] if node.name().endswith("AccumulateGrad") else []
        waiting += [following for following, _ in node.next_functions if following is not None]
    assert found
    return found
