"""The page of many runs: every number is that of a report, gathered over seeds, by what was asked and of whom."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from nested_learning.checkpoint import CONFIG, write_config
from nested_learning.report.__main__ import main
from nested_learning.report.evaluations import Subject, gather, read_answers, setting_of
from nested_learning.report.experiments import place_of
from nested_learning.report.sweep import mean_and_stderr


def figure(value: float, stderr: float | None = 0.1, chance: float | None = None) -> dict[str, Any]:
    return {"value": value, "stderr": stderr, "n": 8, "better": "higher", "chance": chance}


def write(run: Path, name: str, seed: int = 0, steps: int = 4, **report: Any) -> None:
    """Write a report of a run as `phase=eval` does, and the run's configuration."""
    (run / "evals").mkdir(parents=True, exist_ok=True)
    write_config(run, {"seed": seed, "steps": steps, "model": {"name": "hope", "dim": report.pop("dim", 8)}})
    about = {
        "pack": {"name": "recall", "gaps": [4, 8], "batch_size": 3},
        "data": "facts", "data_options": {"path": None, "name": "facts", "num_facts": 2}, "step": 4,
        "model": "hope", "seed": seed, "memory": "online", "policy": {"name": "online"}, "weights": "model",
    }  # fmt: skip
    (run / "evals" / f"{name}.json").write_text(json.dumps(about | report))


@pytest.mark.parametrize(
    ("place", "seed", "name"),
    [
        ("recall_hope_0", 0, "recall_hope"),
        ("sweep/seed-2_variant-on", 2, "sweep/variant-on"),
        ("sweep/variant-on_seed-2", 2, "sweep/variant-on"),
        ("a/hope_3", 1, "a/hope_3"),
        ("gap_32_3", 3, "gap_32"),
        ("7", 7, "7"),
    ],
)
def test_runs_that_differ_in_their_seed_have_one_name(place: str, seed: int, name: str) -> None:
    assert setting_of(place, {"seed": seed}) == name


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("bpb/32-128", ("bpb", ("32-128",))),
        ("accuracy/512/50", ("accuracy", ("512", "50"))),
        ("niah_single_1/accuracy/512/37.5", ("niah_single_1/accuracy", ("512", "37.5"))),
        ("bpb/3/prose", ("bpb/prose", ("3",))),
        ("piqa/acc", ("piqa/acc", ())),
        ("accuracy", ("accuracy", ())),
    ],
)
def test_numbers_in_the_name_of_a_figure_say_where_it_stands(name: str, place: tuple[str, tuple[str, ...]]) -> None:
    assert tuple(place_of(name)) == place


def test_figures_are_means_over_seeds_and_of_one_run_have_its_own_error(tmp_path: Path) -> None:
    for seed, value in enumerate((0.2, 0.4, 0.9)):
        write(tmp_path / f"hope_{seed}", "recall", seed, metrics={"accuracy": figure(value, chance=0.25)})
    write(tmp_path / "other_0", "recall", metrics={"accuracy": figure(0.7)})
    (question,) = gather(read_answers(tmp_path))
    hope, other = (question.found[Subject("hope", runs, "online")]["accuracy"] for runs in ("hope", "other"))
    assert (hope.value, hope.stderr) == pytest.approx(mean_and_stderr([0.2, 0.4, 0.9]))
    assert (hope.num_runs, hope.n, other.num_runs, other.stderr) == (3, 8, 1, 0.1)
    assert question.chances == {"accuracy": 0.25}


def test_what_was_asked_otherwise_or_of_others_stands_apart(tmp_path: Path) -> None:
    metrics = {"accuracy": figure(0.5)}
    write(tmp_path / "a_0", "recall", metrics=metrics)
    # another batch size is the same question, other gaps are not
    for name, pack in (("again", {"gaps": [4, 8], "batch_size": 9}), ("far", {"gaps": [64], "batch_size": 3})):
        write(tmp_path / "a_0", name, metrics=metrics, pack={"name": "recall"} | pack)
    write(tmp_path / "a_0", "frozen", metrics=metrics, memory="frozen", policy={"name": "frozen"})
    # of the same name, but another width
    write(tmp_path / "a_1", "recall", seed=1, dim=16, metrics=metrics)
    near, far = gather(read_answers(tmp_path))
    assert [[who.runs, who.policy] for who in near.found] == [["a", "online"], ["a", "frozen"], ["a (2)", "online"]]
    assert "gaps=[64]" in far.asked.words and list(far.found) == [Subject("hope", "a", "online")]


def test_memorizing_stands_beside_what_it_is_compared_with_in_bold_where_it_matters(tmp_path: Path) -> None:
    policy = {
        "name": "memorize",
        "steps": 5,
        "lr": 1.0,
        "surprise_threshold": 0.0123456,
        "chunk": 64,
        "levels": ["titan"],
    }
    write(
        tmp_path / "a_0", "recall_memorize", memory="memorize", policy=policy,
        metrics={"accuracy": figure(0.9), "nats": figure(2.0), "memory/titan/norm": figure(3.0)},
        baseline={"accuracy": figure(0.5), "nats": figure(2.1)},
        difference={"accuracy": figure(0.4), "nats": figure(-0.1)},
    )  # fmt: skip
    assert main([str(tmp_path), "--page", str(tmp_path / "page.md")]) == 0
    text = (tmp_path / "page.md").read_text()
    assert (
        "| hope | a | memorize steps=5 surprise_threshold=0.01235 levels=[titan] | 1 | 8 | 0.9 ± 0.1 | 2 ± 0.1 |"
        in text
    )
    assert "| hope | a | online | 1 | 8 | 0.5 ± 0.1 | 2.1 ± 0.1 |" in text
    assert (
        "| hope | a | memorize steps=5 surprise_threshold=0.01235 levels=[titan] | **+0.4 ± 0.1** | -0.1 ± 0.1 |"
        in text
    )
    assert "titan/norm" not in text


def test_figures_over_one_number_are_curves_and_over_two_are_heat_maps(tmp_path: Path) -> None:
    metrics = {f"accuracy/{length}": figure(1 / length) for length in (2, 4)}
    metrics |= {f"accuracy/{length}/{depth}": figure(0.5) for length in (2, 4) for depth in (0, 50)}
    write(tmp_path / "runs/a_0", "recall", metrics=metrics)
    page, figures = tmp_path / "docs/page.md", tmp_path / "reports/figures"
    assert main([str(tmp_path / "runs"), "--page", str(page), "--figures", str(figures)]) == 0
    text = page.read_text()
    assert "| accuracy | runs | memory | seeds | n | 2 | 4 |" in text and "| 0.5 ± 0.1 | 0.25 ± 0.1 |" in text
    shown = re.findall(r"\]\((.*)\)", text)
    assert {(page.parent / path).resolve() for path in shown} == {path.resolve() for path in figures.iterdir()}
    assert len(shown) == 2 and all(path.read_bytes().startswith(b"\x89PNG") for path in figures.iterdir())


def test_several_folders_are_one_page_and_paths_are_names(tmp_path: Path) -> None:
    for name in ("one", "two", "three"):
        metrics = {"accuracy": figure(0.5)}
        write(tmp_path / name / "a_0", "recall", metrics=metrics, data_options={"path": "/home/me/books/b.txt"})
    page = tmp_path / "page.md"
    assert main([str(tmp_path / "one"), str(tmp_path / "two"), "--page", str(page)]) == 0
    text = page.read_text()
    assert [line.split(" | ")[1] for line in text.splitlines() if line.startswith("| hope")] == ["one/a", "two/a"]
    assert "data.path=b.txt" in text and "/home" not in text


def test_a_folder_without_evaluations_is_answered_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "a", "recall", metrics={})
    (tmp_path / "a/evals/recall.json").write_text("[]")
    one = str(tmp_path / "a")
    for arguments in ([str(tmp_path)], [one, "--page", "x.md"], [one, one, "--to", "tensorboard"]):
        assert main(arguments) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert (tmp_path / "a" / CONFIG).exists()
