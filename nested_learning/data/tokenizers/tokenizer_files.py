"""Read tokenizers from files: Hugging Face, tiktoken, GPT-2, and those saved by this project."""

import base64
import json
from collections.abc import Callable, Iterable, Set
from functools import partial
from pathlib import Path
from typing import Any

from nested_learning.data.tokenizers.bpe import (
    BYTE_LEVEL,
    GPT2_WORDS,
    AddedToken,
    BpeTokenizer,
    Merge,
    find_merges,
    in_letters,
)
from nested_learning.data.tokenizers.byte_letters import BYTES, from_letters, to_letters
from nested_learning.data.tokenizers.tokenizer import END_TEXT, FILE_NAME, ByteTokenizer, Tokenizer
from nested_learning.data.tokenizers.words import WordTokenizer
from nested_learning.errors import ConfigError, DataError

# names of the vocabulary and the merges: as published with GPT-2, and as renamed by Hugging Face
PAIRS = (("encoder.json", "vocab.bpe"), ("vocab.json", "merges.txt"))

# special tokens with one of these names serve as `end`; a tokenizer without any gets END_TEXT
END_NAMES = (END_TEXT, "<|endoftext|>", "<|end_of_text|>", "<｜end▁of▁sentence｜>", "<eos>", "</s>")

CL100K_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
O200K_WORDS = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    rf"|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# a file of ranks does not contain the pattern that splits text into words; these are those of published files
KNOWN_WORDS = {
    "r50k_base": GPT2_WORDS,
    "p50k_base": GPT2_WORDS,
    "cl100k_base": CL100K_WORDS,
    "o200k_base": O200K_WORDS,
}

ALLOWED = (
    "byte, bpe, words, or the path of a tokenizer: a tokenizer.json of Hugging Face or of a checkpoint, a file of "
    "tiktoken's ranks, or a folder with GPT-2's encoder.json and vocab.bpe"
)


def read_tokenizer(path: str, option: str = "data.tokenizer") -> Tokenizer:
    """Open the tokenizer at `path`, a file or its folder. `option`: the name of `path` in errors.

    Raises ConfigError for a path without a tokenizer, DataError for a file that is not a byte-level tokenizer.
    """
    file, read = _find(path, option)
    return open_as(file, lambda file: _try_out(read(file)))


def open_tokenizer(directory: Path) -> Tokenizer:
    """Open the tokenizer that `save` wrote into `directory`. Raises DataError when it is missing or damaged."""
    return open_as(directory / FILE_NAME, _read_json)


def _find(path: str, option: str) -> tuple[Path, Callable[[Path], Tokenizer]]:
    """Return the file of the tokenizer at `path`, and the function that reads it."""
    location = Path(path).expanduser()
    if location.is_file():
        return location, _read_json if location.suffix == ".json" else _read_ranks
    if not location.is_dir():
        raise ConfigError(f"{option}={path}: must be {ALLOWED}")
    if (location / FILE_NAME).is_file():
        return location / FILE_NAME, _read_json
    for vocabulary, merges in PAIRS:
        if (location / vocabulary).is_file() and (location / merges).is_file():
            return location / vocabulary, partial(_read_pair, merges=location / merges)
    raise ConfigError(f"{option}={path}: no tokenizer in this folder; it must be {ALLOWED}")


def open_as(path: Path, read: Callable[[Path], Tokenizer]) -> Tokenizer:
    """Return what `read` makes of the file `path`. Raises DataError, with the path, where it has other contents."""
    try:
        return read(path)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: cannot be read as a tokenizer ({type(error).__name__}: {error}); give {ALLOWED}"
        ) from error
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def _try_out(tokenizer: Tokenizer) -> Tokenizer:
    """Encode a text: a pattern that no library can use is found when the file is read."""
    tokenizer.encode(" a")
    return tokenizer


def _read_json(path: Path) -> Tokenizer:
    saved = json.loads(path.read_text(encoding="utf-8"))
    match saved:
        case {"model": {"vocab": dict(), "merges": list()} as model} if "type" not in model:
            # files of old versions do not say it
            return from_definition(saved)
        case {"name": "byte"}:
            return ByteTokenizer()
        case {"name": "words", "words": list(words)}:
            return WordTokenizer(words)
        case {"name": "bpe", "merges": list(merges)}:
            # the format of earlier versions
            return BpeTokenizer(_pairs(merges))
        case {"model": {"type": "BPE"}}:
            return from_definition(saved)
        case {"model": {"type": str(kind)}}:
            raise DataError(f"a {kind} tokenizer is not lossless; it must be a byte-level BPE, such as GPT-2's")
    raise DataError("is not a tokenizer; save the tokenizer again, or give " + ALLOWED)


def from_definition(saved: dict[str, Any]) -> BpeTokenizer:
    """Return the tokenizer of the contents of a tokenizer.json: its BPE, its word pattern, and its added tokens.

    An added token that is `special` becomes a special token, which no text encodes to; the others are split off from a
    text as the file says. Raises DataError for one that does not keep every text.
    """
    model = saved["model"]
    for key in ("unk_token", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"):
        if model.get(key):
            raise DataError(f"{key}={model[key]} is not lossless; it must be a byte-level BPE, such as GPT-2's")
    # NFC is dropped: it leaves composed text, which nearly all text is, as it is, and would change the rest
    if any(step["type"] != "NFC" for step in _steps(saved.get("normalizer"), "normalizers")):
        raise DataError("its normalizer changes the text; it must be a byte-level BPE, such as GPT-2's")
    merges = _pairs(merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"])
    vocab, made = dict(model["vocab"]), {a + b for a, b in merges}
    tokens = [token for token in saved.get("added_tokens", []) if token["content"]]
    ordinary = made | BYTES.keys()
    added = {each["content"]: _added_token(each, vocab, ordinary) for each in tokens if not each.get("special", False)}
    specials = {token["content"]: token["id"] for token in tokens if token["content"] not in ordinary | added.keys()}
    # without ignore_merges no text encodes to the others, nor ever to letters that stand for no byte
    is_word = lambda token: BYTES.keys() >= set(token) and token not in specials and token not in added  # noqa: E731
    whole = model.get("ignore_merges", False)
    ids = {token: i for token, i in vocab.items() if token in ordinary or (whole and is_word(token))}
    return _with_end(_one_merge_each(merges, len(made)), ids, _words_of(saved.get("pre_tokenizer")), specials, added)


def _added_token(token: dict[str, Any], vocab: dict[str, int], ordinary: Set[str]) -> AddedToken:
    """Return an added token that a text may contain. Raises DataError for one that other text would encode to."""
    text = token["content"]
    for flag in ("lstrip", "rstrip"):
        if token.get(flag, False):
            raise DataError(
                f"its added token {text!r} has {flag}=true, which drops the spaces next to it; set it to false, or "
                "special to true, which leaves the token out of texts"
            )
    # tokens of the vocabulary are written in letters; only these stand for the bytes that they are
    is_plain = all("!" <= letter <= "~" for letter in text)
    if vocab.get(text, token["id"]) != token["id"] or (text in ordinary and not is_plain):
        raise DataError(f"its added token {text!r} has the name of another token; save the tokenizer again")
    return AddedToken(token["id"], token.get("single_word", False), token.get("normalized", False))


def _one_merge_each(merges: list[Merge], num_made: int) -> list[Merge]:
    """Drop merges that never happen: all but the one that makes a token when the token itself is encoded.

    Files converted from tiktoken's ranks list every pair whose concatenation is a token. Where the merge that happens
    is not listed, all merges stay.
    """
    if len(merges) == num_made:
        return merges
    made = from_letters(dict.fromkeys(a + b for a, b in merges))
    ranks = {token: rank for rank, token in enumerate(made, start=256)}
    merge_of = find_merges({bytes([byte]): byte for byte in range(256)} | ranks)
    kept = in_letters([merge_of.get(token, (b"", b"")) for token in ranks])
    return kept if set(kept) <= set(merges) else merges


def _words_of(pre_tokenizer: dict[str, Any] | None) -> str | dict[str, Any]:
    """Return the regular expression of a `pre_tokenizer`, or the pre_tokenizer where it is more than one expression."""
    *steps, last = _steps(pre_tokenizer, "pretokenizers") or [{"type": None}]
    if last["type"] != "ByteLevel" or last["add_prefix_space"]:
        raise DataError("its pre_tokenizer must be ByteLevel without a prefix space, like GPT-2's")
    for step in steps:
        if not _keeps_text(step):
            raise DataError(
                f"its pre_tokenizer {step['type']} changes or drops text; it must only split it, like GPT-2's"
            )
    # files of old versions do not say it
    use_regex = last.get("use_regex", True)
    if not steps and use_regex:
        return GPT2_WORDS
    match steps:
        case [{"type": "Split", "pattern": {"Regex": str(words)}, "behavior": "Isolated", "invert": False}]:
            if not use_regex:
                return words
    return {"type": "Sequence", "pretokenizers": [*steps, BYTE_LEVEL | {"use_regex": use_regex}]}


def _keeps_text(step: dict[str, Any]) -> bool:
    """Say whether a step of a pre_tokenizer only splits text."""
    match step:
        case {"type": "Split", "pattern": {"Regex": words}, "behavior": "Removed", "invert": True}:
            # what the pattern does not match is dropped; these match everything
            return words in KNOWN_WORDS.values()
        case {"type": "Split" | "Punctuation", "behavior": behavior}:
            return behavior != "Removed"
    return step["type"] in ("Digits", "UnicodeScripts", "FixedLength")


def _steps(step: dict[str, Any] | None, inside: str) -> list[dict[str, Any]]:
    """Return a step, or those of a Sequence, which are in its key `inside`."""
    if step is None:
        return []
    return [step] if step["type"] != "Sequence" else [leaf for each in step[inside] for leaf in _steps(each, inside)]


def _read_pair(vocabulary: Path, merges: Path) -> Tokenizer:
    """Read GPT-2's files: the id of each token, and one merge per line. Tokens that no merge makes are special."""
    extra = vocabulary.with_name("added_tokens.json")
    if extra.is_file():
        raise DataError(
            f"has added tokens in {extra.name}, which does not say how to find them in a text; use the tokenizer.json "
            "that AutoTokenizer.from_pretrained(<folder>).save_pretrained(<folder>) writes"
        )
    ids = json.loads(vocabulary.read_text(encoding="utf-8"))
    lines = merges.read_text(encoding="utf-8").splitlines()
    pairs = _pairs(line.split(" ") for line in lines if line and not line.startswith("#version"))
    made = {a + b for a, b in pairs}
    specials = {token: i for token, i in ids.items() if token not in made and token not in BYTES}
    return _with_end(pairs, {token: i for token, i in ids.items() if token not in specials}, GPT2_WORDS, specials, {})


def _read_ranks(path: Path) -> Tokenizer:
    """Read a tiktoken file: one line per token, its bytes in base64 and its rank, which is its id."""
    lines = [line.split() for line in path.read_bytes().splitlines() if line]
    ranks = {base64.b64decode(token, validate=True): int(rank) for token, rank in lines}
    pattern = path.with_name(path.name + ".words")
    if path.stem not in KNOWN_WORDS and not pattern.is_file():
        raise DataError(
            "has no pattern that splits text into words; write the regular expression into a file "
            f"{pattern.name} next to it"
        )
    words = pattern.read_text(encoding="utf-8").rstrip("\n") if pattern.is_file() else KNOWN_WORDS[path.stem]
    merge_of = find_merges(ranks)
    order = sorted(merge_of, key=ranks.__getitem__)
    pairs = in_letters([merge_of[token] for token in order])
    return _with_end(pairs, dict(zip(to_letters(ranks), ranks.values(), strict=True)), words, {}, {})


def _with_end(
    merges: list[Merge],
    ids: dict[str, int],
    words: str | dict[str, Any],
    specials: dict[str, int],
    added: dict[str, AddedToken],
) -> BpeTokenizer:
    """Build the tokenizer with a special token as `end`: one of END_NAMES, or a new one above all other ids."""
    end = next((name for name in END_NAMES if name in specials), END_TEXT)
    above = max([*ids.values(), *specials.values(), *(token.id for token in added.values())]) + 1
    return BpeTokenizer(merges, ids, words, {end: above} | specials, end, added)


def _pairs(merges: Iterable[Any]) -> list[Merge]:
    pairs = []
    for merge in merges:
        match merge:
            case [str(a), str(b)] if a and b:
                pairs.append((a, b))
            case _:
                raise DataError(f"{merge!r} is not a merge of two tokens; save the tokenizer again")
    return pairs
