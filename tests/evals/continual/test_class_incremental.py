"""Classes that come task after task: figures worked out by hand, a model that knows, and one that reads."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from oracle import Oracle
from tiny import memorize_policy, tiny

from nested_learning.data.tasks.classes import ClassesConfig
from nested_learning.data.tokenizers.tokenizer import ByteTokenizer
from nested_learning.errors import CheckpointError, ConfigError, DataError
from nested_learning.evals.continual.class_incremental import Answers, ReadSequence, TrainedSequence, questions_of
from nested_learning.evals.continual.transfer import curves, grid, transfer
from nested_learning.evals.protocol import EvalContext
from nested_learning.evals.runner import evaluate
from nested_learning.hub.open_run import open_trained
from nested_learning.inference.config import MemoryConfig
from nested_learning.inference.session import Session
from nested_learning.phase.train import run

DOMAINS = {"home": ("lights_on", "lights_off"), "bank": ("balance", "pay"), "travel": ("book", "visa")}
STUDY = memorize_policy(steps=2, lr=0.3)


def matrix(accuracies, num_texts=2):
    """Return rows of a matrix: `accuracies[i][j]` right answers of `num_texts` to task j + 1 after i tasks."""
    return [
        {"after": i, "task": j + 1, "example": 10 * j + k, "correct": int(k < right), "num_choices": 2 * max(i, j + 1)}
        for i, row in enumerate(accuracies)
        for j, right in enumerate(row)
        for k in range(num_texts)
        if right is not None
    ]


def values(figures):
    return {name: figure.metric().value for name, figure in figures.items()}


def test_the_figures_of_a_matrix_are_those_of_their_definitions():
    # right answers of 2: rows are tasks learned, columns tasks
    rows = matrix([[None, 1, 1], [2, 1, None], [1, 2, 0], [0, 1, 2]])
    found = values(transfer(rows))
    assert found["accuracy"] == pytest.approx((0 + 0.5 + 1) / 3)
    assert found["learning_accuracy"] == pytest.approx(1)
    assert found["bwt"] == pytest.approx(((0 - 1) + (0.5 - 1)) / 2)
    assert found["forgetting"] == pytest.approx(((1 - 0) + (1 - 0.5)) / 2)
    assert found["fwt"] == pytest.approx(((0.5 - 0.5) + (0 - 0.5)) / 2)
    assert found["seen/2"] == pytest.approx((0.5 + 1) / 2)
    assert found["accuracy/2/1"] == 0.5 and "accuracy/1/2" not in found
    joint = values(transfer(rows, matrix([[], [], [], [2, 2, 1]])))
    assert joint["intransigence"] == pytest.approx(((1 - 1) + (1 - 1) + (0.5 - 1)) / 3)


def test_forgetting_is_measured_from_the_best_that_ever_was():
    three = matrix([[None, 0, 0], [1, 0, None], [2, 2, 0], [0, 2, 2]])
    found = values(transfer(three))
    assert found["forgetting"] == pytest.approx(((1 - 0) + (1 - 1)) / 2)
    assert found["bwt"] == pytest.approx(((0 - 0.5) + (1 - 1)) / 2)


def test_every_task_counts_the_same_however_many_texts_it_has():
    rows = matrix([[], [2], [2, 0]]) + [
        {"after": 2, "task": 2, "example": 20 + k, "correct": 1, "num_choices": 4} for k in range(6)
    ]
    found = transfer([row for row in rows if row["after"] == 2])
    assert found["accuracy"].metric().value == pytest.approx((1 + 6 / 8) / 2)
    assert found["accuracy"].chance == pytest.approx(1 / 4)


def test_what_a_matrix_does_not_have_is_no_figure():
    assert values(transfer(matrix([[], [], [2, 1]]))) == {"accuracy": 0.75, "accuracy/2/1": 1, "accuracy/2/2": 0.5}
    assert set(curves(transfer(matrix([[], [], [2, 1]])))) == {"classes of each task"}
    drawn = curves(transfer(matrix([[None, 1], [2, 1], [1, 2]])))
    assert [point[:2] for point in drawn["all classes so far"]["all"]] == [(1, 1), (2, 0.75)]
    assert [point[:2] for point in drawn["classes of each task"]["task 1"]] == [(1, 1), (2, 0.5)]
    assert grid(transfer(matrix([[None, 1], [2, 1], [1, 2]]))).values == [[1, None], [0.5, 1]]


def write_texts(folder):
    lines = [
        json.dumps({"text": f"{label} {i}", "label": label, "domain": domain})
        for i in range(6)
        for domain, labels in DOMAINS.items()
        for label in labels
    ]
    (folder / "texts.jsonl").write_text("\n".join(lines))
    return folder / "texts.jsonl"


def train(folder, **given):
    """Train on the three tasks for `steps_each` steps each, unless `given` says otherwise."""
    keys = {"data__path": write_texts(folder), "data__text_len": 48, "data__steps_each": 2, "data__val_per_label": 2}
    keys |= {"steps": 6, "save_every": 2, "keep_every": 2, "val_every": 6, "data": "classes", "name": "sequence"}
    return run(tiny(folder, **keys | given)).directory


def subject_of(folder, policy=None):
    trained = open_trained(folder, "cpu")
    policy = MemoryConfig(name="online") if policy is None else policy
    return EvalContext(
        model=trained.model, tokenizer=trained.tokenizer, data=trained.config.data, seed=0, policy=policy, run=folder
    )


def report_on(pack, ctx):
    draft = ctx.run / "evals/draft.jsonl"
    draft.unlink(missing_ok=True)
    return evaluate(pack, ctx, draft, {}, lambda _: None)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return train(tmp_path_factory.mktemp("runs"))


def test_checkpoints_are_asked_about_all_classes_so_far(trained):
    report = report_on(TrainedSequence(None, 8, None), subject_of(trained))
    cells = {(row["after"], row["task"]): row["num_choices"] for row in report.records}
    assert cells == {
        **{(0, 2): 4, (0, 3): 6, (1, 2): 4, (2, 3): 6},
        **{(1, 1): 2, (2, 1): 4, (2, 2): 4, (3, 1): 6, (3, 2): 6, (3, 3): 6},
    }
    assert len(report.records) == 10 * 4
    assert report.metrics["accuracy"].n == 12 and report.metrics["accuracy"].chance == pytest.approx(1 / 6)


def test_averaged_weights_are_asked_for_where_there_are_some(trained):
    with pytest.raises(CheckpointError, match="ema"):
        report_on(TrainedSequence(1, 8, None), replace(subject_of(trained), weights="ema"))


@pytest.mark.slow
def test_what_was_trained_last_is_what_is_known(tmp_path):
    every = {"save_every": 60, "keep_every": 60, "val_every": 180, "optim__schedule__kind": "constant"}
    folder = train(tmp_path, data__steps_each=60, steps=180, **every)
    report = report_on(TrainedSequence(None, 8, None), subject_of(folder))
    found = {name: metric.value for name, metric in report.metrics.items()}
    assert found["accuracy/3/3"] > 0.7
    # the labels of earlier tasks are never given
    assert found["accuracy/3/1"] < 0.3 and found["bwt"] < -0.3


class DocumentOracle(Oracle):
    """Knows documents wherever they begin: what was read before the last `end` is nothing to it."""

    def forward(self, tokens, state, *, write=True, head_fn=None):
        history = torch.cat([state, tokens], 1)
        logits = torch.zeros(*tokens.shape, self.vocab_size)
        for row, read in enumerate(history.tolist()):
            for place in range(state.shape[1], len(read)):
                begun = max((at for at in range(place + 1) if read[at] == ByteTokenizer.end), default=0)
                wanted = self.following.get(tuple(read[begun : place + 1]))
                if wanted is not None:
                    logits[row, place - state.shape[1], wanted] = self.taste
        return logits, history


@pytest.mark.parametrize("taste, expected", [(20.0, 1.0), (-20.0, 0.0)], ids=["oracle", "anti-oracle"])
def test_who_knows_is_always_right_and_who_wants_anything_else_never(tmp_path, taste, expected):
    data = ClassesConfig(path=str(write_texts(tmp_path)), text_len=64, val_per_label=1, texts_per_label=1)
    source = data.build(0)
    known = [([256], source.format.document(each)[0].tolist()) for task in source.texts["validation"] for each in task]
    policy = MemoryConfig(name="online")
    model = DocumentOracle(known, taste)
    ctx = EvalContext(model=model, tokenizer=ByteTokenizer(), data=data, seed=0, policy=policy, run=tmp_path)
    report = report_on(ReadSequence(None, 8, None), ctx)
    accuracies = {name: metric.value for name, metric in report.metrics.items() if name.startswith("accuracy")}
    assert set(accuracies.values()) == {expected} and len(accuracies) == 7
    assert report.metrics["fwt"].value == report.metrics["forgetting"].value == 0


def test_an_answer_costs_what_reading_it_alone_costs():
    config = tiny(Path(), model="titans_lmm", data="parity")
    model, tokenizer = config.model.build(257, seed=1), ByteTokenizer()
    words = [" pay", " pay bill", " play", " x", " visa"]
    answers = [torch.from_numpy(tokenizer.encode(word)) for word in words]
    session = Session(model, tokenizer)
    session.feed("Text: which?")
    expected = [float(session.fork().score(answer).mean()) for answer in answers]
    assert Answers(answers).nats(session).tolist() == pytest.approx(expected, abs=1e-5)
    assert Answers(answers[3:4]).nats(session).tolist() == pytest.approx(expected[3:4], abs=1e-5)
    single = Answers([answer[:1] for answer in answers[:1]])
    assert single.nats(session).tolist() == pytest.approx([float(session.fork().score(answers[0][:1]))], abs=1e-5)


def test_the_batch_changes_no_answer(trained):
    rows = [report_on(TrainedSequence(1, size, None), subject_of(trained)).records for size in (1, 7)]
    assert rows[0] == rows[1]
    assert len(rows[0]) == 10 * 2


def test_one_reader_reads_the_tasks_in_turn(trained):
    report = report_on(ReadSequence(1, 4, None), subject_of(trained))
    assert {(row["after"], row["task"]) for row in report.records} >= {(1, 1), (3, 1), (3, 3), (0, 2)}
    # where it was interrupted, it reads again what it had read
    pack, ctx = ReadSequence(1, 4, None), subject_of(trained)
    pack.examples(ctx)
    later = pack.answer(ctx.open_session(1, reads_text=True), [3])[0]
    assert later == [row for row in report.records if row["after"] == 3]
    texts = [each for task in pack.source.texts["train"] for each in task]
    assert pack.reader.position == 1 + sum(len(pack.source.format.document(each)[0]) for each in texts)


def test_a_reader_that_studies_writes_the_texts_of_each_task(trained):
    report = report_on(ReadSequence(1, 4, None), subject_of(trained, STUDY))
    written = {row["after"]: row.get("memory/mlp/writes", 0) for row in report.records}
    # 8 texts of a task in pieces of 64 tokens, read twice
    assert written[0] == 0 and written[1] >= 8
    carried = report_on(ReadSequence(1, 4, None), subject_of(trained, replace(STUDY, reset="carry")))
    assert [row["chosen"] for row in carried.records] == [row["chosen"] for row in report.records]


def test_an_unseen_text_may_be_studied_before_it_is_asked(trained):
    asked = report_on(TrainedSequence(1, 4, None), subject_of(trained))
    memorized = report_on(TrainedSequence(1, 4, None), subject_of(trained, STUDY))
    assert all(row["memory/mlp/writes"] == 2 for row in memorized.records)
    assert [row["example"] for row in memorized.records] == [row["example"] for row in asked.records]


def test_a_run_that_learned_all_at_once_is_what_intransigence_is_measured_against(tmp_path, trained):
    joint = train(tmp_path, data__is_joint=True, name="joint")
    report = report_on(TrainedSequence(None, 8, None), subject_of(joint))
    assert {row["after"] for row in report.records} == {3}
    with pytest.raises(DataError, match="evaluate it first"):
        report_on(TrainedSequence(None, 8, str(joint)), subject_of(trained))
    (joint / "evals/class_incremental.jsonl").write_text("\n".join(map(json.dumps, report.records)))
    found = report_on(TrainedSequence(None, 8, str(joint)), subject_of(trained)).metrics
    own = [found[f"accuracy/{task}/{task}"].value for task in (1, 2, 3)]
    assert found["intransigence"].value == pytest.approx(report.metrics["accuracy"].value - math.fsum(own) / 3)


def test_what_cannot_be_asked_is_refused(tmp_path, trained):
    missing = train(tmp_path, keep_every=0)
    with pytest.raises(ConfigError, match=r"no checkpoint of step 0.*save_every=2 keep_every=2 steps=6"):
        report_on(TrainedSequence(None, 8, None), subject_of(missing))
    with pytest.raises(ConfigError, match=r"mode=weights .*; use memory.reset=per_example"):
        report_on(TrainedSequence(None, 8, None), subject_of(trained, replace(STUDY, reset="carry")))
    other = replace(subject_of(trained), data=tiny(tmp_path, data="parity").data)
    with pytest.raises(ConfigError, match="needs data=classes, not data=parity"):
        report_on(TrainedSequence(None, 8, None), other)
    with pytest.raises(ConfigError, match="reads no text"):
        report_on(ReadSequence(None, 8, None), replace(subject_of(trained), tokenizer=None))


def test_of_each_label_as_many_texts_are_asked_as_wanted(trained):
    source = subject_of(trained).open_source()
    labels = [each.text.label for each in questions_of(source, 1) if each.after == 3]
    assert sorted(labels) == sorted(set(labels)) and len(labels) == 6
