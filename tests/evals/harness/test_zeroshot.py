"""Zero-shot questions: the harness's own prompts and judgement, on files of one's own."""

import json
from pathlib import Path

import pytest
from oracle import Oracle
from shared import shared
from tiny import tiny

from nested_learning.command.main import main
from nested_learning.data.tokenizers.tokenizer import ByteTokenizer
from nested_learning.errors import ConfigError, DataError
from nested_learning.evals.files import differences
from nested_learning.evals.harness.config import ZeroShotConfig
from nested_learning.evals.harness.harness import Documents, aggregate_metric
from nested_learning.evals.harness.local_tasks import read_tasks, unmark
from nested_learning.evals.harness.zeroshot import ZeroShot
from nested_learning.evals.metrics import Metric, mean_of_means
from nested_learning.evals.protocol import EvalContext
from nested_learning.evals.runner import evaluate
from nested_learning.inference.config import MemorizeConfig, MemoryConfig
from nested_learning.phase.train import run

pytest.importorskip("lm_eval")

BYTES = ByteTokenizer()
TINY = tiny(Path(), model="titans_lmm", data="parity")
MODEL = TINY.model.build(257, seed=1).eval()
QUESTIONS = [
    {"query": "The tap ran, therefore", "choices": ["the glass filled.", "it was dry."], "gold": 0},
    {"query": "The tap ran dry, therefore", "choices": ["the glass filled.", "no one drank."], "gold": 1},
]


def ctx(tmp_path, model=MODEL, tokenizer=BYTES, policy="online"):
    how = MemoryConfig(name=policy)
    if policy == "memorize":
        how = MemorizeConfig(
            name=policy, steps=1, lr=1.0, chunk=8, surprise_threshold=None, surprise_metric="l2",
            levels=["titan"], layers=None, reset="per_example",
        )  # fmt: skip
    return EvalContext(model=model, tokenizer=tokenizer, data=TINY.data, seed=0, policy=how, run=tmp_path)


def write(folder, name, items):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("".join(json.dumps(item) + "\n" for item in items))
    return folder


def pack(folder, tasks=None, limit=None):
    return ZeroShot(folder, tasks, 4, limit, None)


def report_on(pack, ctx):
    (ctx.run / "draft.jsonl").unlink(missing_ok=True)
    return evaluate(pack, ctx, ctx.run / "draft.jsonl", {})


def said(text):
    return BYTES.decode(text.tolist())


def evaluate_oracle(tmp_path, tasks, limit, taste):
    folder = shared("icl/piqa.jsonl").parent
    examples = pack(folder, tasks, limit).examples(ctx(tmp_path))
    texts = []
    for each in examples:
        file = next(path for name in read_tasks("zeroshot")[each.task]["files"] if (path := folder / name).exists())
        item = json.loads(file.read_text().splitlines()[each.document])
        place = ({"gold": 0} | item)["gold"]
        texts.append(([BYTES.end, *each.request.contexts[place].tolist()], each.request.continuations[place].tolist()))
    return report_on(pack(folder, tasks, limit), ctx(tmp_path, Oracle(texts, taste)))


ORACLES = pytest.mark.parametrize(("taste", "right"), [(20.0, 1.0), (-20.0, 0.0)], ids=["oracle", "anti-oracle"])


@ORACLES
def test_a_model_that_knows_the_answers_is_always_right_and_one_that_avoids_them_never(tmp_path, taste, right):
    tasks = ["copa", "winogrande", "openbookqa", "lambada_openai"]
    report = evaluate_oracle(tmp_path, tasks, 4, taste)
    assert [report.metrics[f"{name}/acc"].value for name in tasks] == [right] * 4
    assert report.metrics["average-4"].value == right
    assert [report.metrics[f"{name}/acc"].chance for name in tasks] == [0.5, 0.5, 0.25, 0.0]
    assert len(report.records) == 16 and all(row["acc"] == right for row in report.records)


@pytest.mark.slow
@ORACLES
def test_the_same_holds_for_every_task(tmp_path, taste, right):
    report = evaluate_oracle(tmp_path, None, 20, taste)
    metrics = {name: metric.value for name, metric in report.metrics.items() if name.endswith("/acc")}
    assert len(metrics) == 10 and metrics == dict.fromkeys(metrics, right)


def test_prompts_equal_those_of_the_harness():
    folder = shared("icl/piqa.jsonl").parent
    requests = {each.task: each.request for each in pack(folder, None, 1).examples(ctx(Path()))}
    assert len(requests) == 10
    prompts = {task: said(question.contexts[0]) for task, question in requests.items()}
    assert prompts["piqa"].startswith("Question: How do I ready") and prompts["piqa"].endswith("occupants?\nAnswer:")
    assert prompts["boolq"].startswith("All biomass goes") and prompts["boolq"].endswith("?\nAnswer:")
    assert not any("[" in text for text in (prompts["hellaswag"], *map(said, requests["hellaswag"].continuations)))
    assert said(requests["boolq"].continuations[1]) == " yes"
    assert said(requests["lambada_openai"].continuations[0]) == " signs"
    schema = requests["winogrande"]
    assert len({said(context) for context in schema.contexts}) == 2 and len(set(map(said, schema.continuations))) == 1
    assert all(said(context).startswith(said(schema.memorized)) for context in schema.contexts)


def test_tasks_of_every_kind_are_evaluated_together(tmp_path):
    from lm_eval.api.task import ConfigurableTask

    documents = [{"text": "Q: so?\nA: yes", "question": "Q: so?\nA:", "answer": "yes"}] * 2

    def task(name, kind, target, **more):
        settings = {"task": name, "output_type": kind, "doc_to_text": "question", "doc_to_target": target}
        data = {"test_split": "test", "custom_dataset": lambda **_: {"test": Documents(documents)}}
        return ConfigurableTask(config=settings | data | more)

    until = {"until": ["\n"], "max_gen_toks": 8}
    exact = {"metric": "exact_match", "aggregation": "mean", "higher_is_better": True, "ignore_case": True}
    every = pack(tmp_path)
    every.tasks = {
        "roll": task("roll", "loglikelihood_rolling", "text"),
        "say": task("say", "generate_until", " {{answer}}", generation_kwargs=until, metric_list=[exact]),
        "last": task("last", "loglikelihood", " {{answer}}"),
    }
    known = [([BYTES.end], BYTES.encode("Q: so?\nA: yes\n").tolist())]
    report = report_on(every, ctx(tmp_path, Oracle(known)))
    metrics = {name: metric.value for name, metric in report.metrics.items()}
    assert metrics["roll/bits_per_byte"] < 1e-4 and metrics["roll/word_perplexity"] == pytest.approx(1, abs=1e-4)
    assert metrics["say/exact_match"] == metrics["last/acc"] == 1.0
    assert metrics["last/perplexity"] == pytest.approx(1, abs=1e-4) and len(report.records) == 6


def test_wikihow_markup_is_removed():
    item = {"query": "[header] How to sell [title] Create an account.", "choices": ["a  b [step] c"], "gold": 0}
    assert unmark(item) == {"query": " How to sell. Create an account.", "choices": ["a b c"], "gold": 0}


def test_memorizing_changes_the_answers_and_the_differences_are_paired(tmp_path):
    folder = write(tmp_path / "icl", "copa.jsonl", QUESTIONS * 3)
    online, memorized = (report_on(pack(folder), ctx(tmp_path, policy=name)) for name in ("online", "memorize"))
    assert [row["answer"] for row in online.records] != [row["answer"] for row in memorized.records]
    # contexts of 22 and 26 bytes and the token that opens them, 8 at a time
    assert memorized.metrics["memory/titan/writes"].value == 3.5
    assert differences(memorized, online)["copa/acc"].stderr is not None


def test_a_metric_that_is_not_a_mean_has_a_jackknifed_error():
    values = [0.0, 1.0, 2.0, 3.0]
    total = aggregate_metric(values, sum, "higher", None)
    assert isinstance(total, Metric) and (total.value, total.n) == (6.0, 4)
    # of a sum the jackknife gives (n - 1) / n * sum of squares of the values around their mean
    assert total.stderr == pytest.approx((3 / 4 * 5.0) ** 0.5)
    assert aggregate_metric(values, lambda each: sum(each) / len(each), "higher", None).metric().value == 1.5


def test_the_mean_over_tasks_has_the_error_within_tasks():
    mean = mean_of_means([[0.0, 1.0], [0.0, 0.0, 0.0, 0.0]], "higher").metric()
    # the variance of the first mean is 1/4 by n - 1, of the second 0; here over all n - 1
    assert mean.value == 0.25
    assert mean.stderr == pytest.approx((0.25 * 0.125 * 6 / 5) ** 0.5)


def test_a_checkpoint_of_another_tokenizer_answers_in_its_own_tokens(tmp_path):
    text = tmp_path / "book.txt"
    text.write_text("the tap ran, therefore the glass filled. " * 200)
    folder = write(tmp_path / "icl", "copa.jsonl", QUESTIONS)
    write(folder, "lambada_openai.jsonl", [{"context": "The glass was", "continuation": "filled"}])
    changes = {"data__tokenizer": "bpe", "data__vocab_size": 280, "data__path": text, "data__seq_len": 16}
    directory = run(tiny(tmp_path, model="titans_lmm", name="a", steps=1, **changes)).directory
    given = [f"checkpoint={directory}", "device=cpu", "evals=[zeroshot]", f"evals.zeroshot.path={folder}"]
    assert main(["phase=eval", "memory=memorize", *given]) == 0
    both = json.loads((directory / "evals" / "zeroshot_memorize.json").read_text())
    assert both["metrics"]["copa/acc"]["n"] == 2 and both["difference"]["copa/acc"]["stderr"] is not None
    assert both["baseline"]["average-2"]["chance"] == 0.25
    assert (directory / "evals" / "zeroshot.json").is_file()


def test_invalid_tasks_and_files_are_refused(tmp_path):
    options = dict(name="zeroshot", official=False, tasks=None, limit=None, max_length=None, batch_size=1)
    with pytest.raises(DataError, match=r"evals\.zeroshot\.path is missing"):
        ZeroShotConfig(path=None, **options).build(TINY.data)
    with pytest.raises(ConfigError, match="limit=0"):
        ZeroShotConfig(path=None, **(options | {"limit": 0}))
    with pytest.raises(ConfigError, match=r"tasks=\[\]"):
        ZeroShotConfig(path=None, **(options | {"tasks": []}))
    with pytest.raises(ConfigError, match=r"leave evals\.zeroshot\.path"):
        ZeroShotConfig(path="icl", **(options | {"official": True}))
    with pytest.raises(ConfigError, match="needs a model that reads text"):
        pack(tmp_path, ["copa"]).examples(ctx(tmp_path, tokenizer=None))
    with pytest.raises(DataError, match=r"has no copa\.jsonl"):
        pack(tmp_path, ["copa"]).examples(ctx(tmp_path))
    write(tmp_path / "icl", "copa.jsonl", [QUESTIONS[0], {"query": "x", "choices": "ab", "gold": 0}])
    with pytest.raises(DataError, match=r"copa\.jsonl, line 2: its choices must be a list of texts"):
        pack(tmp_path / "icl", ["copa"]).examples(ctx(tmp_path))


def test_a_file_of_tasks_of_ones_own_is_evaluated_by_its_prompts(tmp_path):
    folder = write(tmp_path / "mine", "taps.jsonl", QUESTIONS)
    mine = folder / "mine.yaml"
    mine.write_text('taps: {files: [taps.jsonl], keys: [query, choices, gold], doc_to_text: "{{query}} yes,"}\n')
    examples = pack(None, [str(mine)]).examples(ctx(tmp_path))
    assert [(each.task, each.document) for each in examples] == [("taps", 0), ("taps", 1)]
    assert said(examples[0].request.contexts[0]) == "The tap ran, therefore yes,"
    assert report_on(pack(None, [str(mine)]), ctx(tmp_path)).metrics["taps/acc"].n == 2
    for text, message in (
        ("taps: {files: [taps.jsonl], doc_to_text: query}", r"taps\.keys"),
        ("taps: {files: [taps.jsonl], keys: [query], doc_to_texts: query}", "lm-evaluation-harness refuses taps"),
        ("piqa: {files: [taps.jsonl], keys: [query], doc_to_text: query}", "there is another task piqa"),
    ):
        mine.write_text(text)
        with pytest.raises(ConfigError, match=message):
            pack(None, [str(mine)]).examples(ctx(tmp_path))


def test_every_local_task_names_its_file_and_its_metric():
    for name, task in read_tasks("zeroshot").items():
        assert task["files"] and task["keys"] and task["metric_list"], name
