"""Sharded checkpoints: every process writes its shards, atomically, and any number of processes reads them."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from tiny import tiny, trace
from together import together
from world.keepers import FIRST, LAST, copy_stopped, fill_the_disk_of_one, keep

from nested_learning import NestedModel, checkpoint
from nested_learning.command import main as cli
from nested_learning.errors import CheckpointError
from nested_learning.hub.open_run import open_trained
from nested_learning.phase.train import run
from nested_learning.world.storage import own_file

LEVELS = "[{name: fast, period: 0}, {name: slow, period: 384}]"
GIVEN = {
    "model": "hope", "optim": "mixed_muon", "steps": 4, "save_every": 2, "val_every": 4, "data__val_rows": 4,
    "backend": "eager", "model__levels": LEVELS, "micro_batches": 4, "model__num_layers": 1, "model__dropout": 0.1,
}  # fmt: skip


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Train and resume with two processes that hold shards, then with one that holds all; return the folder."""
    folder = tmp_path_factory.mktemp("storage")
    sharded = tiny(folder, world__parallel="fsdp", **GIVEN)
    together(keep, 2, sharded, {})
    runs = folder / "runs"
    copy_stopped(runs / "whole", runs / "alone")
    run(replace(sharded, name="alone"))
    together(keep, 4, tiny(folder, world__parallel="fsdp", world__shards=2, **GIVEN), {"four": "whole"})
    return folder


def tensors_of(run: Path) -> dict[str, torch.Tensor]:
    """Join the shards of the model in the last checkpoint of `run` by hand: they are split along rows."""
    parts: dict[str, list[torch.Tensor]] = {}
    for path in sorted((run / "checkpoints" / LAST / "model").iterdir()):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118, it is no dict
                parts.setdefault(name, []).append(file.get_tensor(name))
    return {name: torch.cat(micro_batches) for name, micro_batches in parts.items()}


def hashes(run: Path) -> dict[str, str]:
    found = checkpoint.read_json(run / "checkpoints" / LAST / "hashes.json")
    return {name: value for name, value in found.items() if name.endswith(".safetensors")}


def metrics(lines: list[dict[str, Any]]) -> list[float]:
    return [line[key] for line in lines for key in ("train/loss", "val/loss", "optim/grad_norm") if key in line]


def count_numbers(run: Path) -> int:
    count = 0
    for path in (run / "checkpoints" / LAST).rglob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            count += sum(file.get_tensor(name).numel() for name in file.keys())  # noqa: SIM118
    return count


def test_two_processes_with_shards_resume_to_the_same_bytes(kept):
    whole, again = kept / "runs" / "whole", kept / "runs" / "again"
    assert sorted(hashes(whole)) == [
        f"{name}/shard-0000{rank}-model-00001-of-00001.safetensors"
        for name in ("model", "optimizer")
        for rank in (1, 2)
    ]
    assert hashes(whole) == hashes(again) and trace(whole) == trace(again)
    checkpoint.verify(whole / "checkpoints" / LAST)


def test_shards_are_read_into_a_whole_model_to_the_bit(kept):
    whole = kept / "runs" / "whole"
    opened = open_trained(whole, "cpu")
    expected = tensors_of(whole)
    assert {name for name, _ in opened.model.named_parameters()} == expected.keys()
    for name, parameter in opened.model.named_parameters():
        assert torch.equal(parameter, expected[name]), name


@pytest.mark.parametrize("name", ["alone", "four"])
def test_another_number_of_processes_resumes_from_the_shards(kept, name):
    whole, other = trace(kept / "runs" / "whole"), trace(kept / "runs" / name)
    assert [line["step"] for line in other] == [line["step"] for line in whole]
    assert metrics(other) == pytest.approx(metrics(whole), rel=1e-4)
    # one process writes whole files; four write a part each, and of the two copies that they hold, one
    assert len(hashes(kept / "runs" / name)) == (2 if name == "alone" else 8)
    assert count_numbers(kept / "runs" / name) == count_numbers(kept / "runs" / "whole")


def test_processes_with_shards_resume_from_a_whole_checkpoint(kept):
    runs = kept / "runs"
    config = tiny(kept, world__parallel="fsdp", **GIVEN)
    run(replace(config, name="one"))
    together(keep, 2, config, {"two": "one"})
    assert metrics(trace(runs / "two")) == pytest.approx(metrics(trace(runs / "one")), rel=1e-4)


def test_an_export_joins_the_shards(kept, tmp_path):
    whole = kept / "runs" / "whole"
    assert cli.main(["phase=export", f"checkpoint={whole}", f"phase.to={tmp_path / 'out'}"]) == 0
    model = NestedModel.from_pretrained(tmp_path / "out", device="cpu")
    for name, expected in tensors_of(whole).items():
        assert torch.equal(model.model.state_dict()[name], expected), name


@pytest.mark.parametrize("harm", ["flip", "delete", "foreign"])
def test_a_damaged_shard_is_found(kept, tmp_path, harm):
    copy = Path(shutil.copytree(kept / "runs" / "whole", tmp_path / "a"))
    file = own_file(copy / "checkpoints" / LAST / "optimizer", 1)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    if harm == "delete":
        file.unlink()
    elif harm == "flip":
        file.write_bytes(content)
    else:
        file = own_file(copy / "checkpoints" / LAST / "optimizer", 2)
        file.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"{file.name}.*resume=.*{FIRST}"):
        checkpoint.verify(copy / "checkpoints" / LAST)


def test_shards_of_another_model_are_refused(kept, tmp_path):
    saved = kept / "runs" / "whole" / "checkpoints" / LAST
    wider = tiny(tmp_path, **GIVEN, model__dim=32).model.build(257, 0)
    with pytest.raises(CheckpointError, match=r"made for another model: .*float32\[.*\], the model's is float32"):
        checkpoint.load_model(saved, wider)


def test_a_disk_that_is_full_for_one_process_stops_all_and_leaves_the_checkpoint_before(tmp_path):
    config = tiny(tmp_path, world__parallel="fsdp", name="a", **GIVEN)
    said = together(fill_the_disk_of_one, 2, config)
    assert len(set(said)) == 1 and "No space left" in said[0] and f"resumes from {FIRST}" in said[0]
    folder = tmp_path / "runs" / "a" / "checkpoints"
    assert sorted(path.name for path in folder.iterdir()) == ["latest", FIRST]
    checkpoint.verify(checkpoint.find(tmp_path / "runs" / "a"))
