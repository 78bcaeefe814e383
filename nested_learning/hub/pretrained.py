"""A trained model as a directory to share: `phase=export` writes it, `NestedModel.from_pretrained` reads it.

The directory has the layout of Hugging Face's, whose tools may write into it: config.json, model.safetensors,
tokenizer.json (which `transformers.AutoTokenizer` reads too), tokenizer_config.json, a model card in README.md, and
hashes.json with the sha256 of the weights and of what this project reads in config.json. The tokenizer has a
fingerprint there.
"""

import json
import shutil
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from nested_learning import checkpoint, tree
from nested_learning.config.schema import read_model
from nested_learning.data.tokenizers.tokenizer import FILE_NAME, Tokenizer
from nested_learning.errors import CheckpointError, ConfigError, DataError
from nested_learning.files import hash_file, sync
from nested_learning.hub.exported_tokenizer import (
    FILES,
    about_tokenizer,
    open_exported,
    write_exported,
)
from nested_learning.inference.config import MemoryConfig
from nested_learning.inference.inputs import to_path, to_tokens
from nested_learning.inference.session import Session
from nested_learning.model.config import ModelConfig
from nested_learning.nn.language_model import LanguageModel
from nested_learning.shapes import Float, Int, Tensor
from nested_learning.typed import convert
from nested_learning.version import __version__
from nested_learning.world.joining import pick_device

CONFIG, MODEL, CARD, HASHES = "config.json", "model.safetensors", "README.md", "hashes.json"
# the name in hashes.json of the part of config.json that this project reads
NESTED = "config.json: nested"
MODEL_TYPE = "nested_learning"


class NestedModel(nn.Module):
    """A trained language model with its tokenizer (None for data that is not text).

    `options` builds `model`; `about` describes its training for the model card, in plain text and numbers.
    """

    def __init__(
        self, options: ModelConfig, model: LanguageModel, tokenizer: Tokenizer | None, about: dict[str, Any]
    ) -> None:
        super().__init__()
        self.options, self.model, self.tokenizer, self.about = options, model, tokenizer, about

    @classmethod
    def from_pretrained(cls, path: str | Path, *, device: str = "auto") -> "NestedModel":
        """Open the directory `path` that `save_pretrained` or `phase=export` wrote, on `device`, as in train.py.

        Raises CheckpointError where it is missing, damaged or of another version, ConfigError for the device.
        """
        directory, torch_device = to_path(path), pick_device(convert(device, str, "device"))
        if not (directory / CONFIG).is_file():
            raise CheckpointError(
                f"{directory}: no exported model; python train.py phase=export checkpoint=<run> makes one "
                "(a run itself is opened by Session.open)"
            )
        nested = _read_config(directory)
        _verify(directory, nested)
        try:
            options = read_model(nested["model"])
        except ConfigError as error:
            raise CheckpointError(
                f"{directory / CONFIG}: {error}; it was exported by version {nested['version']}, this is {__version__}"
            ) from error
        model = options.build(nested["vocab_size"], 0)
        try:
            tensors = load_file(directory / MODEL)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{directory / MODEL}: unreadable ({error}); export it again") from error
        own = {name.removeprefix(PREFIX): tensor for name, tensor in tensors.items()}
        checkpoint.fill_model(directory / MODEL, own, model, directory / CONFIG)
        tokenizer = None if nested["tokenizer"] is None else open_exported(directory, nested["tokenizer"])
        return cls(options, model.to(torch_device), tokenizer, nested["about"]).eval()

    def save_pretrained(self, path: str | Path) -> None:
        """Write the directory `path`, atomically; an export of this architecture there is replaced.

        Files that other tools wrote next to it stay. Raises ConfigError when `path` holds anything else, or cannot be
        written.
        """
        target = to_path(path)
        self._refuse_other(target)
        draft, replaced = (target.with_name(f".{target.name}.{word}") for word in ("draft", "replaced"))
        try:
            for each in (draft, replaced):
                shutil.rmtree(each, ignore_errors=True)
            if target.exists():
                shutil.copytree(target, draft)
            draft.mkdir(parents=True, exist_ok=True)
            self._write(draft)
            # the name appears when all files are on disk, so a kill leaves no partial export
            if target.exists():
                target.rename(replaced)
            draft.rename(target)
            sync(target.parent)
            shutil.rmtree(replaced, ignore_errors=True)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(draft, ignore_errors=True)
            reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
            raise ConfigError(f"{target}: cannot be written ({reason}); give another directory") from error

    def forward(
        self, tokens: Int[Tensor, "b t"], state: Any = None, *, write: bool = True
    ) -> tuple[Float[Tensor, "b t v"], Any]:
        """Read `tokens` from `state` (None: a fresh one); return the logits after each token, and the new state.

        Raises DataError for tokens outside the vocabulary, and for a state that is not one of as many rows.
        """
        tokens = to_tokens(tokens, self.model.vocab_size)
        if tokens.dim() != 2 or not tokens.numel():
            raise DataError(f"tokens of shape {list(tokens.shape)}: a model reads [b t], one token or more in each row")
        if state is None:
            state = self.model.init_state(len(tokens))
        if {len(leaf) for leaf in tree.leaves(state)} != {len(tokens)}:
            raise DataError(f"state: not a state of {len(tokens)} rows; give one that this model returned, or None")
        return self.model(tokens, state, write=write)

    def session(self, *, batch: int = 1, policy: str | MemoryConfig = "online") -> Session:
        """Return a session that reads and generates text with this model."""
        return Session(self.model, self.tokenizer, batch=batch, policy=policy)

    def _refuse_other(self, target: Path) -> None:
        """Raise ConfigError unless `target` is free, or holds an export of this model or files of its tokenizer."""
        if not target.exists():
            return
        if not target.is_dir():
            raise ConfigError(f"{target}: exists already; give another directory")
        expected = json.loads(json.dumps(self._config()["nested"]))
        if (target / CONFIG).is_file():
            nested = _read_config(target)
            is_same = all(nested[key] == expected[key] for key in ("model", "vocab_size", "tokenizer"))
        else:
            is_same = all(file.name in FILES for file in target.iterdir())
            if is_same and self.tokenizer is not None and (target / FILE_NAME).is_file():
                open_exported(target, expected["tokenizer"])
        if not is_same:
            raise ConfigError(f"{target}: holds other files than those of this model; give another directory")

    def _write(self, draft: Path) -> None:
        tensors = checkpoint.plain(checkpoint.model_tensors(self.model))
        save_file({f"{PREFIX}{name}": tensor for name, tensor in tensors.items()}, draft / MODEL, {"format": "pt"})
        config = self._config()
        _write_json(draft / CONFIG, config)
        # safetensors makes files that only the owner can read
        (draft / MODEL).chmod((draft / CONFIG).stat().st_mode)
        if self.tokenizer is not None:
            write_exported(self.tokenizer, draft)
        _write_json(draft / HASHES, {MODEL: hash_file(draft / MODEL), NESTED: _hash_nested(config["nested"])})
        (draft / CARD).write_text(self._card(), encoding="utf-8")
        for file in [*draft.iterdir(), draft]:
            sync(file)

    def _config(self) -> dict[str, Any]:
        """Return the content of config.json: what Hugging Face needs, and under `nested` what this project needs."""
        tokenizer = self.tokenizer
        nested = {
            "version": __version__,
            "model": asdict(self.options),
            "vocab_size": self.model.vocab_size,
            "tokenizer": None if tokenizer is None else about_tokenizer(tokenizer),
            "about": self.about,
        }
        end = None if tokenizer is None else tokenizer.end
        return {
            "architectures": ["NestedForCausalLM"],
            "model_type": MODEL_TYPE,
            "dtype": "float32",
            "vocab_size": self.model.vocab_size,
            "bos_token_id": end,
            "eos_token_id": end,
            "nested": nested,
        }

    def _card(self) -> str:
        rows = "".join(f"| {name} | {value} |\n" for name, value in self.about.items())
        count = sum(parameter.numel() for parameter in self.model.parameters())
        return (
            f"---\nlibrary_name: nested-learning-lab\npipeline_tag: text-generation\n---\n\n# {self.options.name}\n\n"
            f"{count:,} parameters, vocabulary {self.model.vocab_size}. "
            f"Its memories are updated while it reads: an output depends on all that the session has read.\n\n"
            f"{USE}\n| training | |\n| --- | --- |\n{rows}"
        )


# prefix of parameter names in the file, as in the state_dict of NestedModel and of the transformers class
PREFIX = "model."
USE = """```python
from nested_learning import NestedModel

model = NestedModel.from_pretrained("<this directory>")
session = model.session()
session.feed("def ")
print(session.text(session.generate(40, temperature=0.8, seed=1)))
```
"""


def _verify(directory: Path, nested: dict[str, Any]) -> None:
    """Raise CheckpointError for a file that is not the one exported; `nested` is that part of config.json."""
    for name, expected in checkpoint.read_json(directory / HASHES).items():
        path = directory / (CONFIG if name == NESTED else name)
        # exports of earlier versions have the hashes of all files
        if not path.is_file() or (_hash_nested(nested) if name == NESTED else hash_file(path)) != expected:
            raise CheckpointError(
                f"{path}: missing or damaged, its sha256 is not that of hashes.json; export it again, or copy it again"
            )


def _hash_nested(nested: dict[str, Any]) -> str:
    """Return the sha256 of a part of config.json, however it is written there."""
    return sha256(json.dumps(nested, sort_keys=True).encode()).hexdigest()


def _read_config(directory: Path) -> dict[str, Any]:
    match checkpoint.read_json(directory / CONFIG):
        case {"nested": {"version": _, "model": _, "vocab_size": int(), "tokenizer": _, "about": dict()} as nested}:
            return nested
    raise CheckpointError(f"{directory / CONFIG}: not a model of this project; export one with phase=export")


def _write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
