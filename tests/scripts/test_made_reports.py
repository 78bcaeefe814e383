"""Reports that are made of runs: what they say is what the runs found, and a judgement has its reason in them."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nested_learning.checkpoint import write_config
from scripts.experiments.ablations import report as ablations
from scripts.experiments.stability import report as journal
from scripts.experiments.stability import trials as stability

ROOT = Path(__file__).parents[2]


def write_run(run: Path, loss: float, *, seed: int = 0, diverged: bool = False) -> None:
    """Write what a run leaves behind, as far as reports read it."""
    run.mkdir(parents=True)
    write_config(run, {"seed": seed, "steps": 4, "data": {"name": "stdlib", "batch_size": 8}})
    (run / "environment.json").write_text(json.dumps({"git": {"commit": "0123456789ab", "diff": ""}}))
    lines = [{"tokens": tokens, "val/bpb": loss, "optim/grad_norm": float(tokens)} for tokens in (1, 2)]
    (run / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    if diverged:
        (run / "incident.md").write_text("nan")
        return
    final = {"val/loss": loss, "val/bpb": loss, "val/accuracy": 0.5}
    about = {"final": final, "cpu_seconds": 30.0, "parameters": 1234, "data_order": f"seed {seed}"}
    (run / "summary.json").write_text(json.dumps(about))


def write_answer(run: Path, pack: str, figures: dict[str, float], **more: Any) -> None:
    (run / "evals").mkdir(exist_ok=True)
    metrics = {name: {"value": value} for name, value in figures.items()}
    (run / "evals" / f"{pack}.json").write_text(json.dumps({"metrics": metrics} | more))


def test_the_report_on_ablations_has_means_over_seeds_and_marks_significant_differences(tmp_path: Path) -> None:
    folder = tmp_path / "runs/attention"
    rows = ["run,seed,variant,val/loss,val/bpb,data_order"]
    for seed in range(3):
        for variant, loss in (("full", 3.0), ("window", 2.0 + 0.01 * seed), ("delta_rule", 3.0 + 0.5 * (seed - 1))):
            name = f"seed-{seed}_variant-{variant}"
            write_run(folder / name, loss, seed=seed)
            rows.append(f"{name},{seed},{variant},{loss},{loss},x")
    write_answer(folder / "seed-0_variant-full", "perplexity", {"bpb/128-256": 3.5, "bpb/512-1024": 6.25})
    (folder / "results.csv").write_text("\n".join(rows))
    page = ablations.write_ablations(tmp_path / "runs", tmp_path / "reports/ablations.md", tmp_path / "reports/figures")
    text = page.read_text()
    assert "| full | 1,234 | 3.0000 ± 0.0000 | 3.5000 (1 of 3 runs) | 6.2500 (1 of 3 runs) | 3 | 30 ± 0 |" in text
    assert "| window | 1,234 | 2.0100 ± 0.0058 | - | - | 3 | 30 ± 0 |" in text
    (apart,) = [line for line in text.splitlines() if "**apart**" in line]
    assert apart.startswith("- full - window: +0.9900 [")
    assert "Commit 012345678; seeds 0, 1, 2; 9 runs" in text and "python train.py -m sweep=attention" in text
    assert "Not run yet: `self_modifying`" in text and (tmp_path / "reports/figures/ablations_attention.png").exists()


def test_every_ablation_is_a_sweep_that_composes() -> None:
    from nested_learning.command.compose import make_jobs
    from nested_learning.config.option_files import open_option_files

    files = open_option_files(None)
    assert {each.sweep for each in ablations.ABLATIONS} == set(files.options("sweep")) - {"models"}
    for each in ablations.ABLATIONS:
        assert each.command == " ".join(each.command.split())
        # the others are composed where all sweeps are
        if each.overrides:
            assert len(make_jobs(files, [f"sweep={each.sweep}", *each.overrides.split(), "seed=0"])) > 1


def test_the_journal_calls_harmful_a_setting_that_diverges_or_ends_above_its_remedy(tmp_path: Path) -> None:
    (rate,) = [case for case in stability.CASES if case.name == "rate"]
    losses = {0: (2.0, 2.1), 1: (2.0, 2.12), 2: (2.5, 2.6)}
    for number, of_seeds in losses.items():
        for seed, loss in enumerate(of_seeds):
            write_run(tmp_path / f"rate_{number}_{seed}", loss, seed=seed)
            (tmp_path / f"rate_{number}_{seed}.json").write_text('{"train": 0}')
    write_run(tmp_path / "rate_3_0", 0.0, diverged=True)
    (tmp_path / "rate_3_0.json").write_text('{"train": 2}')
    text = journal.write_journal([rate], tmp_path, tmp_path / "journal.md").read_text()
    assert "| max_rate=0.1 | 0 of 2 | 2.05 ± 0.05 | 2 ± 0 |" in text and "| max_rate=6.4 | 1 of 1 | - | 2 |" in text
    assert "Harmful: **max_rate=1.6**, **max_rate=6.4**. Cured by: **max_rate=0.1**." in text


def test_the_journal_names_the_memory_whose_norm_grows_and_the_best_rate_for_memorizing(tmp_path: Path) -> None:
    cases = {case.name: case for case in stability.CASES}
    for number, growth in enumerate((8.0, 1.5, 1.1)):
        run = tmp_path / f"adding_{number}_0"
        write_run(run, 2.0)
        (tmp_path / f"{run.name}.json").write_text('{"train": 0}')
        write_answer(run, "memory", {"read/norm/32-128": 2.0, f"read/norm/{stability.LAST}": 2.0 * growth})
        write_answer(run, "perplexity", {"bpb/32-128": 3.0, f"bpb/{stability.LAST}": 4.0 if number == 0 else 3.0})
    run = tmp_path / "study_0_0"
    write_run(run, 2.0)
    notes = {"train": 0, "lr100.0": 2}
    for rate, change in (("0.01", -0.1), ("0.1", -0.2), ("1.0", 0.01), ("10.0", 0.7)):
        write_answer(run, f"perplexity_memorize_lr{rate}", {}, difference={"bpb": {"value": change}})
    (tmp_path / "study_0_0.json").write_text(json.dumps(notes))
    asked = [cases["adding"], cases["study"]]
    text = journal.write_journal(asked, tmp_path, tmp_path / "journal.md").read_text()
    assert "adds and forgets (retnet): x 1.50" in text and "Smallest: **corrects (deltanet)**" in text
    assert "The loss there is higher with adds (linear_attention)." in text
    assert "| -0.1 | -0.2 | +0.01 | +0.7 | not finite in 1 of 1 |" in text
    assert "best at memory.lr=0.1; the largest harmless rate is 1.0." in text


def test_every_setting_of_the_journal_composes() -> None:
    from nested_learning.command.compose import make_job
    from nested_learning.config.option_files import open_option_files

    names = [stability.run_name(case, setting, 0) for case in stability.CASES for setting in case.settings]
    assert len(set(names)) == len(names)
    for case in stability.CASES:
        make_job(open_option_files(None), [*stability.SIZE, *case.settings[-1].overrides])


@pytest.mark.slow
def test_the_end_to_end_smoke_script_succeeds(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHON": sys.executable, "PYTHONPATH": str(ROOT)}
    command = ["bash", str(ROOT / "scripts/run_e2e_smoke.sh"), str(tmp_path / "smoke")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all of it works" in done.stdout
