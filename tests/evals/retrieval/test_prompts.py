"""Prompts of one's own: a model that reads the context is right, and a file that cannot be asked is refused."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from rule_oracle import Oracle, answering
from tiny import tiny

from nested_learning.data.tasks.needles import NeedlesConfig
from nested_learning.data.tokenizers.tokenizer import ByteTokenizer, Tokenizer
from nested_learning.errors import ConfigError, DataError
from nested_learning.evals.protocol import EvalContext, Report
from nested_learning.evals.retrieval.config import PromptsConfig
from nested_learning.evals.retrieval.prompts import PromptsPack
from nested_learning.evals.runner import evaluate
from nested_learning.inference.config import MemorizeConfig, MemoryConfig

QUESTION = "\nWhere is Mary? "
PLACES = ("kitchen", "garden")


def write(folder: Path, *prompts: Any) -> str:
    (folder / "mine.jsonl").write_text("".join(json.dumps(each) + "\n" for each in prompts))
    return str(folder / "mine.jsonl")


def prompt(place: str, **more: Any) -> dict[str, Any]:
    return {"context": f"Mary went to the {place}.", "question": QUESTION.rstrip(), "answers": [place]} | more


def pack_of(path: str | None, **given: Any) -> PromptsPack:
    values: dict[str, Any] = {"limit": None, "num_generated": 12, "batch_size": 2} | given
    return PromptsConfig(name="prompts", path=path, **values).build(NeedlesConfig())


def context(model: Any, folder: Path, policy: MemoryConfig, tokenizer: Tokenizer | None) -> EvalContext:
    return EvalContext(model=model, tokenizer=tokenizer, data=NeedlesConfig(), seed=0, policy=policy, run=folder)


def report_on(pack: PromptsPack, model: Any, folder: Path, policy: MemoryConfig | None = None) -> Report:
    ctx = context(model, folder, policy or MemoryConfig(name="online"), ByteTokenizer())
    return evaluate(pack, ctx, folder / "draft.jsonl", {})


@pytest.mark.parametrize(("sign", "right"), [(1, 1.0), (-1, 0.0)], ids=["oracle", "anti-oracle"])
def test_a_model_that_reads_the_context_is_always_right_and_one_that_avoids_it_never(
    tmp_path: Path, sign: int, right: float
) -> None:
    def find(text: str) -> str | None:
        said = re.findall(r"Mary went to the (\w+)\.", text)
        return said[-1] if said else None

    prompts = [prompt(place, candidates=list(PLACES), task="where") for place in (*PLACES, *PLACES)]
    path = write(tmp_path, *prompts, prompt("garden", answers=["garden", "Garden"]))
    report = report_on(pack_of(path), Oracle(answering("Where is Mary?", find), sign), tmp_path)
    metrics = report.metrics
    assert metrics["where/accuracy"].value == metrics["where/exact"].value == metrics["exact"].value == right
    assert (metrics["where/accuracy"].n, metrics["where/accuracy"].chance) == (4, 0.5)
    # without candidates there is nothing to choose
    assert "accuracy" not in metrics and metrics["logprob"].n == 1
    assert report.records[0]["chosen"] in PLACES


def test_a_model_that_memorizes_is_compared_with_one_that_memorized_another_context(tmp_path: Path) -> None:
    model = tiny(tmp_path, model="titans_lmm", data="parity").model.build(257, seed=1).eval()
    memorize = MemorizeConfig(
        name="memorize", steps=1, lr=1.0, chunk=8, surprise_threshold=None, surprise_metric="l2",
        levels=["titan"], layers=None, reset="per_example",
    )  # fmt: skip
    path = write(tmp_path, *(prompt(place, candidates=list(PLACES)) for place in PLACES))
    metrics = report_on(pack_of(path, num_generated=2), model, tmp_path, memorize).metrics
    assert {"accuracy", "accuracy_wrong_context", "exact", "logprob"} <= set(metrics)
    assert "accuracy_no_context" not in metrics
    (tmp_path / "draft.jsonl").unlink()
    assert "accuracy_no_context" in report_on(pack_of(path, num_generated=2), model, tmp_path).metrics


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"answers": []}, "line 1: its answers must be a list of texts"),
        ({"answers": "home"}, "line 1: its answers must be a list of texts"),
        ({"context": 3}, "line 1: its context must be text"),
        ({"question": ""}, "prompt 1: a question, answer or candidate is empty"),
        ({"answers": [" "]}, "prompt 1: a question, answer or candidate is empty"),
        ({"candidates": ["kitchen", ""]}, "prompt 1: a question, answer or candidate is empty"),
        ({"candidates": "kitchen"}, "prompt 1: its task must be text, its candidates a list"),
        ({"candidates": [1, 2]}, "prompt 1: its task must be text, its candidates a list"),
        ({"task": 3}, "prompt 1: its task must be text"),
        ({"candidates": ["kitchen"]}, "prompt 1: its candidates must be two or more"),
        ({"candidates": ["garden", "hall"]}, "hold the first answer, 'kitchen', once"),
        ({"candidates": ["kitchen", "kitchen"]}, "hold the first answer, 'kitchen', once"),
        ({"candidate": ["kitchen", "garden"]}, "prompt 1: no key candidate is read"),
    ],
)
def test_a_prompt_that_cannot_be_asked_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        pack_of(write(tmp_path, prompt("kitchen") | changes))


def test_options_that_cannot_work_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"evals\.prompts\.path is missing"):
        pack_of(None)
    with pytest.raises(ConfigError, match=r"evals\.prompts\.limit=0"):
        pack_of(None, limit=0)
    pack = pack_of(write(tmp_path, prompt("kitchen"), prompt("garden")), limit=1)
    model = tiny(tmp_path, model="titans_lmm", data="parity").model.build(257, seed=1)
    assert len(pack.examples(context(model, tmp_path, MemoryConfig(name="online"), ByteTokenizer()))) == 1
    with pytest.raises(ConfigError, match="needs a model that reads text"):
        pack.examples(context(model, tmp_path, MemoryConfig(name="online"), None))
