"""Labelled texts in tasks: which rows a task reads, how a text is formatted, and what is refused."""

import json
from collections import Counter
from dataclasses import replace

import pytest
from shared import shared

from nested_learning.data.loader import train_batch
from nested_learning.data.source import IGNORE
from nested_learning.data.tasks.classes import ClassesConfig
from nested_learning.data.tokenizers.tokenizer import ByteTokenizer
from nested_learning.errors import ConfigError, DataError

DOMAINS = {"home": ("lights_on", "lock"), "bank": ("balance", "pay_bill"), "travel": ("book", "visa")}


@pytest.fixture
def path(tmp_path):
    lines = [
        json.dumps({"text": f"text {i} about {label}", "label": label, "domain": domain})
        for i in range(8)
        for domain, labels in DOMAINS.items()
        for label in labels
    ]
    (tmp_path / "texts.jsonl").write_text("\n".join(lines))
    return str(tmp_path / "texts.jsonl")


def texts_read(source, task):
    """Count how often each text is a row of the task."""
    rows = [source.row("train", task, index) for index in range(source.num_rows("train"))]
    return Counter(ByteTokenizer().decode(row.tokens[row.tokens != 256]) for row in rows)


def labels_read(source, task):
    return {text.split("Label: ")[1] for text in texts_read(source, task)}


def words(task):
    return {label.replace("_", " ") for label in task}


def test_every_task_is_a_domain_with_its_own_labels(path):
    source = ClassesConfig(path=path, val_per_label=2, text_len=64, steps_each=3, batch_size=4).build(0)
    assert sorted(map(sorted, source.tasks)) == sorted(map(sorted, DOMAINS.values()))
    for task, labels in enumerate(source.tasks):
        assert labels_read(source, task) == words(labels)
        # 12 rows of 12 texts: each once
        assert set(texts_read(source, task).values()) == {1}


def test_tasks_come_in_the_order_of_their_names(path):
    for names in (["travel", "home", "bank"], ["bank", "travel"]):
        source = ClassesConfig(
            path=path, val_per_label=2, text_len=64, steps_each=3, batch_size=4, domains=names
        ).build(0)
        assert source.tasks == [sorted(DOMAINS[name]) for name in names]
        assert labels_read(source, 0) == words(DOMAINS[names[0]])
        assert source.num_rows("validation") == 2 * 2 * len(names)
    config = ClassesConfig(path=path, val_per_label=2, text_len=64)
    others = [replace(config, domains=names).build(0).fingerprint for names in (["bank", "home"], ["home", "bank"])]
    assert len({config.build(0).fingerprint, *others}) == 3
    # runs made before names could be given still resume
    assert config.build(0).fingerprint == "d08119ca928e4e41d4ac7e307dc107bf10af565b0566fbb0b4c26dad5cf9f88a"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"domains": ["bank", "hime"]}, r"data\.domains: data\.path=.* has no domain hime; did you mean home\?"),
        ({"domains": []}, r"data\.domains=\[\]: must name one or more domains"),
        ({"domains": ["bank", "bank"]}, "each once"),
        ({"domains": ["bank"], "num_tasks": 2}, r"data\.num_tasks=2: .* data\.domains"),
    ],
)
def test_names_of_tasks_that_cannot_be_used_are_refused(path, values, message):
    with pytest.raises(ConfigError, match=message):
        ClassesConfig(path=path, text_len=64, val_per_label=2, **values).build(0)


def test_the_steps_of_a_run_are_the_tasks_one_after_the_other(path):
    source = ClassesConfig(path=path, text_len=64, steps_each=3, batch_size=4).build(0)
    for step in range(9):
        batch = train_batch(source, 7, step, 0, 1, 4)
        read = {ByteTokenizer().decode(row[row != 256]).split("Label: ")[1] for row in batch.tokens.numpy()}
        assert read <= words(source.tasks[step // 3])


def test_another_order_permutes_the_same_tasks(path):
    orders = [ClassesConfig(path=path, text_len=64, order=order).build(0).tasks for order in range(8)]
    assert len({str(tasks) for tasks in orders}) > 1
    assert len({str(sorted(tasks)) for tasks in orders}) == 1
    drawn = ClassesConfig(path=path, text_len=64, num_tasks=2).build(0).tasks
    assert [len(task) for task in drawn] == [3, 3]
    assert set(drawn[0]) | set(drawn[1]) == {label for labels in DOMAINS.values() for label in labels}


def test_num_labels_keeps_the_same_labels_in_both_splits(path):
    source = ClassesConfig(path=path, text_len=64, num_labels=4, num_tasks=2, val_per_label=1).build(0)
    drawn = {label for task in source.tasks for label in task}
    assert [len(task) for task in source.tasks] == [2, 2]
    for texts in source.texts.values():
        assert {each.label for task in texts for each in task} == drawn
    others = ClassesConfig(path=path, text_len=64, num_labels=4, num_tasks=2, order=1).build(0).tasks
    assert {label for task in others for label in task} != drawn


def test_only_the_label_of_a_row_is_a_target(path):
    source = ClassesConfig(path=path, text_len=64).build(0)
    labelled = source.texts["train"][0][0]
    row = source.write(labelled)
    question, answer = f"Text: {labelled.text}\nLabel:", f" {labelled.label.replace('_', ' ')}"
    assert bytes(row.tokens[1 : 1 + len(question) + len(answer)].tolist()).decode() == question + answer
    assert row.targets[row.targets != IGNORE].tolist() == [*answer.encode(), 256]
    assert row.documents.tolist() == [0] * (len(question + answer) + 1) + [1] * (63 - len(question + answer))


def test_a_long_text_loses_its_first_words_and_never_its_label(path):
    source = ClassesConfig(path=path, text_len=24).build(0)
    row = source.write(source.texts["train"][0][0]._replace(label="balance"))
    assert len(row.tokens) == 24
    assert bytes(row.targets[row.targets != IGNORE][:-1].tolist()) == b" balance"
    assert row.tokens[0] == 256 and bytes(row.tokens[1:16].tolist()).endswith(b"Label:")


def test_validation_is_the_last_texts_of_each_label_or_another_file(path, tmp_path):
    source = ClassesConfig(path=path, val_per_label=3, text_len=64).build(0)
    assert {each.text.split()[1] for each in source.texts["validation"][0]} == {"5", "6", "7"}
    assert {each.text.split()[1] for each in source.texts["train"][0]} == {"0", "1", "2", "3", "4"}
    (tmp_path / "other.jsonl").write_text('{"text": "unseen", "label": "visa"}')
    source = ClassesConfig(path=path, validation_path=str(tmp_path / "other.jsonl"), text_len=64).build(0)
    assert sum(map(len, source.texts["train"])) == 48 and sum(map(len, source.texts["validation"])) == 1


def test_replay_reads_a_few_texts_of_earlier_labels_again(path):
    source = ClassesConfig(path=path, text_len=64, replay=1, steps_each=20, batch_size=4).build(0)
    seen = [texts_read(source, task) for task in range(3)]
    earlier = [text for text in seen[2] if text.split("Label: ")[1] not in words(source.tasks[2])]
    assert len(earlier) == 4 and len(seen[0]) == 6 and len(seen[1]) == 8


def test_joint_training_reads_all_tasks_equally_often(path):
    source = ClassesConfig(path=path, text_len=64, is_joint=True, steps_each=3, batch_size=2, val_per_label=5)
    seen = sum((texts_read(source.build(0), task) for task in range(3)), Counter())
    # 18 rows of 18 texts
    assert len(seen) == 18 and set(seen.values()) == {1}


def test_texts_per_label_limits_the_training_texts(path):
    source = ClassesConfig(path=path, text_len=64, texts_per_label=2, steps_each=9).build(0)
    assert len(texts_read(source, 1)) == 4


@pytest.mark.parametrize(
    "content, message",
    [
        ("", "is empty"),
        ('{"text": "a", "label": "b"}\n{"text": ', "line 2: not JSON"),
        ('{"text": "a"}', "line 1: has no label"),
        ('{"text": " ", "label": "b"}', "text 1: has no text"),
        ('["a", "b"]', r'line 1: \["a", "b"\] is not an object'),
        ("\n".join(['{"text": "a", "label": "b"}'] * 9), "label b has no domain; .* data.num_tasks"),
    ],
)
def test_a_malformed_file_is_refused_with_its_line(tmp_path, content, message):
    (tmp_path / "texts.jsonl").write_text(content)
    with pytest.raises(DataError, match=message):
        ClassesConfig(path=str(tmp_path / "texts.jsonl"), val_per_label=1).build(0)


@pytest.mark.parametrize(
    "keys, message",
    [
        ({"num_tasks": 7}, "there are 6 labels"),
        ({"num_labels": 7}, "there are 6 labels"),
        ({"val_per_label": 8}, "has 8 texts; use less"),
        ({"text_len": 8}, "use data.text_len="),
        ({"replay": -1}, "data.replay=-1: must be at least 0"),
    ],
)
def test_impossible_options_are_refused(path, keys, message):
    with pytest.raises(ConfigError, match=message):
        ClassesConfig(path=path, **keys).build(0)


def test_missing_files_are_refused(path, tmp_path):
    with pytest.raises(ConfigError, match=r"data.path is missing"):
        ClassesConfig()
    with pytest.raises(DataError, match="no such file"):
        ClassesConfig(path=str(tmp_path / "none.jsonl")).build(0)
    (tmp_path / "other.jsonl").write_text('{"text": "unseen", "label": "fly"}')
    with pytest.raises(DataError, match="label fly is not in"):
        ClassesConfig(path=path, validation_path=str(tmp_path / "other.jsonl")).build(0)


def test_clinc150_gives_ten_tasks_of_fifteen_classes():
    folder = shared("continual/clinc150")
    config = ClassesConfig(path=str(folder / "train.jsonl"), validation_path=str(folder / "val.jsonl"))
    source = config.build(0)
    assert [len(task) for task in source.tasks] == [15] * 10
    assert [sum(map(len, source.texts[split])) for split in ("train", "validation")] == [14630, 2853]


@pytest.mark.parametrize("name, num_labels", [("banking77", 77), ("dbpedia70", 70), ("hwu64", 64)])
def test_the_data_sets_of_the_paper_are_divided_into_random_tasks(name, num_labels):
    path = str(shared(f"continual/{name}/momeni_train.jsonl"))
    source = ClassesConfig(path=path, num_tasks=7).build(0)
    assert sum(map(len, source.tasks)) == num_labels
    assert max(map(len, source.tasks)) - min(map(len, source.tasks)) <= 1
    assert len(source.row("train", 6, 0).tokens) == 128
