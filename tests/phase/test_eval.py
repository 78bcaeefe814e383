"""`phase=eval` on a run that was really trained: reports in the run directory, errors in one line."""

import json
import shlex

import pytest

from nested_learning.command import main as command
from nested_learning.command.main import main
from nested_learning.evals.language.validation import ValidationPack

TINY = [
    "model=titans_lmm",
    "model.dim=16",
    "model.num_layers=1",
    "model.num_heads=2",
    "data.seq_len=32",
    "data.batch_size=2",
    "data.val_rows=4",
    "device=cpu",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Train a tiny run for two steps."""
    folder = tmp_path_factory.mktemp("eval")
    text = folder / "book.txt"
    text.write_text("".join(f"{number} green bottles hanging on the wall\n" for number in range(300)))
    data = ["data=text", f"data.path={text}"]
    assert main([*TINY, *data, "steps=2", "seed=3", f"out={folder}", "name=tiny"]) == 0
    return folder / "tiny"


def report(run, name="validation"):
    return json.loads((run / "evals" / f"{name}.json").read_text())


def test_the_metrics_are_those_of_the_last_validation_of_training(run, capsys):
    assert main(["phase=eval", f"checkpoint={run}", "device=cpu"]) == 0
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    found = report(run)
    assert found["metrics"]["bpb"]["value"] == pytest.approx(last["val/bpb"], rel=1e-5)
    assert (found["step"], found["data"], found["seed"], found["memory"]) == (2, "text", 3, "online")
    out = capsys.readouterr().out
    assert "bpb" in out and str(run / "evals" / "validation.json") in out.replace("\n", "")


def test_an_interrupted_evaluation_keeps_the_answers_of_all_its_packs(run, capsys, monkeypatch):
    answer, batches = ValidationPack.answer, []

    def interrupted(self, session, examples):
        if batches:
            raise KeyboardInterrupt
        batches.append(examples)
        return answer(self, session, examples)

    packs = "evals=[perplexity,validation]"
    command = ["phase=eval", f"checkpoint={run}", packs, "evals.perplexity.num_texts=2", "device=cpu", "name=stop"]
    monkeypatch.setattr("sys.argv", ["train.py", *command])
    monkeypatch.setattr(ValidationPack, "answer", interrupted)
    assert main(command) == 130
    said = capsys.readouterr().err
    assert f"the answers so far are kept in {run / 'evals'}; resume with: " in said and said.count("\n") == 1
    assert shlex.split(said)[-len(command) :] == command
    monkeypatch.setattr(ValidationPack, "answer", answer)
    assert main(command) == 0
    resumed = capsys.readouterr().out
    assert "resuming after 2 of 2 examples" in resumed and "resuming after 2 of 4 examples" in resumed
    assert not list((run / "evals").glob(".*.draft.jsonl"))


def test_any_step_directory_can_be_evaluated_by_several_packs(run):
    step = run / "checkpoints" / "step_00000002"
    packs = "evals=[validation,perplexity]"
    assert main(["phase=eval", f"checkpoint={step}", packs, "evals.perplexity.num_texts=2", "device=cpu"]) == 0
    assert "loss/32-128" in report(run, "perplexity")["metrics"]


def test_frozen_memories_are_reported_under_a_name_of_their_own(run):
    assert main(["phase=eval", f"checkpoint={run}", "memory=frozen", "device=cpu"]) == 0
    assert report(run, "validation_frozen")["memory"] == "frozen"


def test_the_command_line_can_choose_more_rows_or_other_text(run, tmp_path):
    assert main(["phase=eval", f"checkpoint={run}", "data.val_rows=2", "device=cpu"]) == 0
    assert report(run)["metrics"]["loss"]["n"] == 2
    other = tmp_path / "other.txt"
    other.write_text("zebra crossing " * 200)
    settings = ["data=text", f"data.path={other}", "data.seq_len=32", "data.val_rows=3", "data.batch_size=2"]
    assert main(["phase=eval", f"checkpoint={run}", *settings, "device=cpu"]) == 0
    assert report(run)["metrics"]["loss"]["n"] == 3


def test_memorize_reports_both_policies_and_their_difference(run, capsys):
    options = ["memory=memorize", "memory.chunk=8", "memory.lr=0.1"]
    assert main(["phase=eval", f"checkpoint={run}", *options, "device=cpu"]) == 0
    online, memorize = report(run), report(run, "validation_memorize")
    assert memorize["baseline"] == online["metrics"] and online["memory"] == "online"
    for name, metric in memorize["difference"].items():
        assert metric["value"] == pytest.approx(memorize["metrics"][name]["value"] - online["metrics"][name]["value"])
    assert memorize["difference"]["loss"]["value"] != 0 and memorize["difference"]["loss"]["stderr"] > 0
    assert memorize["metrics"]["memory/mlp/writes"]["value"] == 32 / 8
    assert memorize["policy"]["lr"] == 0.1 and memorize["parameters_sha256"] == memorize["parameters_sha256_after"]
    assert "validation_memorize" in capsys.readouterr().out
    assert main(["phase=eval", f"checkpoint={run}", *options, "memory.surprise_threshold=inf", "device=cpu"]) == 0
    assert report(run, "validation_memorize")["policy"]["surprise_threshold"] == "inf"
    assert [path.name for path in (run / "evals").glob(".*")] == []


def test_an_interruption_loses_no_answer_of_either_policy(run, monkeypatch):
    options = ["phase=eval", f"checkpoint={run}", "memory=memorize", "memory.chunk=8", "name=stopped", "device=cpu"]
    answer, policies = ValidationPack.answer, []

    def stopping(pack, session, examples):
        policies.append(session.policy.name)
        if policies == ["online", "online", "memorize", "memorize"]:
            raise KeyboardInterrupt
        return answer(pack, session, examples)

    monkeypatch.setattr(ValidationPack, "answer", stopping)
    assert main(options) == 130
    assert main(options) == 0
    assert policies[4:] == ["memorize"]
    assert list((run / "evals").glob(".*")) == []


@pytest.mark.parametrize("without", ["memory.lr=0", "memory.surprise_threshold=1e9"])
def test_memorize_without_a_write_is_online(run, without):
    assert main(["phase=eval", f"checkpoint={run}", "memory=memorize", without, "device=cpu"]) == 0
    memorize = report(run, "validation_memorize")
    assert memorize["metrics"]["memory/mlp/writes"]["value"] == 0 == memorize["metrics"]["memory/mlp/norm"]["value"]
    assert memorize["metrics"]["loss"]["value"] == pytest.approx(memorize["baseline"]["loss"]["value"], rel=1e-6)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ("evals=[validation,recall]", "evals=recall: the checkpoint was trained on data=text"),
        ("evals=[validation,mad]", "evals=mad: the checkpoint was trained on data=text"),
        ("evals=[validation,formal]", "evals=formal: the checkpoint was trained on data=text"),
        ("evals=[validation,continual]", "evals=continual: the checkpoint was trained on data=text"),
        ("evals=[validation,continual_memory]", "evals=continual_memory: the checkpoint was trained on data=text"),
        ("evals=[validation,class_incremental]", "evals=class_incremental: the checkpoint was trained on data=text"),
        ("evals=[validation,perplexity] evals.perplexity.path=gone", "evals.perplexity.path=gone: no such file"),
        ("evals=[validation,zeroshot] evals.zeroshot.path=gone", "evals.zeroshot.path=gone: no such file"),
        ("evals=[validation,core]", "evals.core.path is missing"),
        ("evals=[validation,translation]", "evals.translation.path is missing"),
        ("evals=[validation,niah] evals.niah.path=gone evals.niah.tasks=[niah_single_2]", "evals.niah.path=gone: no s"),
        ("evals=[validation,babilong] evals.babilong.path=gone", "evals.babilong.path=gone: no such file"),
        ("evals=[perplexity,validation] data.path=gone", "data.path=gone: no such file"),
        ("memory=memorize memory.levels=[tittan]", "this model has no level tittan; did you mean titan?"),
        ("memory=memorize memory.layers=[0,7]", "there is no layer 7, they are 0 to 0"),
    ],
)
def test_every_pack_is_checked_before_torch_is_loaded(run, capsys, monkeypatch, given, problem):
    monkeypatch.setattr(command, "import_module", None)
    assert main(["phase=eval", f"checkpoint={run}", *given.split(), "name=checked", "device=cpu"]) == 2
    assert problem in capsys.readouterr().err


def test_what_only_the_model_can_say_is_found_before_the_first_pack_runs(run, capsys, tmp_path):
    (tmp_path / "lines.jsonl").write_text("no json\n")
    packs = f"evals=[needle,translation] evals.translation.path={tmp_path}/lines.jsonl"
    for given, problem in (
        (packs, "lines.jsonl, line 1: not JSON"),
        (
            "evals=[needle,validation] memory=memorize memory.levels=[titan]",
            "a plain forward pass already updates these",
        ),
    ):
        assert main(["phase=eval", f"checkpoint={run}", *given.split(), "name=checked", "device=cpu"]) == 2
        assert problem in capsys.readouterr().err
    assert not list((run / "evals").glob("*checked*"))


def test_a_sweep_of_evaluations_writes_a_report_of_each(run):
    swept = ["memory=memorize", "memory.chunk=8", "memory.lr=0.1,0.2"]
    assert main(["-m", "phase=eval", f"checkpoint={run}", *swept, "device=cpu"]) == 0
    names = [f"validation_memorize_memory.lr-{lr}" for lr in ("0.1", "0.2")]
    losses = [report(run, name)["metrics"]["loss"]["value"] for name in names]
    assert losses[0] != losses[1]
    assert all(
        report(run, name)["baseline"] == report(run, f"validation_memory.lr-{lr}")["metrics"]
        for name, lr in zip(names, ("0.1", "0.2"), strict=True)
    )


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (["checkpoint=RUN", "memory=memorize", "memory.levels=[titan,fast]"], "allowed: titan, mlp, all"),
        (["checkpoint=RUN", "memory=memorize", "memory.levels=[titan]"], "use memory.levels=[all]"),
        (["checkpoint=RUN", "memory=memorize", "memory.layers=[3]"], "they are 0 to 0"),
        (["checkpoint=RUN", "memory=memorize", "memory.steps=0"], "memory.steps=1"),
        (["checkpoint=RUN", "memory=memorize", "memory.surprise_metric=l1"], "l2, loss, entropy"),
        (["checkpoint=RUN", "memory=online", "memory.lr=1"], "memory.lr"),
        (["checkpoint=no/such/run"], "no/such/run"),
        ([], "checkpoint="),
        (["checkpoint=RUN", "evals=[]"], "evals=validation"),
        (["checkpoint=RUN", "model.dim=32"], "leave out model="),
        (["checkpoint=RUN", "data=recall"], "data=recall"),
        (["checkpoint=RUN", "data.rows=3"], "data.rows"),
    ],
)
def test_an_error_is_one_line_and_exit_status_2(run, settings, problem, capsys):
    assert main(["phase=eval", "device=cpu", *(line.replace("RUN", str(run)) for line in settings)]) == 2
    error = capsys.readouterr().err
    assert problem in error and error.count("\n") == 1


def test_phases_that_do_not_memorize_refuse_memory_memorize(run, capsys):
    assert main(["phase=sample", f"checkpoint={run}", "memory=memorize", "device=cpu"]) == 2
    assert "use memory=online" in capsys.readouterr().err


def test_a_damaged_checkpoint_is_refused(run, capsys):
    model = run / "checkpoints" / "step_00000002" / "model.safetensors"
    whole = model.read_bytes()
    model.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    try:
        assert main(["phase=eval", f"checkpoint={run}", "device=cpu"]) == 2
    finally:
        model.write_bytes(whole)
    assert "model.safetensors" in capsys.readouterr().err
