"""Samples and profiles are taken while a run trains, and change nothing that it learns."""

import json
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import fingerprints, tiny, trace

from nested_learning import Session
from nested_learning.data.tokenizers.tokenizer import ByteTokenizer
from nested_learning.errors import ConfigError
from nested_learning.inference.config import SamplingConfig
from nested_learning.inference.samples import draw_samples, stream
from nested_learning.phase.train import run
from nested_learning.train.trainer import Trainer

PROMPTS = '["def ","import "]'


@pytest.fixture(scope="module")
def sampled(tmp_path_factory):
    """Train a run of four steps that is sampled and saved after every second, and profiled."""
    folder = tmp_path_factory.mktemp("samples")
    config = tiny(
        folder, model="hope", name="sampled", steps=4, save_every=2, sample_every=2, prompts=PROMPTS, profile=2
    )
    run(config)
    return config


def lines(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "samples.jsonl").read_text().splitlines()]


def test_samples_and_profiles_change_nothing_that_is_learned_or_logged(sampled, tmp_path):
    plain = run(tiny(tmp_path, model="hope", steps=4)).directory
    with_samples = Path(sampled.out) / "sampled"
    assert trace(with_samples) == trace(plain) and fingerprints(with_samples) == fingerprints(plain)


def test_a_sample_equals_what_the_checkpoint_of_its_step_generates(sampled):
    directory = Path(sampled.out) / "sampled"
    samples = lines(directory)
    assert [(line["step"], line["tokens"], line["prompt"], line["kind"]) for line in samples] == [
        (step, step * 4 * 32, prompt, kind)
        for step in (2, 4)
        for prompt in ("def ", "import ")
        for kind in ("greedy", "drawn")
    ]
    how = sampled.sampling
    for line in samples:
        session = Session.open(directory / "checkpoints" / f"step_{line['step']:08d}", device="cpu")
        session.feed(line["prompt"])
        temperature = 0.0 if line["kind"] == "greedy" else how.temperature
        tokens = session.generate(how.num_tokens, temperature=temperature, top_k=how.top_k, top_p=how.top_p, seed=0)
        assert session.text(tokens) == [line["text"]]


def test_a_stream_is_the_continuation_in_parts_of_whole_letters():
    class Told:
        """A session whose model says every byte of a text, one at a time."""

        tokenizer = ByteTokenizer()

        def __init__(self, said):
            self.said = list(said)

        def feed(self, prompt):
            return prompt

        def generate(self, num_tokens, **_settings):
            return torch.tensor([[self.said.pop(0) for _ in range(num_tokens)]])

    for text in ("ñ木a".encode(), "木".encode()[:2], b"a\xff\x80b", b""):
        sampling = SamplingConfig(num_tokens=len(text), temperature=0.0, top_k=0, top_p=1.0)
        parts = list(stream(Told(text), "", sampling, 0))
        assert "".join(parts) == text.decode(errors="replace")
        assert len(parts) == len(text) + 1
    assert [part for part in stream(Told("ñ木a".encode()), "", replace(sampling, num_tokens=6), 0) if part] == list(
        "ñ木a"
    )


def test_samples_use_their_own_random_generator(sampled):
    session = Session.open(Path(sampled.out) / "sampled", device="cpu")
    assert session.tokenizer is not None
    before = torch.get_rng_state()
    draw_samples(session.model, session.tokenizer, ["def "], sampled.sampling, "online", 0)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_resumed_run_has_the_samples_of_an_uninterrupted_one(sampled):
    whole, copy = Path(sampled.out) / "sampled", Path(sampled.out) / "again"
    shutil.copytree(whole, copy)
    shutil.rmtree(copy / "checkpoints" / "step_00000004")
    (copy / "checkpoints" / "latest").write_text("step_00000002\n")
    (copy / "summary.json").unlink()
    with (copy / "samples.jsonl").open("a") as file:
        file.write('{"step": 4, "tok')
    run(tiny(whole.parents[1], **{
        "model": "hope", "name": "again", "steps": 4, "save_every": 2, "sample_every": 2, "prompts": PROMPTS
    }))  # fmt: skip
    assert (copy / "samples.jsonl").read_bytes() == (whole / "samples.jsonl").read_bytes()


def test_samples_of_data_without_text_are_refused_before_anything_is_created(tmp_path):
    with pytest.raises(ConfigError, match=r"sample_every=2: data=copy is not text.*use sample_every=0"):
        run(tiny(tmp_path, data="copy", data__length=4, sample_every=2))
    assert not (tmp_path / "runs").exists()


def test_a_profile_has_the_requested_steps_without_the_first(sampled):
    (file,) = (Path(sampled.out) / "sampled" / "profile").iterdir()
    assert file.name == "step_00000003_rank_0.json"
    names = {event["name"] for event in json.loads(file.read_text())["traceEvents"] if "name" in event}
    assert "aten::mm" in names or "aten::addmm" in names


def test_a_run_that_ends_before_its_last_profiled_step_writes_the_trace(tmp_path):
    directory = run(tiny(tmp_path, steps=4, profile=10)).directory
    assert [path.name for path in (directory / "profile").iterdir()] == ["step_00000004_rank_0.json"]
    with torch.profiler.profile() as profiler:
        torch.ones(3).add(1)
    # a profiler left on would hand all that it has recorded to the next one
    assert len(profiler.events()) < 20


def test_a_signal_requests_a_profile_of_a_run(tmp_path, monkeypatch):
    real = Trainer.micro_batches

    def signalled(self, step):
        if step == 1:
            signal.raise_signal(signal.SIGUSR2)
        return real(self, step)

    monkeypatch.setattr(Trainer, "micro_batches", signalled)
    before = signal.getsignal(signal.SIGUSR2)
    directory = run(tiny(tmp_path, steps=7, val_every=7)).directory
    assert [path.name for path in (directory / "profile").iterdir()] == ["step_00000005_rank_0.json"]
    assert signal.getsignal(signal.SIGUSR2) is before
