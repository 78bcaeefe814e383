"""On random letters no loss can be below the logarithm of their number; a lower loss means that targets leak."""

import math
import random

import pytest
import torch
from laws.models import make_config

from nested_learning.data.batch import IGNORE, Batch
from nested_learning.data.curriculum import constant_stages
from nested_learning.data.feed import Feed
from nested_learning.data.source import Row
from nested_learning.data.text.packed import PackedText, to_stream
from nested_learning.data.tokenizers.tokenizer import ByteTokenizer
from nested_learning.objective.next_token import NextToken
from nested_learning.objective.training import Training

LETTERS = "abcdefgh"
STEPS = 50


class Unshifted(PackedText):
    """The usual mistake: the target of a token is itself."""

    def row(self, split: str, epoch: int, index: int) -> Row:
        row = super().row(split, epoch, index)
        return row._replace(targets=row.tokens)


def make_source(kind: type[PackedText], packing: str) -> PackedText:
    """Enough text that no row is read twice."""
    rng = random.Random(0)
    documents = ["".join(rng.choices(LETTERS, k=rng.randrange(20, 400))) for _ in range(150)]
    tokenizer = ByteTokenizer()
    streams = {split: to_stream(documents, tokenizer) for split in ("train", "validation")}
    return kind(streams, tokenizer, 32, packing=packing)


def letters_only(batch: Batch) -> Batch:
    """Drop the targets that can be predicted: where a document ends."""
    return batch._replace(targets=torch.where(batch.targets < ByteTokenizer.end, batch.targets, IGNORE))


def last_loss(model_name: str, source: PackedText, *, resets: bool) -> float:
    """Train for STEPS steps, each on rows never seen before; return the mean loss of the last ten."""
    training = Training(make_config(f"model={model_name}").build(257, seed=0), NextToken(), resets=resets)
    optimizer = torch.optim.AdamW(training.parameters(), lr=0.02)
    feed, losses = Feed(source, 0, constant_stages(8, 32)), []
    assert source.num_rows("train") >= 8 * STEPS
    for step in range(STEPS):
        done = training(letters_only(feed.read(step)[0]))
        loss = done.loss / done.num_targets
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return sum(losses[-10:]) / 10


@pytest.mark.parametrize(
    ("model", "packing", "resets"),
    [("transformer", "concat", False), ("transformer", "best_fit", True), ("titans_lmm", "concat", True)],
)
def test_random_letters_cost_the_logarithm_of_their_number(model: str, packing: str, resets: bool) -> None:
    loss = last_loss(model, make_source(PackedText, packing), resets=resets)
    assert math.log(len(LETTERS)) - 0.02 < loss < math.log(len(LETTERS)) + 0.3


def test_targets_that_are_not_shifted_are_detected() -> None:
    assert last_loss("transformer", make_source(Unshifted, "concat"), resets=False) < math.log(len(LETTERS)) - 1
