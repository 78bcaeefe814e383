"""Validation is one sum over fixed targets, equal to counting by hand with any batch size; it changes nothing."""

import math
import random

import numpy as np
import pytest
import torch
from tiny import WORDS, tiny

from nested_learning.data.batch import IGNORE
from nested_learning.data.loader import validation_batches
from nested_learning.train.validation import validate
from nested_learning.world.world import World

ALONE = World(0, 1, 0, torch.device("cpu"), "gloo")
BPE = {"data__tokenizer": "bpe", "data__vocab_size": 300, "data__seq_len": 24}


def parts(folder, **given):
    """Build model, objective and source in float64, where only what is added up in lower precision can differ."""
    texts = folder / "texts"
    texts.mkdir(exist_ok=True)
    # short documents, so that targets that are no text lie among the others
    pick = random.Random(0)
    for number in range(40):
        words = " ".join(pick.choice(WORDS) + str(pick.randrange(20)) for _ in range(3 + number % 12))
        (texts / f"{number}.txt").write_text(words)
    config = tiny(folder, backend="eager", **({"data__path": texts, "data__seq_len": 32} | given))
    source = config.data.build(config.seed)
    model = config.model.build(source.vocab_size, config.seed).double()
    return model, config.objective.build(), source


def validation_metrics(model, objective, source, batch_size=4, num_rows=8):
    return validate(model, objective, source, num_rows=num_rows, batch_size=batch_size, world=ALONE)


@pytest.mark.parametrize("tokenizer", [{}, BPE], ids=["byte", "bpe"])
def test_random_guessing_has_a_loss_of_log2_of_the_vocabulary_per_token_over_the_bytes(tmp_path, tokenizer):
    model, objective, source = parts(tmp_path, **tokenizer)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    sizes = [
        source.tokenizer.token_bytes[target]
        for batch in validation_batches(source, 8, 1)
        for target in batch.targets[0].tolist()
        if target != IGNORE
    ]
    texts = sum(size > 0 for size in sizes)
    assert sum(sizes) > texts or not tokenizer, "tokens of several bytes, or the denominator could be either"
    found = validation_metrics(model, objective, source)
    assert found["val/bpb"] == pytest.approx(math.log2(source.vocab_size) * texts / sum(sizes), rel=1e-9)
    assert found["val/loss"] == pytest.approx(math.log(source.vocab_size), rel=1e-9)


def brute_force(model, source, num_rows):
    """Count by hand: one row at a time, one target at a time, in Python's floats."""
    nats = targets = correct = text_nats = num_bytes = 0.0
    for batch in validation_batches(source, num_rows, 1):
        with torch.no_grad():
            logits, _ = model(batch.tokens, model.init_state(1))
        for scores, target in zip(logits[0].tolist(), batch.targets[0].tolist(), strict=True):
            if target == IGNORE:
                continue
            top = max(scores)
            cost = math.log(math.fsum(math.exp(score - top) for score in scores)) + top - scores[target]
            nats, targets, correct = nats + cost, targets + 1, correct + (scores[target] == top)
            size = int(source.tokenizer.token_bytes[target])
            if size:
                text_nats, num_bytes = text_nats + cost, num_bytes + size
    return {
        "val/loss": nats / targets,
        "val/accuracy": correct / targets,
        "val/bpb": text_nats / num_bytes / math.log(2),
    }


@pytest.mark.parametrize("model", ["transformer", "titans_lmm", "hope"])
def test_validation_is_counting_by_hand_whatever_the_batch_size(tmp_path, model):
    model, objective, source = parts(tmp_path, model=model, **BPE)
    by_hand = brute_force(model, source, 8)
    for batch_size in (1, 3, 8):
        found = validation_metrics(model, objective, source, batch_size)
        assert {name: found[name] for name in by_hand} == pytest.approx(by_hand, rel=1e-12), batch_size


def test_validation_draws_no_random_number_and_leaves_the_model_as_it_was(tmp_path):
    model, objective, source = parts(tmp_path, model="hope", model__dropout=0.5)
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    # Python's own generator is drawn from by the checks of types in tests
    states = torch.get_rng_state(), np.random.get_state()[1].copy()
    first, again = validation_metrics(model, objective, source), validation_metrics(model, objective, source)
    assert first == again and model.training
    assert torch.equal(torch.get_rng_state(), states[0]) and np.array_equal(np.random.get_state()[1], states[1])
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_two_tokenizers_of_one_text_divide_by_the_same_bytes(tmp_path):
    total = []
    for tokenizer in ({}, BPE):
        _, _, source = parts(tmp_path, **tokenizer)
        batches = validation_batches(source, source.num_rows("validation"), 1)
        targets = torch.cat([batch.targets.flatten() for batch in batches])
        total.append(int(source.tokenizer.token_bytes[targets[targets != IGNORE].numpy()].sum()))
    assert total[0] == total[1] > 0
