"""Models with a memory learn tasks that need one, within seconds; without the memory the same model can only guess."""

from pathlib import Path

import pytest
import torch
from laws.models import make_config
from tiny import memorize_policy

from nested_learning.data.loader import train_batch, validation_batches
from nested_learning.data.source import DataConfig
from nested_learning.data.tasks.facts import FactsConfig
from nested_learning.data.tasks.parity import ParityConfig
from nested_learning.data.tasks.recall import RecallConfig
from nested_learning.evals.protocol import EvalContext
from nested_learning.evals.retrieval.needle import NeedlePack
from nested_learning.evals.runner import evaluate
from nested_learning.inference.config import MemoryConfig
from nested_learning.nn.language_model import LanguageModel
from nested_learning.objective.next_token import NextToken

BATCH, VAL_ROWS, PEAK_LR = 32, 256, 0.01


def train(data: DataConfig, num_steps: int, *line: str) -> LanguageModel:
    """Train one layer of width 32 for `num_steps`, with a warmup and a cosine decay of the learning rate."""
    source = data.build(0)
    model = make_config("model.dim=32", "model.num_layers=1", *line).build(source.vocab_size, seed=0)
    optimizer = torch.optim.AdamW(model.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LR, total_steps=num_steps, pct_start=0.1)
    for step in range(num_steps):
        done = NextToken()(model, train_batch(source, 0, step, 0, 1, BATCH), model.init_state(BATCH))
        optimizer.zero_grad()
        (done.loss / done.num_targets).backward()
        optimizer.step()
        schedule.step()
    return model.eval()


@torch.no_grad()
def accuracy(model: LanguageModel, data: DataConfig, *, write: bool = True) -> float:
    """Return the fraction of right targets in validation rows; `write=False` freezes the memory."""
    (batch,) = validation_batches(data.build(0), VAL_ROWS, VAL_ROWS)
    guesses = model(batch.tokens, model.init_state(VAL_ROWS), write=write)[0].argmax(-1)
    return float((guesses == batch.targets)[batch.targets >= 0].double().mean())


# the answer lies seven tokens and more before the question; a window of four tokens cannot see it
RECALL = RecallConfig(gap=6, num_pairs=2, num_keys=4, num_values=4, num_noise=2)


def test_a_memory_recalls_values_beyond_the_window_and_a_frozen_one_does_not():
    model = train(RECALL, 100, "model=titans_lmm")
    assert accuracy(model, RECALL) > 0.95
    assert accuracy(model, RECALL, write=False) < 0.4


def test_attention_cannot_recall_values_beyond_its_window():
    assert accuracy(train(RECALL, 100, "model=transformer", "model.window=4"), RECALL) < 0.35


def test_hope_learns_parity_and_attention_does_not():
    parity = ParityConfig(max_length=8)
    assert accuracy(train(parity, 100, "model=hope"), parity) > 0.95
    assert accuracy(train(parity, 100, "model=transformer"), parity) < 0.8


@pytest.fixture(scope="module")
def told_once() -> LanguageModel:
    """A model trained to repeat a fact that stands earlier in its context."""
    return train(FactsConfig(num_facts=1, num_sentences=3), 200, "model=titans_lmm")


def needle(model: LanguageModel, policy: MemoryConfig, run: Path) -> dict[str, float]:
    """Ask 64 facts, each among 8 answers, after their context is removed; return the metrics."""
    ctx = EvalContext(model=model, tokenizer=None, data=FactsConfig(), seed=0, policy=policy, run=run)
    report = evaluate(NeedlePack(64, 1, 8, 64), ctx, run / "draft.jsonl", {"policy": repr(policy)}, lambda _: None)
    return {name: metric.value for name, metric in report.metrics.items()}


def test_a_memorized_fact_is_recalled_after_its_context_is_removed(told_once, tmp_path):
    memorized = needle(told_once, memorize_policy(levels=["titan"]), tmp_path)
    assert memorized["accuracy"] > 0.9 and memorized["contradiction"] > 0.7
    # controls: another text memorized, the memory reset
    assert max(memorized["accuracy_wrong_context"], memorized["accuracy_reset"]) < 0.3


def test_a_fact_that_is_not_memorized_is_known_in_context_only(told_once, tmp_path):
    read = needle(told_once, MemoryConfig(name="online"), tmp_path)
    assert read["accuracy_in_context"] > 0.9 and read["accuracy"] < 0.3
