import shutil
from pathlib import Path

import numpy as np
import pytest
from data.rows import make_documents, write_lines
from tiny import tiny

from nested_learning.data.source import SPLITS
from nested_learning.data.text.encoding import is_kept
from nested_learning.data.text.packed import PackedText, to_stream
from nested_learning.data.text.prepare import PrepareConfig, prepare
from nested_learning.data.text.tokens import TokensConfig
from nested_learning.data.tokenizers.bpe import BpeTokenizer
from nested_learning.data.tokenizers.tokenizer import FILE_NAME, ByteTokenizer
from nested_learning.errors import ConfigError, DataError
from nested_learning.phase.train import run


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokens")
    config = PrepareConfig(
        sources=[write_lines(folder / "lines", make_documents())], val_fraction=0.2, shard_tokens=3000
    )
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setattr("nested_learning.data.text.prepare.BATCH_CHARACTERS", 500)
    prepare(folder / "shards", config, log=lambda _: None)
    monkeypatch.undo()
    return folder / "shards"


@pytest.mark.parametrize("packing", ["concat", "best_fit"])
def test_rows_of_shards_are_those_of_the_same_documents_in_memory(shards: Path, packing: str) -> None:
    source = TokensConfig(path=str(shards), seq_len=32, packing=packing).build(0)
    documents = {split: [d for d in make_documents() if is_kept(d, 0.2) == (split == "validation")] for split in SPLITS}
    tokenizer = ByteTokenizer()
    held = PackedText({s: to_stream(d, tokenizer) for s, d in documents.items()}, tokenizer, 32, packing=packing)
    for split in SPLITS:
        assert source.num_rows(split) == held.num_rows(split) > 10
        for index in range(source.num_rows(split)):
            for ours, theirs in zip(source.row(split, 0, index), held.row(split, 0, index), strict=True):
                assert np.array_equal(ours, theirs)


def test_a_model_trains_on_shards(shards: Path, tmp_path: Path) -> None:
    result = run(tiny(tmp_path, data="tokens", data__path=shards, data__seq_len=32, steps=2))
    assert result.metrics["val/bpb"] > 0


def test_a_damaged_shard_is_refused_unless_only_sizes_are_checked(shards: Path, tmp_path: Path) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(shards, folder)
    data = bytearray((folder / "train_00001.tokens").read_bytes())
    data[100] ^= 1
    (folder / "train_00001.tokens").write_bytes(data)
    with pytest.raises(DataError, match=r"train_00001\.tokens: its contents have changed"):
        TokensConfig(path=str(folder), seq_len=32).build(0)
    TokensConfig(path=str(folder), seq_len=32, verify=False).build(0)
    (folder / "train_00001.tokens").write_bytes(data[:-2])
    with pytest.raises(DataError, match="bytes instead of"):
        TokensConfig(path=str(folder), seq_len=32, verify=False).build(0)


def test_the_fingerprint_depends_on_the_tokens_and_not_on_their_path(shards: Path, tmp_path: Path) -> None:
    shutil.copytree(shards, tmp_path / "moved")
    first, second = (TokensConfig(path=str(folder)).build(0) for folder in (shards, tmp_path / "moved"))
    assert first.fingerprint == second.fingerprint


def test_tokens_of_another_tokenizer_are_refused(shards: Path, tmp_path: Path) -> None:
    config = TokensConfig(path=str(shards), seq_len=32)
    assert config.build(0, ByteTokenizer()).vocab_size == 257
    with pytest.raises(ConfigError, match="not made with the tokenizer of the model"):
        config.build(0, BpeTokenizer([("a", "b")]))
    shutil.copytree(shards, tmp_path / "other")
    (tmp_path / "other" / FILE_NAME).unlink()
    BpeTokenizer([("a", "b")]).save(tmp_path / "other")
    with pytest.raises(DataError, match="its tokenizer did not make its shards"):
        TokensConfig(path=str(tmp_path / "other"), seq_len=32).build(0)


def test_a_folder_without_shards_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.path is missing; .*scripts/prepare_data\.py"):
        TokensConfig()
    with pytest.raises(DataError, match="no manifest of token shards"):
        TokensConfig(path=str(tmp_path)).build(0)
    for contents, message in (
        ("[]", "no manifest"),
        ('{"format": 2}', "its format is not 1"),
        ("{", "no manifest"),
    ):
        (tmp_path / "manifest.json").write_text(contents)
        with pytest.raises(DataError, match=message):
            TokensConfig(path=str(tmp_path)).build(0)


def test_a_sequence_longer_than_a_split_is_refused_with_one_that_fits(shards: Path) -> None:
    with pytest.raises(DataError, match=r"validation split: \d+ tokens .* at most data\.seq_len"):
        TokensConfig(path=str(shards), seq_len=100_000).build(0)


def test_a_vocabulary_beyond_two_bytes_uses_four(tmp_path: Path) -> None:
    (tmp_path / "large").mkdir()
    BpeTokenizer([("a", "b")], specials={"<|end|>": 70_000}).save(tmp_path / "large")
    lines = write_lines(tmp_path / "lines", make_documents())
    config = PrepareConfig(sources=[lines], val_fraction=0.2, tokenizer=str(tmp_path / "large"))
    assert prepare(tmp_path / "shards", config, log=lambda _: None).dtype == "<u4"
    source = TokensConfig(path=str(tmp_path / "shards"), seq_len=32).build(0)
    assert source.row("train", 0, 0).tokens[0] == 70_000
