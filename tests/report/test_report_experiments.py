"""The page of many runs: every number comes from a report, averaged over seeds, by task and by model."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from matplotlib.image import imread

from nested_learning.checkpoint import CONFIG, write_config
from nested_learning.report.__main__ import main
from nested_learning.report.evaluations import EvaluatedModel, gather, read_reports, run_name_of
from nested_learning.report.experiments import families, maps_of, model_curves, split_numbers
from nested_learning.report.plots import plot_maps
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
    assert run_name_of(place, {"seed": seed}) == name


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
def test_numbers_are_separated_from_the_name_of_a_metric(name: str, place: tuple[str, tuple[str, ...]]) -> None:
    assert tuple(split_numbers(name)) == place


def test_metrics_are_means_over_seeds_and_of_one_run_have_its_own_error(tmp_path: Path) -> None:
    for seed, value in enumerate((0.2, 0.4, 0.9)):
        write(tmp_path / f"hope_{seed}", "recall", seed, metrics={"accuracy": figure(value, chance=0.25)})
    write(tmp_path / "other_0", "recall", metrics={"accuracy": figure(0.7)})
    (results,) = gather(read_reports(tmp_path))
    hope, other = (results.points[EvaluatedModel("hope", runs, "online")]["accuracy"] for runs in ("hope", "other"))
    assert (hope.value, hope.stderr) == pytest.approx(mean_and_stderr([0.2, 0.4, 0.9]))
    assert (hope.num_runs, hope.n, other.num_runs, other.stderr) == (3, 8, 1, 0.1)
    assert results.chances == {"accuracy": 0.25}


def test_a_run_without_a_metric_counts_neither_for_its_error_nor_for_its_number_of_runs(tmp_path: Path) -> None:
    values = {0: {"bpb": 3.0}, 1: {"bpb": 1.0, "accuracy": 0.2}, 2: {"bpb": 2.0, "accuracy": 0.4}}
    for seed, metrics in values.items():
        write(tmp_path / f"hope_{seed}", "recall", seed, metrics={name: figure(v) for name, v in metrics.items()})
    write(tmp_path / "hope_3", "recall", 3, metrics={"bpb": figure(6.0), "exact": figure(0.7, stderr=0.05)})
    (results,) = gather(read_reports(tmp_path))
    (points,) = results.points.values()
    assert (points["bpb"].value, points["bpb"].num_runs) == (3.0, 4)
    assert (points["accuracy"].value, points["accuracy"].stderr) == pytest.approx(mean_and_stderr([0.2, 0.4]))
    assert points["accuracy"].num_runs == 2
    # only one run has it: the error over its examples
    assert (points["exact"].stderr, points["exact"].num_runs) == (0.05, 1)
    assert all(point.all_runs == 4 for point in points.values())


def test_a_mean_that_some_runs_lack_says_so_and_is_not_drawn(tmp_path: Path) -> None:
    for seed in range(3):
        bpb = figure(2.0 + seed) if seed else figure(2.0) | {"value": None}
        metrics = {"bpb": bpb, "accuracy": figure(0.5)} | {f"accuracy/{at}": figure(0.5) for at in (2, 4)}
        metrics |= {f"accuracy/{at}/50": figure(0.5) for at in (2, 4)[: 1 + bool(seed)]}
        gain = {} if seed == 2 else {"accuracy": figure(0.25)}
        write(tmp_path / f"hope_{seed}", "recall", seed, metrics=metrics, difference=gain)
    write(tmp_path / "hope_3", "recall", 3, metrics={"accuracy/2": figure(0.5), "nats": figure(2.0) | {"value": None}})
    assert main([str(tmp_path), "--page", str(tmp_path / "page.md")]) == 0
    text = (tmp_path / "page.md").read_text()
    assert (
        "| hope | hope | online | 4 | 8 | 3.5 ± 0.5 (2 of 4 runs) | 0.5 ± 0 (3 of 4 runs) | nan (0 of 4 runs) |" in text
    )
    assert "| hope | hope | online | **+0.25 ± 0** (2 of 4 runs) |" in text
    assert "| hope | hope | online | 4 | 8 | 0.5 ± 0 | 0.5 ± 0 (3 of 4 runs) |" in text
    (results,) = gather(read_reports(tmp_path))
    names = {name: split_numbers(name) for points in results.points.values() for name in points}
    (line,) = model_curves(results.points, families(names, 1)["accuracy"]).values()
    assert line == [(2.0, 0.5, 0.0)]
    assert maps_of(results, families(names, 2)["accuracy"]) == {}


def test_no_gain_of_memorizing_is_left_out(tmp_path: Path) -> None:
    gains = {f"task{letter}/acc": figure(0.5) for letter in "abcdefghij"}
    policy = {"name": "memorize"}
    write(tmp_path / "a_0", "recall", memory="memorize", policy=policy, metrics=gains, difference=gains)
    assert main([str(tmp_path), "--page", str(tmp_path / "page.md")]) == 0
    _, _, shown = (tmp_path / "page.md").read_text().partition("memorize - online")
    assert all(name in shown for name in gains)


def test_the_rows_of_a_heat_map_are_sorted_and_the_first_is_drawn_on_top(tmp_path: Path) -> None:
    metrics = {
        f"accuracy/{length}/{depth}": figure(1.0 if depth == 0 else 0.0) for depth in (50, 0) for length in (4, 2)
    }
    metrics["accuracy/4/50"] = figure(0.5)
    write(tmp_path / "a_0", "recall", metrics=metrics)
    (results,) = gather(read_reports(tmp_path))
    (grid,) = maps_of(results, families({name: split_numbers(name) for name in metrics}, 2)["accuracy"]).values()
    assert (grid.columns, grid.rows, grid.values) == (["2", "4"], ["0", "50"], [[1.0, 1.0], [0.0, 0.5]])
    plot_maps(tmp_path / "map.png", {"a": grid})
    image = imread(tmp_path / "map.png")
    # viridis ends in yellow, for 1, and begins in dark purple, for 0
    yellow, purple = (
        abs(image[..., :3] - colour).max(-1) < 0.02 for colour in ((0.993, 0.906, 0.144), (0.267, 0.005, 0.329))
    )
    # left half: the colour bar on the right has both colours
    rows_of = [mask[:, : image.shape[1] // 2].any(1).nonzero()[0] for mask in (yellow, purple)]
    assert rows_of[0].max() <= rows_of[1].min()


def test_different_tasks_policies_and_configurations_have_separate_rows(tmp_path: Path) -> None:
    metrics = {"accuracy": figure(0.5)}
    write(tmp_path / "a_0", "recall", metrics=metrics)
    # another batch size is the same task, other gaps are not
    for name, pack in (("again", {"gaps": [4, 8], "batch_size": 9}), ("far", {"gaps": [64], "batch_size": 3})):
        write(tmp_path / "a_0", name, metrics=metrics, pack={"name": "recall"} | pack)
    write(tmp_path / "a_0", "frozen", metrics=metrics, memory="frozen", policy={"name": "frozen"})
    # of the same name, but another width
    write(tmp_path / "a_1", "recall", seed=1, dim=16, metrics=metrics)
    near, far = gather(read_reports(tmp_path))
    assert [[model.runs, model.policy] for model in near.points] == [
        ["a", "online"],
        ["a", "frozen"],
        ["a (2)", "online"],
    ]
    assert "gaps=[64]" in far.task.overrides and list(far.points) == [EvaluatedModel("hope", "a", "online")]


def test_memorizing_is_shown_with_its_baseline_and_its_gain_is_bold_beyond_errors(tmp_path: Path) -> None:
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


def test_metrics_over_one_number_are_curves_and_over_two_are_heat_maps(tmp_path: Path) -> None:
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
