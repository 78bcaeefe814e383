"""Regularizers of the loss by hand; with chunks, equal values and gradients with few logits in memory."""

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nested_learning.data.batch import IGNORE, Batch
from nested_learning.errors import ConfigError
from nested_learning.model.levels import ContextConfig, LevelConfig
from nested_learning.model.transformer import TransformerConfig
from nested_learning.objective.config import NextTokenConfig, OnlineConfig
from nested_learning.objective.loss import TokenLoss, cross_entropy
from nested_learning.objective.next_token import NextToken
from nested_learning.objective.online import Online

VOCAB, ROWS, TOKENS, DIM = 50, 3, 8, 16
PLAIN = [LevelConfig(name="mlp", period=0)]
TAUGHT = [LevelConfig(name="fast", period=3, context=ContextConfig(rule="gd", lr=0.05)), *PLAIN]


def make_model(levels=PLAIN, dtype=torch.float64, **keys):
    values = {"dim": DIM, "num_layers": 1, "num_heads": 2, "window": None, "tie_embedding": True, "expansion": 2.0}
    model = TransformerConfig(name="transformer", levels=levels, **values | keys).build(VOCAB, 0).to(dtype)
    with torch.no_grad():
        # an untrained head says nearly the same of all tokens
        model.head.weight *= 20
    return model


def make_batch() -> Batch:
    draw = torch.Generator().manual_seed(0)
    tokens, targets = (torch.randint(VOCAB, (ROWS, TOKENS), generator=draw) for _ in range(2))
    targets[:, ::3] = IGNORE
    return Batch(tokens, targets, torch.zeros_like(tokens))


def make_logits() -> tuple[torch.Tensor, torch.Tensor]:
    logits = 3 * torch.randn(2, 3, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return logits, torch.tensor([[1, IGNORE, 6], [0, 2, IGNORE]])


def test_label_smoothing_spreads_a_fraction_of_the_target_over_all_tokens_by_hand():
    logits, targets = make_logits()
    scores = TokenLoss(label_smoothing=0.3).score(logits, targets)
    wanted = 0.7 * F.one_hot(targets.clamp(min=0), 7) + 0.3 / 7
    by_hand = -(wanted * logits.log_softmax(-1)).sum(-1).masked_fill(targets == IGNORE, 0)
    torch.testing.assert_close(scores.loss, by_hand)
    assert torch.equal(scores.nats, cross_entropy(logits, targets))


def test_z_loss_is_the_squared_log_of_the_denominator_of_valid_targets_by_hand():
    logits, targets = make_logits()
    scores = TokenLoss(z_loss=0.01).score(logits, targets)
    squares = logits.exp().sum(-1).log().square()
    squares[targets == IGNORE] = 0
    torch.testing.assert_close(scores.loss, scores.nats + 0.01 * squares)


def test_without_regularizers_the_loss_is_the_cross_entropy_to_the_bit():
    logits, targets = make_logits()
    scores = TokenLoss().score(logits, targets)
    assert scores.loss is scores.nats


@pytest.mark.parametrize("keys", [{"z_loss": 1e-2}, {"label_smoothing": 0.1}])
@pytest.mark.parametrize("objective", [NextToken, Online])
def test_regularizers_change_the_gradient_but_no_metric_and_no_update_of_a_level(keys, objective):
    model, batch = make_model(TAUGHT if objective is Online else PLAIN), make_batch()
    plain, changed = (
        objective(loss=loss)(model, batch, model.init_state(ROWS)) for loss in (TokenLoss(), TokenLoss(**keys))
    )
    assert torch.equal(plain.nats, changed.nats) and plain.metrics == changed.metrics
    assert changed.loss > plain.loss
    ours, theirs = (torch.autograd.grad(step.loss, list(model.parameters())) for step in (plain, changed))
    assert not any(map(torch.equal, ours, theirs))


@pytest.mark.parametrize("keys", [{}, {"z_loss": 1e-2, "label_smoothing": 0.1}], ids=["plain", "with additions"])
@pytest.mark.parametrize("chunk", [1, 5, ROWS * TOKENS, 100])
@pytest.mark.parametrize("case", ["next_token", "online", "softcap"])
def test_in_chunks_values_and_gradients_are_the_same(case, chunk, keys):
    model = make_model(TAUGHT if case == "online" else PLAIN, softcap=4.0 if case == "softcap" else None)
    batch, objective = make_batch(), Online if case == "online" else NextToken
    whole, cut = (
        objective(loss=TokenLoss(chunk=each, **keys))(model, batch, model.init_state(ROWS)) for each in (None, chunk)
    )
    torch.testing.assert_close(cut.loss, whole.loss, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(cut.nats, whole.nats, atol=1e-12, rtol=1e-12)
    assert cut.metrics == whole.metrics
    ours, theirs = (torch.autograd.grad(step.loss, list(model.parameters())) for step in (cut, whole))
    for mine, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, expected, atol=1e-12, rtol=1e-12)


class Largest(TorchDispatchMode):
    """Records the largest output of any operation whose last dimension is the vocabulary."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        output = func(*args, **kwargs or {})
        for leaf in tree_leaves(output):
            # the head's weight is turned round as well
            if isinstance(leaf, torch.Tensor) and leaf.shape[-1:] == (VOCAB,) and leaf.shape != (DIM, VOCAB):
                self.tokens = max(self.tokens, leaf.numel() // VOCAB)
        return output


@pytest.mark.parametrize(("chunk", "most"), [(None, ROWS * TOKENS), (4, 4)])
def test_at_most_a_chunk_of_logits_is_in_memory_and_none_is_kept(chunk, most):
    model, batch, kept = make_model(), make_batch(), []

    def keep(tensor):
        kept.append(tensor.numel() // VOCAB if tensor.shape[-1:] == (VOCAB,) else 0)
        return tensor

    with Largest() as largest:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            step = NextToken(TokenLoss(chunk=chunk))(model, batch, model.init_state(ROWS))
        step.loss.backward()
    assert largest.tokens == most
    assert max(kept) == (ROWS * TOKENS if chunk is None else 0)


def test_no_logit_exceeds_the_softcap_and_small_ones_stay():
    capped, free = make_model(softcap=3.0), make_model()
    tokens = make_batch().tokens
    ours, theirs = (model(tokens, model.init_state(ROWS))[0] for model in (capped, free))
    assert theirs.abs().max() > 3 > ours.abs().max()
    torch.testing.assert_close(ours, 3 * torch.tanh(theirs / 3))


def test_the_softcap_is_computed_in_float32():
    model = make_model(dtype=torch.bfloat16, softcap=3.0)
    assert model.logits(torch.zeros(2, DIM, dtype=torch.bfloat16)).dtype == torch.float32


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"z_loss": -1.0}, "objective.z_loss=-1.0"),
        ({"z_loss": float("nan")}, "objective.z_loss=nan"),
        ({"label_smoothing": 1.0}, "objective.label_smoothing=1.0"),
        ({"chunk": 0}, "objective.chunk=0"),
    ],
)
def test_a_loss_that_makes_no_sense_is_refused_by_its_key(keys, message):
    for make in (NextTokenConfig, lambda **keys: OnlineConfig(segment=None, **keys)):
        with pytest.raises(ConfigError, match=message):
            make(name="loss", **keys)


@pytest.mark.parametrize("softcap", [0.0, -1.0, float("inf")])
def test_a_softcap_must_be_a_number_above_zero(softcap):
    with pytest.raises(ConfigError, match=r"model\.softcap="):
        make_model(softcap=softcap)


def test_the_configured_loss_is_the_computed_one():
    made = NextTokenConfig(name="next_token", z_loss=1e-4, label_smoothing=0.1, chunk=64).build()
    assert made.loss == TokenLoss(1e-4, 0.1, 64)
    made = OnlineConfig(name="online", segment=8, z_loss=1e-4, label_smoothing=0.1, chunk=64).build()
    assert (made.segment, made.loss) == (8, TokenLoss(1e-4, 0.1, 64))
