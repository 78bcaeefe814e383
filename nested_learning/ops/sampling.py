"""Draw the next token from logits: greedy, temperature, top-k, top-p."""

import torch

from nested_learning.shapes import Float, Int, Tensor


def sample_token(
    logits: Float[Tensor, "b v"], *, temperature: float, top_k: int, top_p: float, generator: torch.Generator
) -> Int[Tensor, " b"]:
    """Draw one token per row, in float32; `generator` must be on the device of `logits`.

    `temperature` 0 takes the most likely token (of equal ones the lowest id) and uses no random number; `top_k` 0 and
    `top_p` 1 keep all tokens. Top-k comes first; the nucleus is that of the tokens it keeps, renormalised.
    """
    if temperature == 0:
        return logits.argmax(dim=-1)
    scores = logits.float() / temperature
    if top_k:
        scores = keep_top_k(scores, top_k)
    if top_p < 1:
        scores = keep_top_p(scores, top_p)
    return torch.multinomial(scores.softmax(dim=-1), 1, generator=generator).squeeze(-1)


def keep_top_k(scores: Float[Tensor, "b v"], k: int) -> Float[Tensor, "b v"]:
    """Set all but the `k` highest scores of a row to -inf; `k` may exceed v.

    Of equal scores the lowest ids are kept, so that exactly `k` remain.
    """
    order = scores.argsort(dim=-1, descending=True, stable=True)
    return scores.scatter(-1, order[:, k:], float("-inf"))


def keep_top_p(scores: Float[Tensor, "b v"], p: float) -> Float[Tensor, "b v"]:
    """Set the scores outside the nucleus to -inf: the fewest most likely tokens whose probabilities sum to `p` or more.

    At least one token is kept. Source: arXiv 1904.09751, section 3.1.
    """
    sorted_scores, order = scores.sort(dim=-1, descending=True, stable=True)
    probabilities = sorted_scores.softmax(dim=-1)
    # a token is outside if the more likely ones already reach p; the first is kept also where p is 0
    outside = probabilities.cumsum(dim=-1) - probabilities >= p
    outside[:, 0] = False
    return scores.scatter(-1, order, sorted_scores.masked_fill(outside, float("-inf")))
