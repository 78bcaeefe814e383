"""Sampling compared with plain loops: which tokens can be drawn, and how often."""

import pytest
import torch

from nested_learning.ops.sampling import keep_top_k, keep_top_p, sample_token

LOGITS = torch.tensor([[2.0, 0.5, 1.0, -1.0, 1.5], [0.0, 0.0, 3.0, 0.0, 1.0]])


def draw(logits, num_draws=20000, temperature=1.0, top_k=0, top_p=1.0, seed=0):
    """Return how often each token is drawn for one row of logits."""
    generator = torch.Generator().manual_seed(seed)
    tokens = sample_token(
        logits.expand(num_draws, -1), temperature=temperature, top_k=top_k, top_p=top_p, generator=generator
    )
    return torch.bincount(tokens, minlength=logits.shape[-1]) / num_draws


def brute_force_nucleus(row, p):
    """Return the ids of the nucleus by adding up probabilities one by one."""
    probabilities = row.double().softmax(-1).tolist()
    total, kept = 0.0, set()
    for token in sorted(range(len(probabilities)), key=lambda token: -probabilities[token]):
        if total >= p:
            break
        kept.add(token)
        total += probabilities[token]
    return kept


def finite_ids(row):
    return {int(token) for token in row.isfinite().nonzero()}


def test_temperature_zero_takes_the_most_likely_token():
    tokens = sample_token(LOGITS, temperature=0.0, top_k=0, top_p=1.0, generator=torch.Generator())
    assert tokens.tolist() == [0, 2]


def test_greedy_decoding_does_not_use_the_generator():
    generator = torch.Generator().manual_seed(1)
    before = generator.get_state()
    sample_token(LOGITS, temperature=0.0, top_k=0, top_p=1.0, generator=generator)
    assert torch.equal(generator.get_state(), before)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_tokens_are_drawn_as_often_as_the_softmax_says(temperature):
    expected = (LOGITS[0] / temperature).softmax(-1)
    assert torch.allclose(draw(LOGITS[:1], temperature=temperature), expected, atol=0.015)


@pytest.mark.parametrize("k", [1, 2, 3, 5, 9])
def test_top_k_keeps_exactly_the_k_highest_scores(k):
    scores = torch.randn(7, 5, generator=torch.Generator().manual_seed(2))
    for row, kept in zip(scores, keep_top_k(scores, k), strict=True):
        highest = sorted(range(5), key=lambda token: -float(row[token]))[:k]
        assert finite_ids(kept) == set(highest)
        assert torch.equal(kept[kept.isfinite()], row[kept.isfinite()])


def test_top_k_keeps_k_tokens_among_equals():
    assert finite_ids(keep_top_k(torch.zeros(1, 6), 2)[0]) == {0, 1}


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.75, 0.9, 0.999])
def test_top_p_keeps_the_nucleus_of_a_plain_loop(p):
    scores = 2 * torch.randn(50, 9, generator=torch.Generator().manual_seed(3))
    for row, kept in zip(scores, keep_top_p(scores, p), strict=True):
        expected = brute_force_nucleus(row, p) if p else {int(row.argmax())}
        assert finite_ids(kept) == expected
        assert torch.equal(kept[kept.isfinite()], row[kept.isfinite()])


def test_draws_from_a_truncated_distribution_follow_its_renormalised_probabilities():
    kept = torch.tensor([0, 2, 4])
    expected = torch.zeros(5).index_put((kept,), LOGITS[0, kept].softmax(-1))
    assert torch.allclose(draw(LOGITS[:1], top_k=3), expected, atol=0.015)
    assert torch.allclose(draw(LOGITS[:1], top_p=0.8), expected, atol=0.015)


def test_equal_seeds_draw_equal_tokens_and_the_global_generator_is_not_used():
    before = torch.get_rng_state()
    first, second, other = (draw(LOGITS[:1], num_draws=100, seed=seed) for seed in (5, 5, 6))
    assert torch.equal(first, second) and not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)
