"""`data=tokens data.path=<folder>`: token shards written by scripts/prepare_data.py, for text of any size."""

from dataclasses import dataclass
from pathlib import Path

from nested_learning.data.source import SPLITS
from nested_learning.data.text.packed import PackedText, PackingConfig
from nested_learning.data.text.shards import TokenStream, check, read_manifest
from nested_learning.data.tokenizers.tokenizer import Tokenizer
from nested_learning.data.tokenizers.tokenizer_files import open_tokenizer
from nested_learning.errors import ConfigError, DataError
from nested_learning.typed import PathText


@dataclass(kw_only=True)
class TokensConfig(PackingConfig):
    """Token shards in the folder `path`, memory-mapped. Tokenizer and splits are stored with them.

    `verify`: check the sha256 of every file when the data is opened; false checks sizes only.
    """

    name: str = "tokens"
    seq_len: int = 1024
    path: PathText | None = None
    verify: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.path:
            raise ConfigError(
                "data=tokens: data.path is missing; use data.path=<a folder written by scripts/prepare_data.py>"
            )

    def require_files(self, key: str = "data") -> None:
        """Raise DataError for a folder without a manifest of token shards."""
        read_manifest(Path(self.path or "").expanduser())

    def build(self, seed: int, tokenizer: Tokenizer | None = None) -> PackedText:
        """Open the shards. `seed` only permutes rows.

        Raises DataError for a folder without shards or with a damaged one, ConfigError for shards made with a tokenizer
        other than `tokenizer`.
        """
        folder = Path(self.path or "").expanduser()
        manifest = read_manifest(folder)
        check(folder, manifest, by_hash=self.verify)
        own = open_tokenizer(folder)
        if own.fingerprint != manifest.tokenizer:
            raise DataError(f"data.path={self.path}: its tokenizer did not make its shards; prepare them again")
        if tokenizer is not None and tokenizer.fingerprint != own.fingerprint:
            raise ConfigError(
                f"data.path={self.path}: the shards were not made with the tokenizer of the model; prepare the text "
                "with --tokenizer=<the folder of its checkpoint>, or use data=text"
            )
        streams = {split: TokenStream(folder, manifest.of(split), manifest.dtype, own.end) for split in SPLITS}
        return self.pack_streams(
            streams,
            own,
            f"data.path={self.path}",
            starts={split: stream.starts() for split, stream in streams.items()},
            fingerprint=manifest.fingerprint,
        )
