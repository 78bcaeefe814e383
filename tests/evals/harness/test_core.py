"""CORE builds its prompts and counts its answers as its authors do."""

import csv
import json
import random
from pathlib import Path

import pytest
import torch
import yaml
from oracle import Oracle
from shared import shared
from tiny import tiny

from nested_learning.data.tokenizers.bpe import BpeTokenizer
from nested_learning.data.tokenizers.tokenizer import ByteTokenizer
from nested_learning.errors import ConfigError, DataError, NestedLearningError
from nested_learning.evals.harness.config import CoreConfig
from nested_learning.evals.harness.core import Core, is_right, rules_of
from nested_learning.evals.harness.core_prompts import Rules, examples_for, in_order
from nested_learning.evals.harness.core_prompts import to_request as prompt
from nested_learning.evals.harness.local_tasks import read_tasks
from nested_learning.evals.protocol import EvalContext
from nested_learning.evals.runner import evaluate
from nested_learning.evals.variable_length import Score
from nested_learning.inference.config import MemoryConfig

BYTES = ByteTokenizer()
TINY = tiny(Path(), model="titans_lmm", data="parity")
MODEL = TINY.model.build(257, seed=1).eval()
CHOICE = {"query": "Jade is", "choices": ["green", "grey"], "gold": 0}


def ctx(tmp_path, model=MODEL, tokenizer=BYTES):
    policy = MemoryConfig(name="online")
    return EvalContext(model=model, tokenizer=tokenizer, data=TINY.data, seed=0, policy=policy, run=tmp_path)


def said(text):
    return BYTES.decode(text.tolist())


def encode(text):
    return torch.from_numpy(BYTES.encode(text))


def write(folder, name, *items):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("".join(json.dumps(item) + "\n" for item in items))
    return folder


def parts(question, place):
    """Return the tokens that are read before an answer, and the answer."""
    return [BYTES.end, *question.contexts[place].tolist()], question.continuations[place].tolist()


def whole_texts(question):
    return [[*before, *after] for before, after in (parts(question, place) for place in range(len(question.contexts)))]


def test_the_table_of_tasks_is_that_of_dclm():
    names = json.loads(shared("icl/core_task_list.json").read_text())
    tasks = {task["label"]: task for task in yaml.safe_load(shared("icl/core_tasks.yaml").read_text())["icl_tasks"]}
    with shared("icl/eval_meta_data.csv").open() as file:
        chances = {row["Eval Task"]: float(row["Random baseline"]) for row in csv.DictReader(file)}
    kinds = {"choice": "multiple_choice", "schema": "schema", "text": "language_modeling"}
    assert list(read_tasks("core")) == names
    for name, ours in read_tasks("core").items():
        theirs, rules = tasks[name], rules_of(name, ours)
        assert (kinds[rules.kind], [rules.shots]) == (theirs["icl_task_type"], theirs["num_fewshot"])
        assert rules.delimiter == ({"continuation_delimiter": " "} | theirs)["continuation_delimiter"]
        assert Path(theirs["dataset_uri"]).name in ours["files"]
        assert ours["chance"] == chances[name]


def test_choices_are_compared_from_the_first_token_that_differs():
    question = prompt(CHOICE, [CHOICE | {"gold": 1}], Rules("choice", 1, "\nAnswer: "), encode)
    assert [said(each) for each in question.contexts] == ["Jade is\nAnswer: grey\n\nJade is\nAnswer: gre"] * 2
    assert [said(each) for each in question.continuations] == ["en", "y"]
    assert said(question.memorized) == "Jade is\nAnswer: grey\n\nJade is\nAnswer:"


def test_a_choice_that_is_a_prefix_of_another_is_scored_by_its_last_token():
    question = prompt(CHOICE | {"choices": ["1", "10"]}, [], Rules("choice", 0, " "), encode)
    assert [said(each) for each in question.continuations] == ["1", "10"]


def test_an_answer_whose_first_token_spans_the_end_of_its_contexts_is_scored_alone():
    spanning = BpeTokenizer([("m", "s"), ("t", "s")])
    item = {"context_options": ["so am", "so at"], "continuation": "s", "gold": 1}
    question = prompt(item, [], Rules("schema", 0, ""), lambda text: torch.from_numpy(spanning.encode(text)))
    assert [spanning.decode(each) for each in question.contexts] == ["so am", "so at"]
    assert [spanning.decode(each) for each in question.continuations] == ["s", "s"]


def test_different_contexts_are_compared_by_the_continuation_that_they_share():
    item = {"context_options": ["so Sam", "so Pam"], "continuation": "left.", "gold": 1}
    question = prompt(item, [item], Rules("schema", 1, " "), encode)
    assert [said(each) for each in question.contexts] == ["so Pam left.\n\nso S", "so Pam left.\n\nso P"]
    assert [said(each) for each in question.continuations] == ["am left."] * 2
    assert said(question.memorized) == "so Pam left.\n\nso"


def test_the_continuation_of_a_language_task_follows_the_delimiter():
    item = {"context": " 2+2= ", "continuation": "4"}
    question = prompt(item, [item], Rules("text", 1, " "), encode)
    assert [said(each) for each in question.contexts] == ["2+2= 4\n\n2+2="]
    assert [said(each) for each in question.continuations] == [" 4"]


def test_answer_spans_equal_those_of_the_reference_on_real_questions():
    # the reference: prompts one by one, and how many tokens they share from the left, or from the right
    def alike(texts):
        for place, tokens in enumerate(zip(*texts, strict=False)):
            if len(set(tokens)) > 1:
                return place
        return min(map(len, texts))

    for name in ("arc_easy", "winogrande"):
        rules = rules_of(name, read_tasks("core")[name])
        items = in_order([json.loads(line) for line in shared(f"icl/{name}.jsonl").read_text().splitlines()])
        for number, item in enumerate(items[:20]):
            examples = examples_for(items, number, rules.shots)
            others = [place for place in range(len(items)) if place != number]
            assert examples == [items[place] for place in random.Random(1234 + number).sample(others, rules.shots)]
            texts = whole_texts(question := prompt(item, examples, rules, encode))
            starts = [1 + len(context) for context in question.contexts]
            if rules.kind == "choice":
                assert starts == [alike(texts)] * len(texts)
            else:
                assert [len(text) - start for text, start in zip(texts, starts, strict=True)] == [
                    alike([text[::-1] for text in texts])
                ] * len(texts)


def test_questions_come_in_the_published_order():
    items = [{"number": number} for number in range(30)]
    expected = list(range(30))
    random.Random(1337).shuffle(expected)
    assert [item["number"] for item in in_order(items)] == expected


def test_the_choice_with_the_lowest_loss_per_token_is_the_answer():
    short, long = Score(torch.tensor([1.5]), False), Score(torch.tensor([1.0, 1.0, 1.0]), True)
    assert is_right([short, long], 1) and not is_right([short, long], 0)
    assert is_right([long], None) and not is_right([short], None)


def evaluate_oracle(tmp_path, tasks, limit, taste):
    pack = Core(shared("icl/copa.jsonl").parent, tasks, 4, limit)
    questions = pack.examples(ctx(tmp_path))
    texts = [parts(each.request, each.gold or 0) for each in questions]
    return evaluate(pack, ctx(tmp_path, Oracle(texts, taste)), tmp_path / "draft.jsonl", {})


ORACLES = pytest.mark.parametrize(("taste", "right"), [(20.0, 1.0), (-20.0, 0.0)], ids=["oracle", "anti-oracle"])


@ORACLES
def test_a_model_that_knows_the_answers_is_always_right_and_one_that_avoids_them_never(tmp_path, taste, right):
    tasks = ["copa", "winogrande", "bigbench_operators"]
    report = evaluate_oracle(tmp_path, tasks, 5, taste)
    metrics = {name: metric.value for name, metric in report.metrics.items()}
    assert [metrics[f"{name}/accuracy"] for name in tasks] == [right] * 3
    assert metrics["copa/centered"] == 2 * right - 1
    assert metrics["CORE-3"] == pytest.approx((2 * (2 * right - 1) + right) / 3)
    assert report.metrics["copa/accuracy"].chance == 0.5 and len(report.records) == 15


@pytest.mark.slow
@ORACLES
def test_the_same_holds_for_every_task(tmp_path, taste, right):
    report = evaluate_oracle(tmp_path, None, 20, taste)
    accuracies = {name: metric.value for name, metric in report.metrics.items() if name.endswith("/accuracy")}
    assert len(accuracies) == 17 and accuracies == dict.fromkeys(accuracies, right)


def test_the_core_metric_is_reported_only_when_all_tasks_are_complete(tmp_path):
    rows = [{"task": name, "question": 0, "correct": True} for name in read_tasks("core")]
    pack = Core(tmp_path, None, 4, None)
    whole, part = pack.summarise(ctx(tmp_path), rows), pack.summarise(ctx(tmp_path), rows[1:])
    assert whole.metrics["CORE"].value == 1.0
    assert "CORE-21" in part.metrics and "CORE" not in part.metrics


def test_invalid_tasks_and_files_are_refused(tmp_path):
    folder = write(tmp_path / "icl", "copa.jsonl", CHOICE | {"gold": 2})
    with pytest.raises(DataError, match="question 1: gold=2"):
        Core(folder, None, 4, None).examples(ctx(tmp_path))
    write(folder, "copa.jsonl", CHOICE, {"query": "no choices"})
    with pytest.raises(DataError, match="line 2: has no choices, gold"):
        Core(folder, ["copa"], 4, None).examples(ctx(tmp_path))
    (folder / "copa.jsonl").write_text("{broken")
    with pytest.raises(DataError, match="line 1: not JSON"):
        Core(folder, ["copa"], 4, None).examples(ctx(tmp_path))
    (folder / "copa.jsonl").write_text("\n")
    with pytest.raises(DataError, match="empty"):
        Core(folder, ["copa"], 4, None).examples(ctx(tmp_path))
    write(folder, "arc_easy.jsonl", *[CHOICE] * 10)
    with pytest.raises(DataError, match="10 questions; arc_easy needs 10"):
        Core(folder, ["arc_easy"], 4, None).examples(ctx(tmp_path))
    with pytest.raises(DataError, match=r"has no piqa\.jsonl"):
        Core(folder, ["piqa"], 4, None).examples(ctx(tmp_path))
    with pytest.raises(ConfigError, match="no task pica"):
        Core(folder, ["pica"], 4, None).examples(ctx(tmp_path))
    with pytest.raises(DataError, match="for the task hellaswag_zeroshot"):
        Core(tmp_path / "empty", None, 4, None).examples(ctx(tmp_path))
    with pytest.raises(ConfigError, match="needs a model that reads text"):
        Core(folder, ["copa"], 4, None).examples(ctx(tmp_path, tokenizer=None))


MINE = "capitals: {files: [capitals.jsonl], kind: choice, shots: 1, chance: 50}\n"


def write_mine(folder, text=MINE):
    write(folder, "capitals.jsonl", *[CHOICE] * 3)
    (folder / "mine.yaml").write_text(text)
    return str(folder / "mine.yaml")


def test_a_file_of_tasks_of_ones_own_is_evaluated_without_being_a_part_of_core(tmp_path):
    folder = write(tmp_path / "icl", "copa.jsonl", *[CHOICE] * 3)
    mine = write_mine(tmp_path / "mine")
    questions = Core(None, [mine], 4, 2).examples(ctx(tmp_path))
    assert [(each.task, each.number) for each in questions] == [("capitals", 0), ("capitals", 1)]
    pack = Core(folder, ["copa", mine], 4, None)
    assert {each.task for each in pack.examples(ctx(tmp_path))} == {"copa", "capitals"}
    rows = [{"task": name, "question": 0, "correct": True} for name in ("copa", "capitals")]
    metrics = pack.summarise(ctx(tmp_path), rows).metrics
    assert metrics["capitals/centered"].value == metrics["CORE-1"].value == 1.0
    assert "CORE-1" not in Core(None, [mine], 4, None).summarise(ctx(tmp_path), rows[1:]).metrics
    # the questions may also be where the others are
    (tmp_path / "mine" / "capitals.jsonl").rename(folder / "capitals.jsonl")
    assert len(Core(folder, [mine], 4, None).examples(ctx(tmp_path))) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "mine.yaml: has no tasks"),
        ("- a", "mine.yaml: has no tasks"),
        ("a: b", "mine.yaml: a is not a task by its name"),
        ("a: [", "mine.yaml: cannot be read"),
        ("a: {kind: choice}", "mine.yaml: a.files must be|mine.yaml: a.files=null must be a list"),
        (MINE.replace("capitals:", "copa:"), "there is another task copa"),
        (MINE.replace("capitals.jsonl", "none.jsonl"), "has no none.jsonl, for the task capitals"),
        (MINE.replace("kind: choice, ", ""), "capitals.kind: missing"),
        (MINE.replace("choice", "chioce"), "capitals.kind=chioce: .*choice"),
        (MINE.replace("kind", "knid"), "capitals.knid: no such key; did you mean .*kind"),
        (MINE.replace("shots: 1", "shots: -1"), "capitals.shots=-1 must be at least 0"),
        (MINE.replace("chance: 50", "chance: .nan"), "capitals.chance=nan must be a finite number"),
        (MINE.replace("chance: 50", "chance: 100"), "capitals.chance=100"),
    ],
)
def test_a_file_of_tasks_that_cannot_be_used_is_refused(tmp_path, text, message):
    with pytest.raises(NestedLearningError, match=message):
        Core(None, [write_mine(tmp_path, text)], 4, None).examples(ctx(tmp_path))


def test_a_file_of_tasks_is_looked_for_and_named_once(tmp_path):
    with pytest.raises(DataError, match=r"evals\.core\.tasks=none\.yaml: cannot be read"):
        CoreConfig(name="core", path=None, tasks=["none.yaml"], limit=None, batch_size=1).build(TINY.data)
    mine = write_mine(tmp_path)
    with pytest.raises(ConfigError, match="there is another task capitals"):
        Core(None, [mine, mine], 4, None).examples(ctx(tmp_path))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"query": None}, "line 1: its query must be text, not null"),
        ({"query": 3}, "line 1: its query must be text, not 3"),
        ({"choices": [1, 2]}, "line 1: its choices must be a list of texts"),
        ({"choices": {"a": "b"}}, "line 1: its choices must be a list of texts"),
        ({"choices": []}, "line 1: its choices must be a list of texts"),
        ({"gold": "0"}, "line 1: its gold must be a whole number"),
        ({"gold": 1.0}, "line 1: its gold must be a whole number"),
        ({"gold": True}, "line 1: its gold must be a whole number"),
        ({"gold": -1}, "question 1: gold=-1"),
        ({"query": "\ud800"}, "line 1: has half a character"),
    ],
)
def test_a_question_with_a_value_of_another_type_is_refused_by_its_line(tmp_path, changes, message):
    folder = write(tmp_path / "icl", "copa.jsonl", CHOICE | changes)
    with pytest.raises(DataError, match=message):
        Core(folder, ["copa"], 4, None).examples(ctx(tmp_path))


def test_files_may_lie_in_subfolders_and_may_be_missing(tmp_path):
    write(tmp_path / "icl", "about.txt")
    write(tmp_path / "icl" / "commonsense", "copa.jsonl", *[CHOICE] * 3)
    questions = Core(tmp_path / "icl", None, 4, 2).examples(ctx(tmp_path))
    assert [(each.task, each.number) for each in questions] == [("copa", 0), ("copa", 1)]
