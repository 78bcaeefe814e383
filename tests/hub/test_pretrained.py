"""Exported models: the same logits to the bit, in this library and in transformers; damage is found."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from shared import damage
from tiny import reading, tiny, write_text

from nested_learning import NestedModel, Session
from nested_learning.command import main as cli
from nested_learning.data.tokenizers.choose_tokenizer import make_tokenizer
from nested_learning.errors import CheckpointError, ConfigError
from nested_learning.hub.transformers import register
from nested_learning.phase.export import run as export
from nested_learning.phase.train import run as train

TEXT = "def memory(self): return <|end|>"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Train HOPE for two steps with its own tokenizer and export it; return the run and the directory."""
    folder = tmp_path_factory.mktemp("pretrained")
    config = tiny(
        folder, model="hope", steps=2, name="a", data__tokenizer="bpe", data__vocab_size=300, model__tie_embedding=True
    )
    directory = train(config).directory
    assert directory is not None
    export(reading(directory, "export"))
    return directory, directory / "export"


def logits_of(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return model(tokens)[0]


def test_an_exported_model_gives_the_same_logits_to_the_bit(exported: tuple[Path, Path]) -> None:
    run, directory = exported
    session = Session.open(run, device="cpu")
    model = NestedModel.from_pretrained(directory, device="cpu")
    assert not model.training and model.tokenizer is not None and session.tokenizer is not None
    assert model.tokenizer.fingerprint == session.tokenizer.fingerprint
    text = torch.from_numpy(model.tokenizer.encode(TEXT))
    tokens = torch.cat([torch.tensor([model.tokenizer.end]), text])[None]
    with torch.inference_mode():
        assert torch.equal(logits_of(model, tokens), session.model(tokens, session.model.init_state(1))[0])
    assert torch.equal(model.session().feed(TEXT), session.feed(TEXT))


@pytest.mark.parametrize("name", ["transformer", "lstm", "titans_mac", "titans_deep", "gated_deltanet"])
def test_every_family_is_loaded_bit_for_bit_and_exports_to_the_same_files(name: str, tmp_path: Path) -> None:
    options = tiny(tmp_path, model=name, data="copy").model
    model = NestedModel(options, options.build(11, 3).eval(), None, {"step": 0})
    model.save_pretrained(tmp_path / "a")
    again = NestedModel.from_pretrained(tmp_path / "a", device="cpu")
    tokens = torch.arange(10).reshape(2, 5)
    assert again.options == options and torch.equal(logits_of(model, tokens), logits_of(again, tokens))
    again.save_pretrained(tmp_path / "b")
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes(), file.name


def test_a_byte_tokenizer_is_loaded_here_and_by_transformers(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = tiny(tmp_path, steps=1, name="a")
    run = train(config).directory
    assert cli.main(["phase=export", f"checkpoint={run}", f"phase.to={tmp_path / 'out'}"]) == 0
    own = NestedModel.from_pretrained(tmp_path / "out", device="cpu").tokenizer
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert own is not None and own.name == "byte"
    text = "é\nx =  1"
    # what opens a document is there too
    assert theirs(text)["input_ids"] == [own.end, *own.encode(text).tolist()]
    assert theirs.decode(own.encode(text).tolist()) == text


TEXTS = [
    "", " ", "a<|end|>b", "<|end|>", " <|end|> ", "def f(x):\n        return 1\n", "x  =\ty2", "Größe ½ naïve Ⅷ",
    "\u0301a e\u0301 \u00a0x\u2003y", "日本語 текст 👩‍👩‍👧 \U0001f9ff", "▁a ▁ a▁b", "\x00\x7f\r\n\r", "it's I'LL 3.14",
]  # fmt: skip


def save_tokenizer(tokenizer: Any, _model: Any, directory: Path) -> None:
    tokenizer.save_pretrained(directory)


def save_model(_tokenizer: Any, model: Any, directory: Path) -> None:
    model.save_pretrained(directory)


def save_config(_tokenizer: Any, model: Any, directory: Path) -> None:
    model.config.save_pretrained(directory)


@pytest.fixture(scope="module", params=["byte", "bpe", "words"])
def tokenized(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Export an untrained Transformer with each kind of tokenizer, trained on a little text; return the directory."""
    folder = tmp_path_factory.mktemp("tokenized")
    text = write_text(folder).read_text() + " ".join(TEXTS)
    size = {"byte": None, "bpe": 300, "words": 290}[request.param]
    tokenizer = make_tokenizer(request.param, size, [text], "data.")
    options = tiny(folder, model="transformer", data="copy").model
    model = options.build(tokenizer.vocab_size, 0).eval()
    NestedModel(options, model, tokenizer, {"step": 0}).save_pretrained(folder / "out")
    return folder / "out"


def test_every_tokenizer_gives_every_text_the_same_tokens_in_transformers(tokenized: Path) -> None:
    transformers = pytest.importorskip("transformers")
    ours = NestedModel.from_pretrained(tokenized, device="cpu").tokenizer
    theirs = transformers.AutoTokenizer.from_pretrained(tokenized)
    assert ours is not None
    for text in TEXTS:
        tokens = ours.encode(text).tolist()
        assert theirs(text)["input_ids"] == [ours.end, *tokens], text
        assert theirs.decode(tokens) == ours.decode(tokens) == text


@pytest.mark.parametrize(
    "order",
    [
        (save_model, save_tokenizer),
        (save_tokenizer, save_model),
        (save_tokenizer, save_config, save_model, save_config),
    ],
    ids=["model first", "tokenizer first", "configuration too"],
)
def test_tools_of_hugging_face_may_write_into_an_export(tokenized: Path, tmp_path: Path, order: Any) -> None:
    transformers = pytest.importorskip("transformers")
    register()
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tokenized)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tokenized)
    before = NestedModel.from_pretrained(tokenized, device="cpu")
    for save in (*order, *order):
        save(tokenizer, theirs, tmp_path / "d")
    again = NestedModel.from_pretrained(tmp_path / "d", device="cpu")
    assert before.tokenizer is not None and again.tokenizer is not None
    assert again.tokenizer.fingerprint == before.tokenizer.fingerprint
    tokens = torch.tensor([[again.tokenizer.end, *again.tokenizer.encode(TEXT).tolist()]])
    assert torch.equal(logits_of(again, tokens), logits_of(before, tokens))
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "d")(TEXT)["input_ids"] == tokens[0].tolist()
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


def test_a_changed_tokenizer_is_refused(tokenized: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    copy = Path(shutil.copytree(tokenized, tmp_path / "copy"))
    tokenizer = transformers.AutoTokenizer.from_pretrained(copy)
    tokenizer.add_tokens(["return 1"])
    tokenizer.save_pretrained(copy)
    with pytest.raises(CheckpointError, match=r"tokenizer.json"):
        NestedModel.from_pretrained(copy, device="cpu")


def test_an_export_is_never_written_over_something_else(tokenized: Path, tmp_path: Path) -> None:
    model = NestedModel.from_pretrained(tokenized, device="cpu")
    options = tiny(tmp_path, model="lstm", data="copy").model
    other = NestedModel(options, options.build(model.model.vocab_size, 0).eval(), model.tokenizer, {})
    other.save_pretrained(tmp_path / "other")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "todo.txt").write_text("x")
    (tmp_path / "file").write_text("x")
    for name in ("other", "notes", "file"):
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(ConfigError, match="give another directory"):
            model.save_pretrained(tmp_path / name)
        assert sorted(tmp_path.rglob("*")) == before
    (tmp_path / "notes" / "todo.txt").rename(tmp_path / "notes" / "tokenizer.json")
    with pytest.raises(CheckpointError, match=r"tokenizer.json"):
        model.save_pretrained(tmp_path / "notes")


def test_transformers_opens_it_and_generates_what_a_session_does(exported: tuple[Path, Path]) -> None:
    transformers = pytest.importorskip("transformers")
    register()
    _, directory = exported
    theirs = transformers.AutoModelForCausalLM.from_pretrained(directory)
    ours = NestedModel.from_pretrained(directory, device="cpu")
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    tokens = tokenizer("def memory", return_tensors="pt")
    with torch.inference_mode():
        done = theirs(**tokens, labels=tokens["input_ids"])
    assert torch.equal(done.logits, logits_of(ours, tokens["input_ids"]))
    nats = torch.nn.functional.cross_entropy(done.logits[0, :-1], tokens["input_ids"][0, 1:])
    torch.testing.assert_close(done.loss, nats)
    greedy = theirs.generate(**tokens, max_new_tokens=6, do_sample=False)[0, tokens["input_ids"].shape[1] :]
    session = ours.session()
    session.feed("def memory")
    expected = session.generate(6, temperature=0.0)[0]
    assert greedy.tolist() == expected[: len(greedy)].tolist() and len(greedy) > 1
    assert type(transformers.AutoConfig.from_pretrained(directory)).model_type == "nested_learning"


def test_transformers_arguments_that_would_change_the_numbers_are_refused(
    exported: tuple[Path, Path], tmp_path: Path
) -> None:
    pytest.importorskip("transformers")
    _, model_class = register()
    _, directory = exported
    model: Any = model_class
    with pytest.raises(ConfigError, match="float32"):
        model.from_pretrained(directory, dtype=torch.bfloat16)
    opened = model.from_pretrained(directory)
    tokens = torch.tensor([[1, 2, 3]])
    with pytest.raises(ConfigError, match="padding"):
        opened(tokens, attention_mask=torch.tensor([[0, 1, 1]]))
    with pytest.raises(ValueError, match="BEAM"):
        opened.generate(tokens, num_beams=2, max_new_tokens=2)
    opened.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (directory / "model.safetensors").read_bytes()


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "hashes.json"])
@pytest.mark.parametrize("harm", ["flip", "truncate", "delete"])
def test_damage_is_found_and_the_file_is_named(
    exported: tuple[Path, Path], name: str, harm: str, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(exported[1], tmp_path / "copy"))
    damage(copy / name, harm)
    with pytest.raises(CheckpointError, match=str(copy)):
        NestedModel.from_pretrained(copy, device="cpu")


def test_an_export_of_another_version_or_program_is_refused_with_a_fix(
    exported: tuple[Path, Path], tmp_path: Path
) -> None:
    def with_config(change: dict[str, Any]) -> Path:
        copy = Path(shutil.copytree(exported[1], tmp_path / "copy", dirs_exist_ok=True))
        (copy / "config.json").write_text(json.dumps(change))
        (copy / "hashes.json").write_text("{}")
        return copy

    config = json.loads((exported[1] / "config.json").read_text())
    del config["nested"]["model"]["dim"]
    with pytest.raises(CheckpointError, match=r"model.dim.*exported by version"):
        NestedModel.from_pretrained(with_config(config), device="cpu")
    with pytest.raises(CheckpointError, match="phase=export"):
        NestedModel.from_pretrained(with_config({"model_type": "llama"}), device="cpu")
    with pytest.raises(CheckpointError, match=r"phase=export checkpoint="):
        NestedModel.from_pretrained(exported[0], device="cpu")


def test_nothing_is_overwritten(
    exported: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, directory = exported
    assert cli.main(["phase=export", f"checkpoint={run}"]) == 2
    assert "phase.to=" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        NestedModel.from_pretrained(directory, device="cpu").save_pretrained(tmp_path / "file" / "x")
    assert write_text(tmp_path).exists() and sorted(path.name for path in tmp_path.iterdir()) == ["file", "text.py"]
