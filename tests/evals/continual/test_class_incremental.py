"""Class-incremental tasks: metrics computed directly, a model that knows the labels, and one that reads."""

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
from nested_learning.evals.continual.transfer import accuracy_curves, accuracy_grid, transfer
from nested_learning.evals.protocol import EvalContext
from nested_learning.evals.runner import evaluate
from nested_learning.hub.open_run import open_trained
from nested_learning.inference.config import MemoryConfig
from nested_learning.inference.session import Session
from nested_learning.phase.train import run

DOMAINS = {"home": ("lights_on", "lights_off"), "bank": ("balance", "pay"), "travel": ("book", "visa")}
MEMORIZE = memorize_policy(steps=2, lr=0.3)


def matrix(accuracies, num_texts=2):
    """Return rows of a matrix: `accuracies[i][j]` right answers of `num_texts` to task j + 1 after i tasks."""
    return [
        {"after": i, "task": j + 1, "example": 10 * j + k, "correct": int(k < right), "num_choices": 2 * max(i, j + 1)}
        for i, row in enumerate(accuracies)
        for j, right in enumerate(row)
        for k in range(num_texts)
        if right is not None
    ]


def values(metrics):
    return {name: metric.metric().value for name, metric in metrics.items()}


def test_the_metrics_of_a_matrix_equal_their_definitions():
    # right answers of 2: rows are tasks learned, columns tasks
    rows = matrix([[None, 1, 1], [2, 1, None], [1, 2, 0], [0, 1, 2]])
    metrics = values(transfer(rows))
    assert metrics["accuracy"] == pytest.approx((0 + 0.5 + 1) / 3)
    assert metrics["learning_accuracy"] == pytest.approx(1)
    assert metrics["bwt"] == pytest.approx(((0 - 1) + (0.5 - 1)) / 2)
    assert metrics["forgetting"] == pytest.approx(((1 - 0) + (1 - 0.5)) / 2)
    assert metrics["fwt"] == pytest.approx(((0.5 - 0.5) + (0 - 0.5)) / 2)
    assert metrics["seen/2"] == pytest.approx((0.5 + 1) / 2)
    assert metrics["accuracy/2/1"] == 0.5 and "accuracy/1/2" not in metrics
    joint = values(transfer(rows, matrix([[], [], [], [2, 2, 1]])))
    assert joint["intransigence"] == pytest.approx(((1 - 1) + (1 - 1) + (0.5 - 1)) / 3)


def test_forgetting_is_measured_from_the_best_earlier_accuracy():
    three = matrix([[None, 0, 0], [1, 0, None], [2, 2, 0], [0, 2, 2]])
    metrics = values(transfer(three))
    assert metrics["forgetting"] == pytest.approx(((1 - 0) + (1 - 1)) / 2)
    assert metrics["bwt"] == pytest.approx(((0 - 0.5) + (1 - 1)) / 2)


def test_every_task_counts_the_same_however_many_texts_it_has():
    rows = matrix([[], [2], [2, 0]]) + [
        {"after": 2, "task": 2, "example": 20 + k, "correct": 1, "num_choices": 4} for k in range(6)
    ]
    metrics = transfer([row for row in rows if row["after"] == 2])
    assert metrics["accuracy"].metric().value == pytest.approx((1 + 6 / 8) / 2)
    assert metrics["accuracy"].chance == pytest.approx(1 / 4)


def test_metrics_that_a_matrix_does_not_define_are_left_out():
    assert values(transfer(matrix([[], [], [2, 1]]))) == {"accuracy": 0.75, "accuracy/2/1": 1, "accuracy/2/2": 0.5}
    assert set(accuracy_curves(transfer(matrix([[], [], [2, 1]])))) == {"classes of each task"}
    drawn = accuracy_curves(transfer(matrix([[None, 1], [2, 1], [1, 2]])))
    assert [point[:2] for point in drawn["all classes so far"]["all"]] == [(1, 1), (2, 0.75)]
    assert [point[:2] for point in drawn["classes of each task"]["task 1"]] == [(1, 1), (2, 0.5)]
    assert accuracy_grid(transfer(matrix([[None, 1], [2, 1], [1, 2]]))).values == [[1, None], [0.5, 1]]


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


def context_of(folder, policy=None):
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


def test_checkpoints_choose_among_all_classes_seen_so_far(trained):
    report = report_on(TrainedSequence(None, 8, None), context_of(trained))
    cells = {(row["after"], row["task"]): row["num_choices"] for row in report.records}
    assert cells == {
        **{(0, 2): 4, (0, 3): 6, (1, 2): 4, (2, 3): 6},
        **{(1, 1): 2, (2, 1): 4, (2, 2): 4, (3, 1): 6, (3, 2): 6, (3, 3): 6},
    }
    assert len(report.records) == 10 * 4
    assert report.metrics["accuracy"].n == 12 and report.metrics["accuracy"].chance == pytest.approx(1 / 6)


def test_averaged_weights_that_a_checkpoint_lacks_are_refused(trained):
    with pytest.raises(CheckpointError, match="ema"):
        report_on(TrainedSequence(1, 8, None), replace(context_of(trained), weights="ema"))


@pytest.mark.slow
def test_the_classes_of_the_last_task_are_known_best(tmp_path):
    every = {"save_every": 60, "keep_every": 60, "val_every": 180, "optim__schedule__kind": "constant"}
    folder = train(tmp_path, data__steps_each=60, steps=180, **every)
    report = report_on(TrainedSequence(None, 8, None), context_of(folder))
    metrics = {name: metric.value for name, metric in report.metrics.items()}
    assert metrics["accuracy/3/3"] > 0.7
    # the labels of earlier tasks are never given
    assert metrics["accuracy/3/1"] < 0.3 and metrics["bwt"] < -0.3


class DocumentOracle(Oracle):
    """Knows documents wherever they begin: what was read before the last `end` is nothing to it."""

    def forward(self, tokens, state, *, write=True, head_fn=None):
        history = torch.cat([state, tokens], 1)
        logits = torch.zeros(*tokens.shape, self.vocab_size)
        for row, read in enumerate(history.tolist()):
            for place in range(state.shape[1], len(read)):
                start = max((at for at in range(place + 1) if read[at] == ByteTokenizer.end), default=0)
                wanted = self.following.get(tuple(read[start : place + 1]))
                if wanted is not None:
                    logits[row, place - state.shape[1], wanted] = self.taste
        return logits, history


@pytest.mark.parametrize("taste, expected", [(20.0, 1.0), (-20.0, 0.0)], ids=["oracle", "anti-oracle"])
def test_a_model_that_knows_the_label_is_always_right_and_one_that_avoids_it_never(tmp_path, taste, expected):
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


def test_the_loss_of_a_label_equals_the_loss_when_it_is_read_alone():
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
    rows = [report_on(TrainedSequence(1, size, None), context_of(trained)).records for size in (1, 7)]
    assert rows[0] == rows[1]
    assert len(rows[0]) == 10 * 2


def test_one_session_reads_the_tasks_in_turn(trained):
    report = report_on(ReadSequence(1, 4, None), context_of(trained))
    assert {(row["after"], row["task"]) for row in report.records} >= {(1, 1), (3, 1), (3, 3), (0, 2)}
    # where it was interrupted, it reads again what it had read
    pack, ctx = ReadSequence(1, 4, None), context_of(trained)
    pack.examples(ctx)
    later = pack.answer(ctx.open_session(1, reads_text=True), [3])[0]
    assert later == [row for row in report.records if row["after"] == 3]
    texts = [each for task in pack.source.texts["train"] for each in task]
    assert pack.reader.position == 1 + sum(len(pack.source.format.document(each)[0]) for each in texts)


def test_with_memorizing_the_texts_of_each_task_are_written(trained):
    report = report_on(ReadSequence(1, 4, None), context_of(trained, MEMORIZE))
    written = {row["after"]: row.get("memory/mlp/writes", 0) for row in report.records}
    # 8 texts of a task in segments of 64 tokens, read twice
    assert written[0] == 0 and written[1] >= 8
    carried = report_on(ReadSequence(1, 4, None), context_of(trained, replace(MEMORIZE, reset="carry")))
    assert [row["chosen"] for row in carried.records] == [row["chosen"] for row in report.records]


def test_an_unseen_text_can_be_memorized_before_its_label_is_chosen(trained):
    online = report_on(TrainedSequence(1, 4, None), context_of(trained))
    memorized = report_on(TrainedSequence(1, 4, None), context_of(trained, MEMORIZE))
    assert all(row["memory/mlp/writes"] == 2 for row in memorized.records)
    assert [row["example"] for row in memorized.records] == [row["example"] for row in online.records]


def test_intransigence_is_measured_against_a_run_trained_on_all_classes_at_once(tmp_path, trained):
    joint = train(tmp_path, data__is_joint=True, name="joint")
    report = report_on(TrainedSequence(None, 8, None), context_of(joint))
    assert {row["after"] for row in report.records} == {3}
    with pytest.raises(DataError, match="evaluate it first"):
        report_on(TrainedSequence(None, 8, str(joint)), context_of(trained))
    (joint / "evals/class_incremental.jsonl").write_text("\n".join(map(json.dumps, report.records)))
    metrics = report_on(TrainedSequence(None, 8, str(joint)), context_of(trained)).metrics
    own = [metrics[f"accuracy/{task}/{task}"].value for task in (1, 2, 3)]
    assert metrics["intransigence"].value == pytest.approx(report.metrics["accuracy"].value - math.fsum(own) / 3)


def test_invalid_settings_are_refused(tmp_path, trained):
    missing = train(tmp_path, keep_every=0)
    with pytest.raises(ConfigError, match=r"no checkpoint of step 0.*save_every=2 keep_every=2 steps=6"):
        report_on(TrainedSequence(None, 8, None), context_of(missing))
    with pytest.raises(ConfigError, match=r"mode=weights .*; use memory.reset=per_example"):
        report_on(TrainedSequence(None, 8, None), context_of(trained, replace(MEMORIZE, reset="carry")))
    other = replace(context_of(trained), data=tiny(tmp_path, data="parity").data)
    with pytest.raises(ConfigError, match="needs data=classes, not data=parity"):
        report_on(TrainedSequence(None, 8, None), other)
    with pytest.raises(ConfigError, match="reads no text"):
        report_on(ReadSequence(None, 8, None), replace(context_of(trained), tokenizer=None))


def test_the_number_of_texts_for_each_label_can_be_chosen(trained):
    source = context_of(trained).open_source()
    labels = [each.text.label for each in questions_of(source, 1) if each.after == 3]
    assert sorted(labels) == sorted(set(labels)) and len(labels) == 6
