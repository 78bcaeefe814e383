"""Byte-level BPE tokenizers, trained on the text of the run or read from a file. Encoding is lossless for any text.

`tokenizers` trains; `tiktoken` encodes several times as fast, and without it `tokenizers` encodes to the same tokens.
They are saved as a Hugging Face `tokenizer.json`.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nested_learning.data.tokenizers.byte_letters import BYTES, LETTERS, from_letters
from nested_learning.data.tokenizers.tokenizer import END_TEXT, FILE_NAME, TokenIds, split_parts, to_utf8
from nested_learning.errors import ConfigError, DataError

Merge = tuple[str, str]

# GPT-2's pattern that splits text into words; no token crosses a word. `tokenizers` calls it ByteLevel
GPT2_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
# an equivalent pattern for tiktoken: with all alternatives without look-ahead in one group it is a third faster
GPT2_FAST = r"(?: ?\p{L}+|'(?:s|t|re|ve|m|ll|d)| ?\p{N}+| ?[^\s\p{L}\p{N}]+)|\s+(?!\S)|\s+"
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}

# bytes that are not utf-8, as surrogateescape puts them into a str
ESCAPED = re.compile("([\udc80-\udcff]+)")


class BpeTokenizer:
    """Byte-level byte-pair encoding (arXiv 1508.07909, on bytes as in GPT-2).

    `merges`: pairs of tokens in the order learned, each byte written as its letter of `byte_letters.py`. `ids`: the id
    of each token; by default the bytes, then the results of merges. `words`: the regular expression that splits text
    into words, or the `pre_tokenizer` of a tokenizer.json. `specials`: ids that no text encodes to, by name; by default
    `end` alone, one above all other ids. A token in `ids` that no merge makes encodes only a word equal to it.
    """

    name = "bpe"

    def __init__(
        self,
        merges: Sequence[Merge],
        ids: Mapping[str, int] | None = None,
        words: str | dict[str, Any] = GPT2_WORDS,
        specials: Mapping[str, int] | None = None,
        end: str = END_TEXT,
    ) -> None:
        """Raises DataError for a merge of unknown tokens, and for a merged token without an id."""
        self.merges, self.words = list(merges), words
        made = _merged_tokens(self.merges)
        plain = {token: i for i, token in enumerate(made)}
        self._vocab = plain if ids is None else _with_ids([*made, *ids], ids)
        self._num_made = len(made)
        self.specials = dict(specials or {end: max(self._vocab.values()) + 1})
        self.end = self.specials[end]
        self.vocab_size = max(*self._vocab.values(), *self.specials.values()) + 1
        self._bytes_of = [b""] * self.vocab_size
        for token, i in zip(from_letters(self._vocab), self._vocab.values(), strict=True):
            self._bytes_of[i] = token
        # counted before special tokens get their names, which stand for no bytes of a text
        self.token_bytes = np.array([len(token) for token in self._bytes_of], dtype=np.int64)
        for text, i in self.specials.items():
            self._bytes_of[i] = text.encode()
        # the fingerprint of a tokenizer trained here is that of its merges alone
        definition: list[Any] = ["bpe", self.merges]
        if (self._vocab, words, self.specials) != (plain, GPT2_WORDS, {END_TEXT: len(plain)}):
            definition += [sorted(self._vocab.items()), words, sorted(self.specials.items()), end]
        self.fingerprint = sha256(json.dumps(definition).encode()).hexdigest()

    def encode(self, text: str) -> NDArray[np.int64]:
        """Return the tokens of `text` [t]. Raises DataError for a lone surrogate, ConfigError without a library."""
        # only a check: the libraries fail with errors of their own, which do not name the character
        to_utf8(text)
        parts = [self._encode(part) for part in split_parts(text)]
        return np.concatenate([np.zeros(0, np.int64), *parts])

    def encode_bytes(self, data: bytes) -> NDArray[np.int64]:
        """Return the tokens of `data` [t]. Bytes that are not utf-8 become one token each."""
        tokens = [np.zeros(0, np.int64)]
        for i, part in enumerate(ESCAPED.split(data.decode("utf-8", errors="surrogateescape"))):
            # splitting by a pattern with a group alternates: text, then bytes that are not utf-8
            if i % 2:
                escaped = part.encode("utf-8", errors="surrogateescape")
                tokens.append(np.array([self._vocab[LETTERS[byte]] for byte in escaped]))
            elif part:
                tokens.append(self.encode(part))
        return np.concatenate(tokens)

    def decode(self, tokens: TokenIds) -> str:
        """Return the text of `tokens`, with special tokens as their names and incomplete characters as U+FFFD."""
        return self.decode_bytes(tokens).decode("utf-8", errors="replace")

    def decode_bytes(self, tokens: TokenIds) -> bytes:
        """Return the bytes that `tokens` stand for."""
        return b"".join([self._bytes_of[int(token)] for token in tokens])

    def save(self, directory: Path) -> None:
        """Write `tokenizer.json` in Hugging Face's format, with special tokens, into the existing `directory`."""
        saved = self._definition(self._vocab | self.specials)
        saved["added_tokens"] = [
            {"id": i, "content": text, "special": True}
            | dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
            for text, i in sorted(self.specials.items(), key=lambda item: item[1])
        ]
        (directory / FILE_NAME).write_text(json.dumps(saved, ensure_ascii=False) + "\n", encoding="utf-8")

    def _encode(self, text: str) -> NDArray[np.int64]:
        if self._fast is not None:
            try:
                return self._ids[self._fast.encode_to_numpy(text, disallowed_special=())]
            except ValueError:
                # tiktoken's regular expressions give up on a million spaces in a row; `tokenizers` does not
                pass
        return np.array(self._slow.encode(text, add_special_tokens=False).ids, dtype=np.int64)

    @cached_property
    def _ids(self) -> NDArray[np.int64]:
        return np.array(list(self._vocab.values()), dtype=np.int64)

    @cached_property
    def _fast(self) -> Any:
        """Return a tiktoken encoder, or None where it is not installed or could give other tokens.

        BPE ranks merges, tiktoken ranks merged tokens. Both are the same where every token is the result of exactly one
        merge, as training leaves it: then the rank of a token is the rank of its merge.
        """
        if self._num_made != 256 + len(self.merges) or not isinstance(self.words, str):
            return None
        try:
            import tiktoken
        except ImportError:
            return None
        ranks = {token: rank for rank, token in enumerate(from_letters(self._vocab))}
        words = GPT2_FAST if self.words == GPT2_WORDS else self.words
        return tiktoken.Encoding(self.name, pat_str=words, mergeable_ranks=ranks, special_tokens={})

    @cached_property
    def _slow(self) -> Any:
        return _library().Tokenizer.from_str(json.dumps(self._definition(self._vocab)))

    def _definition(self, vocab: dict[str, int]) -> dict[str, Any]:
        """Return the contents of a tokenizer.json without special tokens."""
        model: dict[str, Any] = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None}
        model |= {"end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False}
        # with ignore_merges a word that is a token encodes to it, although no merge makes it
        model |= {"ignore_merges": len(self._vocab) > self._num_made, "vocab": vocab, "merges": self.merges}
        return {
            "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
            "pre_tokenizer": _pre_tokenizer(self.words), "post_processor": None, "decoder": BYTE_LEVEL, "model": model,
        }  # fmt: skip


def train_bpe(texts: Iterable[str], vocab_size: int, option: str = "data.vocab_size") -> BpeTokenizer:
    """Train a tokenizer of exactly `vocab_size` ids, including 256 bytes and `end`. Deterministic.

    `texts` are streamed; only counts of their words are in memory. `option`: the name of `vocab_size` in errors.
    Raises ConfigError when `vocab_size` is below 257 or larger than `texts` can fill, and without `tokenizers`.
    """
    if vocab_size < 257:
        raise ConfigError(f"{option}={vocab_size}: must be at least 257 (256 bytes, <|end|>); {option}=4096")
    library = _library()
    model = library.Tokenizer(library.models.BPE())
    model.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    # one id is left for `end`; the alphabet has all bytes, so that bytes not in the training text have tokens too
    trainer = library.trainers.BpeTrainer(vocab_size=vocab_size - 1, initial_alphabet=list(BYTES), show_progress=False)
    model.train_from_iterator((part for text in texts for part in split_parts(text)), trainer)
    tokenizer = BpeTokenizer([(a, b) for a, b in json.loads(model.to_str())["model"]["merges"]])
    if tokenizer.vocab_size != vocab_size:
        raise ConfigError(
            f"{option}={vocab_size}: the training text fills only {tokenizer.vocab_size}; "
            f"use a longer text, or {option}={tokenizer.vocab_size}"
        )
    return tokenizer


def find_merges(ranks: Mapping[bytes, int]) -> dict[bytes, tuple[bytes, bytes]]:
    """Recover the merges of a vocabulary: the two tokens that each token of `ranks` is merged from.

    Runs BPE (arXiv 1508.07909) on the bytes of each token with lower ranks only, which leaves those two. A token that
    does not end as two has no entry: merges never make it.
    """
    merges = {}
    for token, rank in ranks.items():
        parts = [token[i : i + 1] for i in range(len(token))]
        # merge the pair of the lowest rank, the leftmost of equals, as BPE does
        while len(parts) > 2:
            pairs = (ranks.get(a + b, rank) for a, b in pairwise(parts))
            best, i = min((pair, i) for i, pair in enumerate(pairs))
            # no pair has a lower rank than the token itself: these parts stay more than two
            if best >= rank:
                break
            parts[i : i + 2] = [parts[i] + parts[i + 1]]
        if len(parts) == 2:
            merges[token] = (parts[0], parts[1])
    return merges


def _merged_tokens(merges: list[Merge]) -> dict[str, None]:
    """Return the bytes, then the token that each merge makes, as an ordered set."""
    made: dict[str, None] = dict.fromkeys(BYTES)
    for a, b in merges:
        if a not in made or b not in made:
            raise DataError(f"tokenizer: merges {a!r} and {b!r} before making both; save the tokenizer again")
        made[a + b] = None
    return made


def _with_ids(tokens: list[str], ids: Mapping[str, int]) -> dict[str, int]:
    try:
        return {token: ids[token] for token in dict.fromkeys(tokens)}
    except KeyError as error:
        raise DataError(f"tokenizer: the token {error} has no id; its files belong to different tokenizers") from None


def _pre_tokenizer(words: str | dict[str, Any]) -> dict[str, Any]:
    """Return the `pre_tokenizer` of a tokenizer.json that splits text into `words`."""
    if isinstance(words, dict):
        return words
    if words == GPT2_WORDS:
        return BYTE_LEVEL
    split = {"type": "Split", "pattern": {"Regex": words}, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [split, BYTE_LEVEL | {"use_regex": False}]}


def _library() -> Any:
    try:
        import tokenizers
    except ImportError as error:
        raise ConfigError(
            "data.tokenizer=bpe: needs the package tokenizers; pip install nested-learning[data], or use "
            "data.tokenizer=byte"
        ) from error
    return tokenizers
