"""evals=recall, mad and formal: a model that knows the targets is always right; no target is ever memorized."""

from copy import copy
from dataclasses import replace

import pytest
import torch
from lookup import Finder, Lookup
from tiny import memorize_policy, tiny

from nested_learning.data.tasks.formal import FormalConfig
from nested_learning.data.tasks.mad import MadConfig
from nested_learning.data.tasks.mad_tasks import TASKS
from nested_learning.data.tasks.recall import RecallConfig
from nested_learning.errors import ConfigError
from nested_learning.evals.protocol import EvalContext
from nested_learning.evals.runner import evaluate
from nested_learning.evals.synthetic.config import FormalPackConfig, MadPackConfig, RecallPackConfig
from nested_learning.evals.synthetic.formal import Bin, Formal
from nested_learning.evals.synthetic.mad import Mad
from nested_learning.evals.synthetic.recall import Recall
from nested_learning.inference.config import MemoryConfig
from nested_learning.inference.session import Session

ONLINE = MemoryConfig(name="online")
MEMORIZE = memorize_policy(chunk=8)
RECALL = RecallConfig(num_pairs=3, gap=6, num_keys=9, num_values=8)
PACKS = {
    "recall": (RECALL, Recall([6, 9], [2, 4], [0, 1], num_rows=2, batch_size=5)),
    "formal": (FormalConfig(language="s3", max_length=9), Formal(None, num_rows=4, batch_size=3)),
    **{task: (MadConfig(task=task, length=20, num_copied=4), Mad([1, 2], num_rows=3, batch_size=4)) for task in TASKS},
}


def ctx(tmp_path, data, model=None, policy=ONLINE):
    model = model or tiny(tmp_path, model="titans_lmm", data="copy").model.build(data.vocab_size, seed=1)
    return EvalContext(model=model, tokenizer=None, data=data, seed=0, policy=policy, run=tmp_path)


def report_on(pack, context):
    (context.run / "evals").mkdir(exist_ok=True)
    return evaluate(
        pack, context, context.run / "evals/draft.jsonl", {"policy": context.policy.name, "size": pack.batch_size}
    )


@pytest.mark.parametrize("name", PACKS)
@pytest.mark.parametrize("knows", [True, False])
def test_a_model_that_knows_the_targets_is_always_right_and_one_that_avoids_them_never(tmp_path, name, knows):
    data, pack = PACKS[name]
    context = ctx(tmp_path, data)
    rows = [case.row for case in pack.examples(context)]
    model = Lookup(data.vocab_size, rows, knows=knows, all_at_once=name == "compression")
    metrics = report_on(pack, replace(context, model=model)).metrics
    accuracies = {key: metric for key, metric in metrics.items() if not key.startswith("stale")}
    assert {metric.value for metric in accuracies.values()} == {float(knows)}
    assert all(metric.chance is not None for key, metric in metrics.items() if key.startswith("accuracy"))


def test_each_version_of_recall_has_its_own_metric(tmp_path):
    data, pack = PACKS["recall"]
    report = report_on(pack, ctx(tmp_path, data, Finder(data.vocab_size)))
    cells = ["6/2", "6/2+1", "6/4", "6/4+1", "9/2", "9/2+1", "9/4", "9/4+1"]
    assert [name.partition("/")[2] for name in report.metrics if name.startswith("accuracy")] == cells
    assert [name.partition("/")[2] for name in report.metrics if name.startswith("stale")] == cells[1::2]
    assert all(metric.n == 2 and metric.chance == 1 / 8 for metric in report.metrics.values())
    assert {len(row["correct"]) for row in report.records} == {2, 4}
    assert [point[0] for point in report.curves["accuracy"]["4+1 pairs"]] == [6, 9]


def test_answering_with_the_first_value_of_a_key_counts_as_stale(tmp_path):
    pack = Recall(None, None, [2], num_rows=8, batch_size=8)
    last = report_on(pack, ctx(tmp_path, RECALL, Finder(RECALL.vocab_size))).metrics
    first = report_on(pack, ctx(tmp_path / "..", RECALL, Finder(RECALL.vocab_size, first=True))).metrics
    assert {name: metric.value for name, metric in last.items()} == {
        "accuracy/6/3+2": 1.0,
        "changed/6/3+2": 1.0,
        "stale/6/3+2": 0.0,
    }
    assert first["stale/6/3+2"].value == 1.0 and first["changed/6/3+2"].value == 0.0
    assert first["accuracy/6/3+2"].value == pytest.approx(1 / 3)


def test_recall_memorizes_the_context_and_then_evaluates_the_queries_alone(tmp_path, monkeypatch):
    context = ctx(tmp_path, RECALL, policy=replace(MEMORIZE, levels=["titan"]))
    pack = Recall([6], [3], [0], num_rows=4, batch_size=4)
    seen, memorize, read = [], Session.memorize, Session.read
    monkeypatch.setattr(
        Session, "memorize", lambda self, text: (seen.append(("memorized", text)), memorize(self, text))[1]
    )
    monkeypatch.setattr(Session, "read", lambda self, text: (seen.append(("read", text)), read(self, text))[1])
    report = report_on(pack, context)
    cases, begin = pack.examples(context), 2 * 3 + 6
    rows, others = (
        torch.stack([torch.from_numpy(row.tokens) for row in each])
        for each in ([case.row for case in cases], [case.other for case in cases])
    )
    expected = [
        ("memorized", others[:, :begin]),
        ("read", rows[:, begin:]),
        ("memorized", rows[:, :begin]),
        ("read", rows[:, begin:]),
    ]
    assert [name for name, _ in seen] == [name for name, _ in expected]
    assert all(torch.equal(actual, text) for (_, actual), (_, text) in zip(seen, expected, strict=True))
    assert not torch.equal(rows, others)
    assert {"accuracy/6/3", "accuracy_wrong_context/6/3", "memory/titan/norm"} <= set(report.metrics)
    session = Session(context.model, batch=4, policy=context.policy)
    memorize(session, rows[:, :begin])
    answers = read(session, rows[:, begin:])[:, ::2].argmax(-1)
    wanted = torch.stack([torch.from_numpy(case.row.targets[begin::2]) for case in cases])
    assert [row["correct"] for row in report.records] == (answers == wanted).int().tolist()


@pytest.mark.parametrize("name", ["compression", "formal"])
def test_memorizing_along_a_row_uses_its_text_and_never_a_target(tmp_path, name, monkeypatch):
    data, pack = PACKS[name]
    seen = []
    read_and_memorize = Session.read_and_memorize

    def watched(self, tokens, targets):
        seen.append((tokens, targets))
        return read_and_memorize(self, tokens, targets)

    monkeypatch.setattr(Session, "read_and_memorize", watched)
    report = report_on(pack, ctx(tmp_path, data, policy=MEMORIZE))
    assert "memory/mlp/norm" in report.metrics and seen
    for tokens, targets in seen:
        assert torch.equal(targets[:, :-1], tokens[:, 1:]) and (targets[:, -1] == -100).all()


@pytest.mark.parametrize("policy", [ONLINE, MEMORIZE], ids=["online", "memorize"])
@pytest.mark.parametrize(
    ("data", "pack"),
    [
        (RECALL, Recall([6], [2], [0, 1], num_rows=2, batch_size=1)),
        (PACKS["noisy_recall"][0], Mad([1], num_rows=3, batch_size=1)),
    ],
    ids=["recall", "mad"],
)
def test_the_batch_size_changes_no_answer(tmp_path, data, pack, policy):
    context = ctx(tmp_path, data, policy=policy)
    results = []
    for size in (1, 4):
        resized = copy(pack)
        resized.batch_size = size
        results.append([row["correct"] for row in report_on(resized, context).records])
    assert results[0] == results[1]


def test_the_chance_level_of_a_language_is_the_best_constant_answer(tmp_path):
    context = ctx(tmp_path, FormalConfig(language="parity", min_length=1, max_length=8))
    pack = Formal([[1, 1], [4, 8]], num_rows=6, batch_size=6)
    metrics = report_on(pack, context).metrics
    # the one word of a letter is 0
    assert metrics["accuracy/1-1"].chance == metrics["sequence_accuracy/1-1"].chance == 1
    words = [case.row.targets[case.row.targets >= 0].tolist() for case in pack.examples(context)[6:]]
    odd, letters = sum(map(sum, words)), sum(map(len, words))
    assert metrics["accuracy/4-8"].chance == max(odd, letters - odd) / letters < 1
    assert metrics["sequence_accuracy/4-8"].chance < 1


def test_by_default_words_longer_than_those_of_training_are_evaluated(tmp_path):
    data, pack = PACKS["formal"]
    report = report_on(pack, ctx(tmp_path, data))
    assert set(report.metrics) == {
        f"{name}/{each}" for name in ("accuracy", "sequence_accuracy") for each in (Bin(2, 9), Bin(10, 18))
    }
    lengths = {row["bin"]: len(row["correct"]) for row in report.records}
    assert 2 <= lengths["2-9"] <= 9 and 10 <= lengths["10-18"] <= 18


def test_compression_has_one_length(tmp_path):
    data, pack = PACKS["compression"]
    assert set(report_on(pack, ctx(tmp_path, data)).metrics) == {"accuracy/20", "sequence_accuracy/20"}


@pytest.mark.parametrize(
    ("pack", "data", "problem"),
    [
        (PACKS["recall"][1], PACKS["formal"][0], "evals=recall: the checkpoint was trained on data=formal"),
        (PACKS["memorization"][1], RECALL, "evals=mad: the checkpoint was trained on data=recall"),
        (PACKS["formal"][1], RECALL, "evals=formal: the checkpoint was trained on data=recall"),
        (Recall([1], [10], [0], 1, 1), RECALL, r"evals\.recall\.pairs=\[10\]: .* data\.num_keys=9; use at most 9"),
    ],
)
def test_a_model_of_another_task_is_refused_in_one_line(tmp_path, pack, data, problem):
    with pytest.raises(ConfigError, match=problem):
        pack.examples(ctx(tmp_path, data))


def test_rows_with_tokens_outside_the_vocabulary_are_refused(tmp_path):
    context = ctx(tmp_path, RECALL)
    with pytest.raises(ConfigError, match=r"has 35 tokens, and the model was trained on a task of 34"):
        PACKS["recall"][1].examples(replace(context, data=replace(RECALL, num_values=9)))


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: RecallPackConfig(name="recall", gaps=[], pairs=None, changed=[0], num_rows=1, batch_size=1), "gaps"),
        (lambda: RecallPackConfig(name="recall", gaps=None, pairs=[0], changed=[0], num_rows=1, batch_size=1), "pairs"),
        (lambda: RecallPackConfig(name="recall", gaps=None, pairs=None, changed=[], num_rows=1, batch_size=1), "chang"),
        (lambda: MadPackConfig(name="mad", length_factors=[0], num_rows=1, batch_size=1), "length_factors"),
        (lambda: FormalPackConfig(name="formal", bins=[[9, 2]], num_rows=1, batch_size=1), "bins"),
        (lambda: FormalPackConfig(name="formal", bins=None, num_rows=0, batch_size=1), "num_rows"),
    ],
)
def test_invalid_sizes_are_refused_by_name(make, problem):
    with pytest.raises(ConfigError, match=rf"evals\.\w+\.{problem}"):
        make()
