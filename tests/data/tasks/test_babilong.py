"""bAbI stories are parsed, and their facts are hidden in order between other sentences."""

from pathlib import Path

import numpy as np
import pytest
from shared import shared

from nested_learning.data.source import IGNORE
from nested_learning.data.tasks.babi import Story, find_task, read_stories, split_stories
from nested_learning.data.tasks.babilong import BabilongConfig, StoryWriter
from nested_learning.data.tokenizers.tokenizer import ByteTokenizer
from nested_learning.errors import ConfigError, DataError

TEXT = """1 Mary moved to the bathroom.
2 John went to the hallway.
3 Where is Mary? \tbathroom\t1
4 Mary left.
5 Where is John? \thallway\t2
1 Anna slept.
2 What did Anna do? \tslept\t1
"""
STORY = Story(("Mary moved to the bathroom.", "John left."), "Where is Mary?", "bathroom")


def write(folder: Path, text: str, name: str = "qa1_single_train.txt") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_a_question_has_all_facts_before_it(tmp_path: Path) -> None:
    first, second, third = read_stories(write(tmp_path, TEXT))
    assert first == Story(("Mary moved to the bathroom.", "John went to the hallway."), "Where is Mary?", "bathroom")
    assert second.facts == (*first.facts, "Mary left.") and second.target == "hallway"
    assert third == Story(("Anna slept.",), "What did Anna do?", "slept")


@pytest.mark.parametrize(
    "text, problem",
    [
        ("", "has no question"),
        ("1 Mary moved.\n", "has no question"),
        ("Mary moved.\n", "line 1: 'Mary moved.' is neither a fact nor a question"),
        ("1 Mary moved.\n\n2 Where?\tx\t1\n", "line 2: '' is neither a fact"),
        ("1 Where is Mary?\tx\t1\n", "line 1: a question without an answer or a fact"),
        ("1 A.\n2 Where is Mary?\t\t1\n", "line 2: a question without an answer or a fact"),
    ],
)
def test_a_file_in_another_format_is_refused_with_its_line(text: str, problem: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=problem):
        read_stories(write(tmp_path, text))
    (tmp_path / "bytes.txt").write_bytes(b"1 \xff\xfe\n")
    with pytest.raises(DataError, match="not utf-8 text"):
        read_stories(tmp_path / "bytes.txt")


def test_the_test_set_of_a_task_is_preferred(tmp_path: Path) -> None:
    write(tmp_path, TEXT)
    write(tmp_path, TEXT, "qa10_other_train.txt")
    assert find_task(tmp_path, "qa1", "x").name == "qa1_single_train.txt"
    test = write(tmp_path, TEXT, "qa1_single_test.txt")
    assert find_task(tmp_path, "qa1", "x") == test
    with pytest.raises(DataError, match=r"x=.*: has no qa2_\*\.txt"):
        find_task(tmp_path, "qa2", "x")


def test_the_file_of_one_task_is_not_read_as_another(tmp_path: Path) -> None:
    file = tmp_path / "qa1_places_train.txt"
    file.write_bytes("\ufeff1 Mary went home.\r\n2 Where is Mary?\thome\t1\r\n".encode("utf-16-le"))
    assert read_stories(find_task(file, "qa1", "data.path")) == [Story(("Mary went home.",), "Where is Mary?", "home")]
    with pytest.raises(DataError, match="is a file of qa1, and qa2 is wanted"):
        find_task(file, "qa2", "data.path")


def test_no_training_story_is_held_out() -> None:
    stories = [STORY._replace(target=str(number % 7)) for number in range(20)]
    train, held_out = split_stories([*stories, STORY], 0.5)
    assert len(train) == 10 and held_out == [STORY]
    assert split_stories([STORY], 1.0) == ([], [STORY])


@pytest.mark.parametrize("books", [[], ["It was late. So they said! Nobody came."]])
def test_a_story_keeps_its_order_and_has_exactly_the_requested_length(books: list[str]) -> None:
    telling = StoryWriter(ByteTokenizer(), books)
    places = set()
    for number in range(20):
        context, question = telling.write(STORY, np.random.default_rng(number), 500)
        text = ByteTokenizer().decode(context)
        assert len(context) + len(question) == 500
        first, second = (text.index(f" {fact}") for fact in STORY.facts)
        assert first < second
        # at most one cut sentence precedes
        assert text[first - 1] in ".!" or first < 30
        places.add(first)
        assert ByteTokenizer().decode(question) == "\nWhere is Mary?"
    assert len(places) > 5
    alone, _ = telling.write(STORY, np.random.default_rng(0), None)
    assert ByteTokenizer().decode(alone) == " Mary moved to the bathroom. John left."
    with pytest.raises(DataError, match="20 tokens are too few for this story; use at least 54"):
        telling.write(STORY, np.random.default_rng(0), 20)


def test_rows_train_on_answers_and_validate_on_held_out_stories() -> None:
    path = shared("babi/en")
    source = BabilongConfig(path=str(path), tasks=["qa1", "qa2"], seq_len=400).build(0)
    words = source.tokenizer
    assert words is not None and source.vocab_size < 400
    train, held_out = split_stories(read_stories(find_task(path, "qa1", "x")), 0.1)
    for split, stories in (("train", train), ("validation", held_out)):
        questions = {(story.facts[-1], story.question, story.target) for story in stories}
        seen = 0
        for index in range(10):
            row = source.row(split, 0, index)
            answer = row.targets[row.targets != IGNORE]
            assert words.decode(answer).endswith("<|end|>")
            text = words.decode(row.tokens)
            seen += sum(f"\n{question} {target}" in text and last in text for last, question, target in questions)
        assert seen > 0


def test_impossible_options_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.path is missing"):
        BabilongConfig()
    with pytest.raises(ConfigError, match=r"data\.tasks=qa9: must be one of qa1"):
        BabilongConfig(path="x", tasks=["qa9"])
    with pytest.raises(ConfigError, match=r"data\.held_out=1.0: must lie between 0 and 1"):
        BabilongConfig(path="x", held_out=1.0)
    write(tmp_path, TEXT)
    with pytest.raises(DataError, match=r"data\.held_out=0\.01: leaves a split of qa1 without stories"):
        BabilongConfig(path=str(tmp_path), held_out=0.01).build(0)
