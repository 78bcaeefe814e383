"""BABILong: a model that follows the story is right at every length of filler text."""

import re
from pathlib import Path
from typing import Any

import pytest
from rule_oracle import Oracle, answering

from nested_learning.data.tasks.needles import NeedlesConfig
from nested_learning.data.tokenizers.tokenizer import ByteTokenizer
from nested_learning.errors import ConfigError, DataError
from nested_learning.evals.protocol import EvalContext, Report
from nested_learning.evals.retrieval.babilong import BabilongPack
from nested_learning.evals.retrieval.config import BabilongPackConfig
from nested_learning.evals.runner import evaluate
from nested_learning.inference.config import MemoryConfig

PLACES = ("kitchen", "garden", "office")


def write_stories(folder: Path, count: int) -> str:
    """Write stories in which Mary ends in the kitchen every other time."""
    lines = []
    for number in range(count):
        last = PLACES[0] if number % 2 else PLACES[1 + number // 2 % 2]
        lines += [
            f"1 Mary went to the {PLACES[number % 3]}.",
            f"2 John took {number} apples.",
            f"3 Mary went to the {last}.",
        ]
        lines.append(f"4 Where is Mary? \t{last}\t3")
    (folder / "qa1_where_train.txt").write_text("\n".join(lines) + "\n")
    return str(folder)


def pack_of(path: str | None, **given: Any) -> BabilongPack:
    values: dict[str, Any] = {"tasks": ["qa1"], "held_out": 1.0, "books": None, "lengths": [0, 300], "num_examples": 6}
    values |= {"num_generated": 12, "batch_size": 4} | given
    return BabilongPackConfig(name="babilong", path=path, **values).build(NeedlesConfig())


def report_on(pack: BabilongPack, sign: int, tmp_path: Path) -> Report:
    def find(text: str) -> str | None:
        said = re.findall(r"Mary went to the (\w+)\.", text)
        return said[-1] if said else None

    ctx = EvalContext(
        model=Oracle(answering("Where is Mary?", find), sign),
        tokenizer=ByteTokenizer(),
        data=NeedlesConfig(),
        seed=0,
        policy=MemoryConfig(name="online"),
        run=tmp_path,
    )
    return evaluate(pack, ctx, tmp_path / "evals/draft.jsonl", {})


@pytest.mark.parametrize("sign, expected", [(1, 1.0), (-1, 0.0)], ids=["oracle", "anti-oracle"])
def test_a_model_that_follows_the_story_is_always_right_and_one_that_avoids_it_never(
    sign: int, expected: float, tmp_path: Path
) -> None:
    report = report_on(pack_of(write_stories(tmp_path, 12)), sign, tmp_path)
    targets = [row["target"] for row in report.records]
    most = max(targets.count(place) for place in PLACES) / len(targets)
    for part in ("", "/0", "/300"):
        assert report.metrics[f"qa1/accuracy{part}"].value == expected
        assert report.metrics[f"qa1/accuracy{part}"].chance == pytest.approx(most)
        assert report.metrics[f"qa1/exact{part}"].value == expected
    assert report.metrics["qa1/accuracy"].n == 12
    assert "qa1/accuracy_no_context" in report.metrics
    assert report.grids["accuracy"].values == [[expected, expected]]


def test_texts_have_the_exact_length_and_tell_the_same_stories_at_every_length(tmp_path: Path) -> None:
    pack = pack_of(write_stories(tmp_path, 12), lengths=[300, 0, 700])
    ctx = EvalContext(
        model=Oracle(lambda _: None), tokenizer=ByteTokenizer(), data=NeedlesConfig(), seed=0,
        policy=MemoryConfig(name="online"), run=tmp_path,
    )  # fmt: skip
    examples = list(pack.examples(ctx))
    assert [each.length for each in examples] == [0] * 6 + [300] * 6 + [700] * 6
    for each in examples[6:]:
        # a beginning and an answer are part of the length
        assert 1 + len(each.context) + len(each.question) + 12 == each.length
    stories = [
        [re.findall(r"John took \d+", ByteTokenizer().decode(e.context.numpy())) for e in examples[i : i + 6]]
        for i in (0, 6, 12)
    ]
    assert stories[0] == stories[1] == stories[2]


def test_invalid_lengths_and_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"evals\.babilong\.path is missing: the folder of bAbI"):
        pack_of(None)
    path = write_stories(tmp_path, 4)
    with pytest.raises(DataError, match=r"evals\.babilong\.lengths: no story of qa1 fits into 30 tokens"):
        report_on(pack_of(path, lengths=[30]), 1, tmp_path)
    with pytest.raises(ConfigError, match=r"evals\.babilong\.tasks=qa6: must be one of qa1"):
        pack_of(path, tasks=["qa6"])
    with pytest.raises(DataError, match=r"evals\.babilong\.path=.*: has no qa2_\*\.txt"):
        pack_of(path, tasks=["qa2"])
    with pytest.raises(DataError, match=r"evals\.babilong\.held_out=0\.1: leaves no story of qa1"):
        pack_of(path, held_out=0.1)
    (tmp_path / "qa1_where_train.txt").write_text("nonsense\n")
    with pytest.raises(DataError, match=r"qa1_where_train\.txt, line 1: 'nonsense' is neither a fact"):
        pack_of(path)
