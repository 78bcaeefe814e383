"""The adapter answers every kind of request of lm-evaluation-harness as one forward pass does."""

import json
import random
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from oracle import Oracle
from tiny import tiny

from nested_learning.config.schema import to_yaml
from nested_learning.data.tokenizers.bpe import BpeTokenizer
from nested_learning.data.tokenizers.tokenizer import ByteTokenizer
from nested_learning.errors import CheckpointError, ConfigError, DataError
from nested_learning.evals.harness.lm import Encoder, by_document, lm_class
from nested_learning.evals.requests import loglikelihood
from nested_learning.inference.session import Session
from nested_learning.lm_eval import main, merge_arguments, read_batch_size, read_policy, register, set_defaults
from nested_learning.phase.train import run

pytest.importorskip("lm_eval")

BYTES = ByteTokenizer()
MODEL = tiny(Path(), model="titans_lmm", data="parity").model.build(257, seed=1).eval()
LETTERS = "ab cd  ñ木.\n"


def request(*args, task=None, document=None, number=0):
    return SimpleNamespace(args=args, task_name=task, doc_id=document, idx=number)


def lm(model=MODEL, policy="online", **options):
    return lm_class()(lambda rows: Session(model, BYTES, batch=rows, policy=policy), BYTES, **options)


def brute_force(context, continuation, max_length=None):
    """Return what lm-evaluation-harness wants to know, from one reading of all."""
    wanted = BYTES.encode(context + continuation)[len(BYTES.encode(context.rstrip())) :]
    before = BYTES.encode(context.rstrip())
    if max_length is not None:
        before = before[max(len(before) - max_length + len(wanted), 0) :]
    text = torch.tensor([[BYTES.end, *before, *wanted]])
    with torch.no_grad():
        logits, _ = MODEL(text[:, :-1], MODEL.init_state(1))
    last = logits[0, -len(wanted) :].log_softmax(-1)
    aim = torch.from_numpy(wanted)
    return last[torch.arange(len(aim)), aim].sum().item(), bool((last.argmax(-1) == aim).all())


def said(text):
    return BYTES.decode(text.tolist())


def random_pairs(number):
    pick = random.Random(0)
    word = lambda least: "".join(pick.choice(LETTERS) for _ in range(pick.randint(least, 30)))  # noqa: E731
    # the second of each pair shares the context of the first
    pairs = [("", word(1)), ("木 ab  ", word(1)), *((word(0), word(1)) for _ in range(number // 2 - 2))]
    return [pair for first in pairs for pair in (first, (first[0], word(1)))]


@pytest.mark.parametrize("max_length", [None, 64])
def test_loglikelihoods_equal_the_sums_of_one_forward_pass_at_any_batch_size(max_length):
    pairs = random_pairs(20 if max_length is None else 10)
    # longer continuations of a document leave less space for the context
    requests = [
        request(*pair, task="t", document=number // 2 if max_length is None else number)
        for number, pair in enumerate(pairs)
    ]
    results = lm(batch_size=4, max_length=max_length).loglikelihood(requests)
    expected = [brute_force(*pair, max_length) for pair in pairs]
    assert [each for each, _ in results] == pytest.approx([each for each, _ in expected], abs=1e-3)
    assert [greedy for _, greedy in results] == [greedy for _, greedy in expected]
    one_by_one = lm(batch_size=1, max_length=max_length).loglikelihood(requests)
    assert [each for each, _ in results] == pytest.approx([each for each, _ in one_by_one], abs=1e-4)


def test_rolling_loglikelihoods_cover_the_whole_text():
    texts = ["a b", "x" * 70, "ñ木"]
    results = lm().loglikelihood_rolling([request(text) for text in texts])
    assert results == pytest.approx([brute_force("", text)[0] for text in texts], abs=1e-3)


def test_requests_may_be_given_as_tokens():
    given = [(("", ""), [97, 98], [99]), (("", ""), [], [100, 101])]
    results = lm()._loglikelihood_tokens(given)
    assert [each for each, _ in results] == pytest.approx(
        [brute_force("ab", "c")[0], brute_force("", "de")[0]], abs=1e-4
    )


def test_generation_stops_at_the_stop_strings_of_the_task_and_is_greedy_by_default():
    text = "Q: colour?\nA: jade green.\n\nQ: next"
    model = lm(Oracle([([BYTES.end], BYTES.encode(text).tolist())]))
    requests = [
        request("Q: colour?\nA:", {"until": ["\n\n"]}),
        request("Q: colour?\nA:", {"until": " green", "max_gen_toks": 64, "do_sample": False, "temperature": 0.0}),
        request("Q: colour?\nA:", {"until": ["\n"], "max_gen_toks": 3}),
    ]
    assert model.generate_until(requests) == [" jade green.", " jade", " ja"]
    drawn = lm().generate_until([request("a", {"do_sample": True, "temperature": 1.0, "max_gen_toks": 8})])
    assert drawn != lm().generate_until([request("a", {"max_gen_toks": 8})])
    with pytest.raises(ConfigError, match="num_beams"):
        model.generate_until([request("a", {"num_beams": 4})])


def test_the_memorized_text_is_the_context_without_the_candidates():
    encoder = Encoder(BYTES)
    choices = encoder.to_loglikelihood([("Is it so? ", "yes"), ("Is it so? ", "no")])
    assert said(choices.memorized) == "Is it so?"
    assert [said(each) for each in choices.continuations] == [" yes", " no"]
    schema = encoder.to_loglikelihood([("then Samir", " left"), ("then Sally", " left")])
    assert said(schema.memorized) == "then"
    longest = Encoder(BYTES, max_length=8).to_loglikelihood([("the lantern", " jade"), ("the lantern", " x")])
    assert [said(each) for each in longest.contexts] == ["ern", "ern"]
    with pytest.raises(ConfigError, match="max_length=4"):
        Encoder(BYTES, max_length=4).to_loglikelihood([("the lantern", " jade")])


# merges that span words: "so an" + "d" is " and", "th" + "e" is one token
SPANNING = BpeTokenizer([("a", "n"), ("Ġ", "an"), ("Ġan", "d"), ("s", "o"), ("t", "h"), ("th", "e"), ("h", "e")])


@pytest.mark.parametrize(
    ("pairs", "contexts", "continuations"),
    [
        # all choices of a context are scored from the same place
        ([("so an", "d"), ("so an", "y")], ["so", "so"], [" and", " any"]),
        ([("th", "e")], [""], ["the"]),
        ([("so an ", "d")], ["so an"], [" d"]),
        ([("", "the")], [""], ["the"]),
        # each context has a place of its own
        ([("so an", "d"), ("the an", "x")], ["so", "the an"], [" and", "x"]),
    ],
)
def test_a_token_that_spans_the_end_of_a_context_is_scored(pairs, contexts, continuations):
    request = Encoder(SPANNING).to_loglikelihood(pairs)
    assert list(map(SPANNING.decode, request.contexts)) == contexts
    assert list(map(SPANNING.decode, request.continuations)) == continuations


def test_a_request_without_a_continuation_is_refused():
    for pair in (("so an", ""), ("", "")):
        with pytest.raises(ConfigError, match="nothing to score"):
            Encoder(SPANNING).to_loglikelihood([pair])
    with pytest.raises(DataError, match="no score"):
        lm()._loglikelihood_tokens([(("a", ""), [97], [])])
    assert lm().loglikelihood_rolling([request("")]) == [0.0]


def test_requests_are_grouped_by_document():
    requests = [request(task="a", document=number) for number in (0, 0, 1)] + [request(task="b", document=1)]
    assert [len(group) for group in by_document([*requests, request(), request()])] == [2, 1, 1, 1, 1]


def test_the_cache_of_the_harness_is_refused_for_other_memory_policies():
    lm(policy="online").set_cache_hook(None)
    with pytest.raises(ConfigError, match="--use_cache"):
        lm(policy="frozen").set_cache_hook(None)


def test_the_memory_policy_has_the_option_names_of_train_py(tmp_path):
    (tmp_path / "config.yaml").write_text(to_yaml(tiny(tmp_path)))
    assert read_policy(str(tmp_path), {}).name == "online"
    policy = read_policy(
        str(tmp_path), {"memory": "memorize", "memory.steps": 2, "memory.levels": ["titan"], "memory.layers": None}
    )
    assert (policy.name, policy.steps, policy.levels) == ("memorize", 2, ["titan"])
    with pytest.raises(ConfigError, match="pretrained"):
        read_policy(str(tmp_path), {"pretrained": "gpt2"})
    assert read_batch_size("4") == 4
    for size in ("auto", 1.5, 0, -1, "²"):
        with pytest.raises(ConfigError, match=f"--batch_size={size}: give a number"):
            read_batch_size(size)


def test_arguments_of_the_model_and_flags_of_the_harness_are_one_set():
    # what the harness passes where no flag is given
    flags = {"device": "auto", "batch_size": 1, "max_batch_size": None}
    assert merge_arguments({"checkpoint": "a"}, flags) == {"checkpoint": "a", "device": "auto", "batch_size": 1}
    assert merge_arguments({"device": "cpu", "batch_size": 2}, flags) == {"device": "cpu", "batch_size": 2}
    assert merge_arguments({"device": "cpu"}, {"device": "cpu"}) == {"device": "cpu"}
    with pytest.raises(ConfigError, match="device=cuda:1, but --device cpu; give one"):
        merge_arguments({"device": "cuda:1"}, flags | {"device": "cpu"})


def test_without_model_and_device_the_harness_evaluates_this_project_on_the_best_device(tmp_path):
    def defaults(**given):
        options = Namespace(**({"config": None, "model": None, "device": None} | given))
        set_defaults(options)
        return options.model, options.device

    file = tmp_path / "a.yaml"
    file.write_text("model: nested\ndevice: cuda:1\n")
    assert defaults() == ("nested", "auto") and defaults(device="cpu") == ("nested", "cpu")
    assert defaults(config=str(file)) == ("nested", "cuda:1")
    assert defaults(config=str(file), device="cpu") == ("nested", "cpu")
    with pytest.raises(ConfigError, match="--model hf: this command evaluates nested only"):
        defaults(model="hf")


def test_bad_arguments_of_the_model_are_refused_before_it_is_opened(tmp_path):
    (tmp_path / "config.yaml").write_text(to_yaml(tiny(tmp_path)))
    for arguments, message in (
        ({}, "give checkpoint="),
        ({"weights": "best"}, "weights=best: no such weights"),
        ({"max_length": 1.5}, "max_length=1.5: give a number of tokens"),
        ({"dtype": "float16"}, "no argument dtype; allowed"),
        ({"memory.steps": "many"}, "memory.steps"),
    ):
        checkpoint = {"checkpoint": str(tmp_path)} if arguments else {}
        with pytest.raises(ConfigError, match=message):
            register().create_from_arg_obj(checkpoint | arguments)
    with pytest.raises(CheckpointError):
        register().create_from_arg_string(f"checkpoint={tmp_path},device=cpu", {"device": "auto", "batch_size": 1})


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["run", "--config", "none.yaml"], "cannot load a file .*none.yaml"),
        (["--tasks", "so", "--log_samples"], "lm-evaluation-harness: Specify --output_path"),
    ],
)
def test_what_the_harness_refuses_is_one_line(arguments, message):
    with pytest.raises(ConfigError, match=message):
        main(arguments)


def test_an_error_inside_the_harness_names_the_line_that_raised_it_and_one_of_this_project_stays_as_it_is(monkeypatch):
    from lm_eval._cli.run import Run
    from lm_eval.config.task import TaskConfig

    def execute(action):
        monkeypatch.setattr(Run, "_execute", staticmethod(lambda given: action()))
        main(["--tasks", "so"])

    with pytest.raises(ConfigError, match=r"TypeError: float\(\) .*NoneType.*temperature"):
        execute(lambda: TaskConfig(task="so", output_type="generate_until", generation_kwargs={"temperature": None}))
    with pytest.raises(ValueError, match="max_gen_toks"):
        execute(lambda: ByteTokenizer().decode(["max_gen_toks"]))


@pytest.mark.slow
def test_the_command_line_of_the_harness_evaluates_a_checkpoint(tmp_path):
    directory = run(tiny(tmp_path, model="titans_lmm", name="a")).directory
    (tmp_path / "q.jsonl").write_text('{"query": "Is it so?", "choices": ["no", "yes, it is"], "gold": 1}\n' * 3)
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "so.yaml").write_text(
        "task: so\ndataset_path: json\noutput_type: multiple_choice\ntest_split: test\ndoc_to_text: query\n"
        f"doc_to_target: gold\ndoc_to_choice: choices\ndataset_kwargs: {{data_files: {{test: {tmp_path}/q.jsonl}}}}\n"
        "metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]\n"
    )
    args = f"checkpoint={directory},memory=memorize,memory.steps=2,device=cpu"
    arguments = ["--model_args", args, "--tasks", "so", "--batch_size", "2"]
    out = ["--include_path", str(tmp_path / "tasks"), "--output_path", str(tmp_path / "out"), "--log_samples"]
    assert main([*arguments, *out]) == 0
    (samples,) = (tmp_path / "out").rglob("samples_so*.jsonl")
    lines = [json.loads(line) for line in samples.read_text().splitlines()]
    policy = read_policy(str(directory), {"memory": "memorize", "memory.steps": 2})
    session = Session.open(directory, device="cpu", policy=policy)
    ((scores, _),) = loglikelihood(
        session, [Encoder(BYTES).to_loglikelihood([("Is it so?", " no"), ("Is it so?", " yes, it is")])]
    )
    results = [float(response[0][0]) for response in lines[0]["resps"]]
    assert len(lines) == 3 and results == pytest.approx([-float(score.nats.sum()) for score in scores], rel=1e-4)
