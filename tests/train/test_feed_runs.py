"""Whole runs with different feeds: prefetched, in stages, document by document, from a mixture."""

import shutil
from pathlib import Path

import pytest
from tiny import fingerprints, tiny, trace, write_text

from nested_learning.errors import ConfigError
from nested_learning.phase.train import run

STAGES = "[{steps: 2, batch_size: 8, seq_len: 8},{steps: 2, batch_size: 2, seq_len: 32}]"


def train(folder: Path, **given: object) -> Path:
    directory = run(tiny(folder, **given)).directory
    assert directory is not None
    return directory


def test_a_run_that_prefetches_is_the_same_run(tmp_path: Path) -> None:
    here, ahead = (train(tmp_path, name=f"n{number}", num_workers=number) for number in (0, 2))
    assert trace(here) == trace(ahead) and fingerprints(here) == fingerprints(ahead)


def test_a_run_in_stages_counts_its_tokens_and_resumes_exactly_within_and_between_them(tmp_path: Path) -> None:
    options = {"stages": STAGES, "data__boundary": "reset", "data__packing": "best_fit", "model": "hope"}
    straight = train(tmp_path, name="straight", save_every=1, **options)
    tokens = [line["tokens"] for line in trace(straight) if line["split"] == "train"]
    assert tokens == [64, 128, 192, 256, 384, 512]
    for step in (1, 3):
        # what was saved after so many steps, as if the run had been killed then
        short = tmp_path / "runs" / f"short{step}"
        killed = train(tmp_path, name=short.name, save_every=step, **options)
        shutil.rmtree(killed / "checkpoints" / "step_00000006")
        (killed / "summary.json").unlink()
        saved = sorted(path for path in (killed / "checkpoints").glob("step_*"))[-1]
        train(tmp_path, name=short.name, resume=saved, save_every=100, **options)
        assert fingerprints(killed) == fingerprints(straight) and trace(killed) == trace(straight)


def test_the_same_stages_in_more_micro_batches_are_the_same_up_to_rounding(tmp_path: Path) -> None:
    whole, micro_batches = (
        trace(train(tmp_path, name=f"n{number}", stages=STAGES, micro_batches=number))[-1]["val/loss"]
        for number in (1, 2)
    )
    assert whole == pytest.approx(micro_batches, rel=1e-5)


def test_documents_that_reset_are_another_run_and_are_validated_as_they_are_trained(tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    text = write_text(tmp_path).read_text()
    for i in range(0, len(text), 150):
        (folder / f"{i}.txt").write_text(text[i : i + 150])
    carry, reset = (
        trace(train(tmp_path, name=name, data__path=folder, data__seq_len=256, data__boundary=name))
        for name in ("carry", "reset")
    )
    # at step 0 the weights are the same: what differs is what is read before
    assert carry[0]["val/loss"] != reset[0]["val/loss"]
    assert carry[-1]["tokens"] == reset[-1]["tokens"]


def test_a_mixture_is_validated_source_by_source(tmp_path: Path) -> None:
    path = write_text(tmp_path)
    (tmp_path / "other.txt").write_text("0123456789 " * 200)
    sources = f"{{words:{{name:text,path:{path}}},digits:{{name:text,path:{tmp_path / 'other.txt'}}}}}"
    given = {"data__sources": sources, "data__weights": "{words:3,digits:1}", "data__seq_len": 32}
    run = train(tmp_path, data="mixture", **given)
    last = trace(run)[-1]
    shares = 4 * last["val/words/loss"] / 5 + last["val/digits/loss"] / 5
    assert last["val/loss"] == pytest.approx(shares, rel=1e-6)
    assert last["val/words/bpb"] > 0 and last["val/digits/bpb"] > 0


def test_stages_that_do_not_fit_are_refused_before_any_file_is_created(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"stages\.0\.seq_len=5: must divide data\.seq_len=32"):
        run(tiny(tmp_path, stages="[{steps: 2, batch_size: 4, seq_len: 5}]"))
    with pytest.raises(ConfigError, match=r"stages: batch_size=3: must be a multiple of the 2 micro-batches"):
        run(tiny(tmp_path, stages="[{steps: 2, batch_size: 3, seq_len: 32}]", micro_batches=2))
    assert not (tmp_path / "runs").exists()
