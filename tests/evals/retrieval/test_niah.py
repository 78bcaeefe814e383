"""NIAH, passkey: a model that knows the needle is right, one that does not guesses; no prompt shows the answer."""

import csv
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from rule_oracle import Oracle, answering
from shared import shared
from tiny import memorize_policy, reading, tiny

from nested_learning.data.tasks.needle_tasks import TASKS
from nested_learning.data.tasks.needles import NeedlesConfig, all_words
from nested_learning.data.tasks.parity import ParityConfig
from nested_learning.data.tokenizers.tokenizer import ByteTokenizer, Tokenizer
from nested_learning.errors import ConfigError, DataError
from nested_learning.evals import memory_check
from nested_learning.evals.files import write_report
from nested_learning.evals.protocol import EvalContext, Report
from nested_learning.evals.retrieval.config import NiahConfig, PasskeyConfig
from nested_learning.evals.retrieval.niah import NiahPack
from nested_learning.evals.runner import evaluate
from nested_learning.inference.config import MemoryConfig
from nested_learning.inference.session import Session
from nested_learning.nn.language_model import LanguageModel
from nested_learning.phase import eval as evaluation
from nested_learning.phase import train

DATA = NeedlesConfig()
MEMORIZE = memorize_policy(levels=["titan"])


def niah(tasks: list[str] | None = None, path: str | None = None, **given: Any) -> NiahPack:
    """Make a small pack."""
    values: dict[str, Any] = {"lengths": [400, 500], "depths": [0, 100], "num_examples": 2, "num_generated": 6}
    values |= {"digits": 3, "batch_size": 3} | given
    return NiahConfig(name="niah", tasks=tasks or ["niah_single_1"], path=path, **values).build(DATA)


def context_of(
    model: LanguageModel, tmp_path: Path, tokenizer: Tokenizer | None = None, policy: MemoryConfig | None = None
) -> EvalContext:
    """Ask `model`, of bytes unless a tokenizer is given."""
    return EvalContext(
        model=model,
        tokenizer=tokenizer or ByteTokenizer(),
        data=DATA,
        seed=0,
        policy=policy or MemoryConfig(name="online"),
        run=tmp_path,
    )


def recurrent() -> tuple[LanguageModel, Tokenizer]:
    """Make an untrained model of words with a memory."""
    words = all_words()
    return tiny(Path(), model="titans_lmm", data="parity").model.build(words.vocab_size, seed=1), words


def report_on(pack: NiahPack, ctx: EvalContext) -> Report:
    return evaluate(pack, ctx, ctx.run / "evals/draft.jsonl", {"policy": ctx.policy.name, "size": pack.batch_size})


def find_value(text: str) -> str | None:
    """Return the value of the key in the question."""
    key = re.search(r"What (?:is|are all) the special magic \w+ for ([\w-]+) mentioned", text)
    said = key and re.search(rf"for {key[1]} is: ([\w-]+)\.", text)
    return said[1] if said else None


READS_NUMBERS = answering("mentioned in the provided text is", find_value)


@pytest.mark.parametrize("sign, expected", [(1, 1.0), (-1, 0.0)], ids=["oracle", "anti-oracle"])
def test_a_model_that_knows_the_needle_is_always_right_and_one_that_avoids_it_never(
    sign: int, expected: float, tmp_path: Path
) -> None:
    pack = niah(["niah_single_1", "niah_multikey_2"])
    report = report_on(pack, context_of(Oracle(READS_NUMBERS, sign), tmp_path))
    for task in ("niah_single_1", "niah_multikey_2"):
        for name in ("accuracy", "exact"):
            for part in ("", "/400", "/500", "/400/0", "/400/100", "/500/0", "/500/100"):
                metric = report.metrics[f"{task}/{name}{part}"]
                assert metric.value == expected
                assert metric.chance == pytest.approx(1 / 9 if name == "accuracy" else 0)
                assert metric.n == {0: 8, 1: 4, 2: 2}[part.count("/")]
        # without the context it can only guess
        assert report.metrics[f"{task}/accuracy_no_context"].value < 0.6
        assert report.metrics[f"{task}/logprob"].value == pytest.approx(0, abs=1e-3) or sign < 0


def test_a_model_that_reads_the_passkey_retrieves_it(tmp_path: Path) -> None:
    def find(text: str) -> str | None:
        said = re.search(r"The pass key is (\d+)\. Remember", text)
        return said[1] if said else None

    pack = PasskeyConfig(
        name="passkey", lengths=[300], depths=[50], num_examples=3, num_generated=8, digits=5, batch_size=2
    ).build(DATA)
    report = report_on(pack, context_of(Oracle(answering("What is the pass key? The pass key is", find)), tmp_path))
    assert {name: report.metrics[name].value for name in ("accuracy", "exact")} == {"accuracy": 1.0, "exact": 1.0}
    assert set(report.grids) == {"accuracy", "exact", "logprob"}


def test_with_several_values_the_score_is_the_fraction_retrieved(tmp_path: Path) -> None:
    book = tmp_path / "book.txt"
    # all of it would be cut into sentences
    book.write_text(shared("text/gutenberg/pride_and_prejudice.txt").read_text()[:20000])
    rule = answering("mentioned in the provided text are", find_value)
    pack = niah(["niah_multivalue"], str(book), lengths=[700], num_generated=5)
    report = report_on(pack, context_of(Oracle(rule), tmp_path))
    # the oracle says one of four, the first in the text, which need not be the first of the answer
    assert report.metrics["niah_multivalue/exact"].value == 0.25
    assert [row["length"] for row in report.records] == [700] * 4


def test_heat_maps_are_written_cell_by_cell(tmp_path: Path) -> None:
    report = report_on(niah(), context_of(Oracle(READS_NUMBERS), tmp_path))
    write_report(tmp_path, "niah", report, {})
    with (tmp_path / "evals" / "niah.csv").open() as file:
        lines = list(csv.DictReader(file))
    cells = {
        (line["depth, %"], line["tokens"]): float(line["value"]) for line in lines if line["figure"].endswith("/exact")
    }
    assert cells == {(depth, length): 1.0 for depth in ("0", "100") for length in ("400", "500")}
    assert len(lines) == 3 * 4
    assert list(report.curves["niah_single_1/accuracy"]) == ["depth 0 %", "depth 100 %"]


@pytest.mark.parametrize("policy", [MemoryConfig(name="online"), MEMORIZE], ids=["online", "memorize"])
def test_answers_do_not_depend_on_the_batch(policy: MemoryConfig, tmp_path: Path) -> None:
    model, words = recurrent()
    first, second = (
        report_on(
            niah(lengths=[110, 130], num_examples=1, num_generated=3, batch_size=size),
            context_of(model, tmp_path, words, policy),
        ).records
        for size in (1, 3)
    )
    assert len(first) == 4
    for one, other in zip(first, second, strict=True):
        assert one["logprob"] == pytest.approx(other["logprob"], abs=1e-4)
        assert one["chosen"] == other["chosen"]
        assert ("memory/titan/writes" in one) == (policy is MEMORIZE) == ("right_no_context" not in one)


def test_the_memorized_text_ends_before_the_question(tmp_path: Path) -> None:
    read: list[str] = []

    class Watched(Session):
        def memorize(self, text: Any) -> Any:
            read.extend(self.text(text))
            return super().memorize(text)

    model, words = recurrent()
    ctx = context_of(model, tmp_path, words, MEMORIZE)
    pack = niah(lengths=[150])
    examples = pack.examples(ctx)[:3]
    session = Watched(model, words, batch=3, policy=MEMORIZE)
    pack.answer(session, examples)
    assert sorted(read) == sorted(words.decode(each.prompt.context) for each in examples)
    for text, example in zip(
        sorted(read, key=[*map(words.decode, (e.prompt.context for e in examples))].index), examples, strict=True
    ):
        assert text.count(example.prompt.values[0]) == 1
        assert "What is the special magic number" not in text


def test_a_context_that_does_not_fit_into_memory_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(memory_check, "free_bytes", lambda _: 10**6)
    full = tiny(Path(), model="transformer", data="parity").model.build(257, seed=0)
    with (
        torch.no_grad(),
        pytest.raises(ConfigError, match=r"evals\.niah\.lengths=500: .* use at most \d+ tokens") as error,
    ):
        niah().examples(context_of(full, tmp_path))
    most = int(re.findall(r"at most (\d+) tokens", str(error.value))[0])
    memory_check.require_memory(full, most, 3, "x")
    # keys and values of two layers, 16 wide, in single precision
    assert memory_check.bytes_per_token(full) == 2 * 2 * 16 * 4
    for name, given in (("transformer", {"model__window": 8}), ("titans_lmm", {})):
        model = tiny(Path(), model=name, data="parity", **given).model.build(257, seed=0)
        assert memory_check.bytes_per_token(model) == 0
        niah().examples(context_of(model, tmp_path))


def test_free_memory_is_positive_and_plausible() -> None:
    free = memory_check.free_bytes(torch.device("cpu"))
    assert free is None or 0 < free < 1 << 46


def test_models_and_data_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    model, words = recurrent()
    with pytest.raises(DataError, match=r"evals\.niah\.lengths: 60 tokens for niah_single_1, 6 of them for the answer"):
        niah(lengths=[60, 900]).examples(context_of(model, tmp_path, words))
    parity = ParityConfig()
    silent = EvalContext(
        model=model, tokenizer=None, data=parity, seed=0, policy=MemoryConfig(name="online"), run=tmp_path
    )
    with pytest.raises(ConfigError, match="evals=niah: a model of data=parity reads no text"):
        niah().examples(silent)


@pytest.mark.parametrize(
    "given, problem",
    [
        ({"tasks": ["niah_single_4"]}, r"evals\.niah\.tasks=niah_single_4: must be one of niah_single_1"),
        ({"depths": [101]}, r"evals\.niah\.depths=\[101\]: must be one or more numbers between 0 and 100"),
        ({"lengths": []}, r"evals\.niah\.lengths=\[\]: must be one or more"),
        ({"lengths": [5, 5]}, r"evals\.niah\.lengths=\[5, 5\]: must name each number once"),
        ({"digits": 1}, r"evals\.niah\.digits=1 must be at least 2"),
    ],
)
def test_invalid_options_are_refused(given: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        niah(**given)


def test_a_task_that_needs_books_requires_their_path(tmp_path: Path) -> None:
    for task in TASKS:
        if TASKS[task].haystack == "essay":
            with pytest.raises(DataError, match=rf"evals\.niah\.path is missing: the books of the haystack of {task}"):
                niah([task])
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(DataError, match="no text"):
        niah(["niah_single_2"], str(tmp_path / "empty.txt"))


def test_evaluating_a_run_writes_its_heat_map(tmp_path: Path) -> None:
    trained = train.run(tiny(tmp_path, data="needles", data__seq_len=110, data__min_length=100, name="a"))
    pack = {"lengths": [120], "depths": [0, 100], "num_examples": 1, "num_generated": 2}
    settings = {f"evals__niah__{key}": value for key, value in pack.items()}
    config = reading(trained.directory, "eval", device="cpu", evals="[niah]", **settings)
    result = evaluation.run(config)
    assert result.metrics["niah/niah_single_1/accuracy/120/100"] in (0.0, 1.0)
    written = {path.name for path in (tmp_path / "runs/a/evals").iterdir()}
    assert written == {"niah.json", "niah.jsonl", "niah.csv", "niah.png", "niah_map.png"}
