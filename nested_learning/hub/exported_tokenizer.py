"""The tokenizer of an exported model, in the files that Hugging Face's tools read and write."""

import json
from pathlib import Path
from typing import Any

from nested_learning.data.tokenizers.bpe import BYTE_LEVEL, AddedToken, BpeTokenizer, added_entry
from nested_learning.data.tokenizers.byte_letters import BYTES, from_letters, to_letters
from nested_learning.data.tokenizers.tokenizer import END_TEXT, FILE_NAME, ByteTokenizer, Tokenizer
from nested_learning.data.tokenizers.tokenizer_files import from_definition, open_as
from nested_learning.data.tokenizers.words import WordTokenizer
from nested_learning.errors import CheckpointError, ConfigError, DataError

TOKENIZER_CONFIG = "tokenizer_config.json"
# what `tokenizer.save_pretrained` of transformers writes
FILES = (FILE_NAME, TOKENIZER_CONFIG, "special_tokens_map.json", "added_tokens.json", "chat_template.jinja")

# the words of words.py, in a regular expression of `tokenizers`
WORDS = r" ?[\p{L}\p{Nl}\p{No}]+"
# begins every word, so that a word of one letter is another token than its byte; no other text has it, as it is no
# letter of a byte. Where a word has no token, `tokenizers` drops the mark and encodes the bytes
MARK = "▁"


def about_tokenizer(tokenizer: Tokenizer) -> dict[str, Any]:
    """Return what `open_exported` needs to know besides the files."""
    return {"name": tokenizer.name, "fingerprint": tokenizer.fingerprint, "specials": _specials(tokenizer)}


def write_exported(tokenizer: Tokenizer, directory: Path) -> None:
    """Write the files of `tokenizer`: other tools give every text the same tokens, after `end`, which opens documents.

    Raises ConfigError for a tokenizer that they cannot have.
    """
    (end,) = (text for text, i in _specials(tokenizer).items() if i == tokenizer.end)
    opening = {"SpecialToken": {"id": end, "type_id": 0}}
    saved = _definition(tokenizer)
    saved["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [opening, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [opening, {"Sequence": {"id": "A", "type_id": 0}}, opening, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {end: {"id": end, "ids": [tokenizer.end], "tokens": [end]}},
    }
    _write(directory / FILE_NAME, saved)
    # split: the name of a special token in a text is ordinary text
    known: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": end, "eos_token": end}
    known |= {"split_special_tokens": True, "clean_up_tokenization_spaces": False}
    _write(directory / TOKENIZER_CONFIG, known)


def open_exported(directory: Path, about: dict[str, Any]) -> Tokenizer:
    """Open the tokenizer in `directory`, which other tools may have written again.

    Raises CheckpointError where it is damaged, or gives some text other tokens than the one that was exported.
    """

    def read(path: Path) -> Tokenizer:
        saved = json.loads(path.read_text(encoding="utf-8"))
        if "specials" in about:
            # which special tokens the file has depends on what wrote it last
            entries = [
                added_entry(text, AddedToken(i, False, False), special=True) for text, i in about["specials"].items()
            ]
            saved["added_tokens"] = entries + [each for each in saved["added_tokens"] if not each["special"]]
        return _from_definition(about["name"], saved)

    try:
        tokenizer = open_as(directory / FILE_NAME, read)
    except DataError as error:
        raise CheckpointError(f"{error}; or export it again") from error
    if tokenizer.fingerprint != about["fingerprint"]:
        raise CheckpointError(f"{directory / FILE_NAME}: not the tokenizer of this model; export it again")
    return tokenizer


def _specials(tokenizer: Tokenizer) -> dict[str, int]:
    return tokenizer.specials if isinstance(tokenizer, BpeTokenizer) else {END_TEXT: tokenizer.end}


def _definition(tokenizer: Tokenizer) -> dict[str, Any]:
    """Return the contents of a tokenizer.json that gives every text the tokens of `tokenizer`."""
    match tokenizer:
        case BpeTokenizer():
            return tokenizer.definition(with_specials=False)
        case ByteTokenizer():
            return _bytes_alone().definition(with_specials=False)
        case WordTokenizer():
            saved = BpeTokenizer([], BYTES, WORDS, _specials(tokenizer)).definition(with_specials=False)
            mark = {"type": "Metaspace", "replacement": MARK, "prepend_scheme": "always", "split": False}
            saved["pre_tokenizer"]["pretokenizers"].append(mark)
            unmark = {"type": "Replace", "pattern": {"String": MARK}, "content": ""}
            saved["decoder"] = {"type": "Sequence", "decoders": [unmark, BYTE_LEVEL]}
            words = to_letters(word.encode() for word in tokenizer.words)
            ids = range(tokenizer.vocab_size - len(words), tokenizer.vocab_size)
            saved["model"]["vocab"] |= {f"{MARK}{word}": i for word, i in zip(words, ids, strict=True)}
            # a word that is a token encodes to it
            saved["model"]["ignore_merges"] = True
            return saved
    raise ConfigError(
        f"tokenizer {tokenizer.name}: Hugging Face's tools have no such tokenizer; use byte, bpe or words"
    )


def _from_definition(name: str, saved: dict[str, Any]) -> Tokenizer:
    """Return the tokenizer called `name` whose definition is `saved`. Raises DataError for another one."""
    if name == WordTokenizer.name:
        extra = [each["content"] for each in saved["added_tokens"] if not each["special"]]
        if extra:
            raise DataError(f"has the added token {extra[0]!r}, which is not one of the model; save it without")
        ids: dict[str, int] = saved["model"]["vocab"]
        words = [token.removeprefix(MARK) for token in sorted(ids, key=ids.__getitem__) if token.startswith(MARK)]
        return WordTokenizer([word.decode() for word in from_letters(words)])
    tokenizer = from_definition(saved)
    if name != ByteTokenizer.name:
        return tokenizer
    if tokenizer.fingerprint != _bytes_alone().fingerprint:
        raise DataError("is not the tokenizer of bytes")
    return ByteTokenizer()


def _bytes_alone() -> BpeTokenizer:
    """Return a BPE without merges, whose tokens are those of ByteTokenizer."""
    return BpeTokenizer([], BYTES, specials={END_TEXT: ByteTokenizer.end})


def _write(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
