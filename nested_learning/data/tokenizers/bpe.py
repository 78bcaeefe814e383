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
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nested_learning.data.tokenizers.byte_letters import BYTES, LETTERS, from_letters, to_letters
from nested_learning.data.tokenizers.tokenizer import END_TEXT, FILE_NAME, TokenIds, split_parts, to_utf8
from nested_learning.errors import ConfigError, DataError

Merge = tuple[str, str]

# GPT-2's pattern that splits text into words; no token crosses a word. `tokenizers` calls it ByteLevel
GPT2_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
# an equivalent pattern for tiktoken: with all alternatives without look-ahead in one group it is a third faster
GPT2_FAST = r"(?: ?\p{L}+|'(?:s|t|re|ve|m|ll|d)| ?\p{N}+| ?[^\s\p{L}\p{N}]+)|\s+(?!\S)|\s+"
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}

# patterns that tiktoken and `tokenizers` read alike: `\w`, `\d` and others stand for other characters in each
READ_ALIKE = re.compile(r"(?:[^\\]|\\[pPsSrn])*")

# bytes that are not utf-8, as surrogateescape puts them into a str
ESCAPED = re.compile("([\udc80-\udcff]+)")

# ids are below this; larger ones are damage, and would fill the memory
MAX_VOCAB_SIZE = 1 << 24


class AddedToken(NamedTuple):
    """A token that is split off wherever a text contains it, before the text is split into words.

    `single_word`: only where no letter, digit or underscore is next to it. `normalized`: after tokens that are not.
    """

    id: int
    single_word: bool
    normalized: bool


class BpeTokenizer:
    """Byte-level byte-pair encoding (arXiv 1508.07909, on bytes as in GPT-2).

    `merges`: pairs of tokens in the order learned, each byte written as its letter of `byte_letters.py`. `ids`: the id
    of each token; by default the bytes, then the results of merges. `words`: the regular expression that splits text
    into words, or the `pre_tokenizer` of a tokenizer.json. `specials`: ids that no text encodes to, by name; by default
    `end` alone, one above all other ids. A token in `ids` that no merge makes encodes only a word equal to it.
    `added`: added tokens by their text.
    """

    name = "bpe"

    def __init__(
        self,
        merges: Sequence[Merge],
        ids: Mapping[str, int] | None = None,
        words: str | dict[str, Any] = GPT2_WORDS,
        specials: Mapping[str, int] | None = None,
        end: str = END_TEXT,
        added: Mapping[str, AddedToken] | None = None,
    ) -> None:
        """Raises DataError for a merge of unknown tokens, a byte or merged token without an id, and two with one id."""
        self.merges, self.words, self.added = list(merges), words, dict(added or {})
        made = _merged_tokens(self.merges)
        plain = {token: i for i, token in enumerate(made)}
        self._vocab = plain if ids is None else _with_ids([*made, *ids], ids)
        self._num_made = len(made)
        self.specials = dict(specials or {end: max(self._vocab.values()) + 1})
        self.end = self.specials[end]
        self.vocab_size = _vocab_size(self._all_ids())
        self._bytes_of = [b""] * self.vocab_size
        for token, i in zip(from_letters(self._vocab), self._vocab.values(), strict=True):
            self._bytes_of[i] = token
        for text, extra in self.added.items():
            self._bytes_of[extra.id] = text.encode()
        # counted before special tokens get their names, which stand for no bytes of a text
        self.token_bytes = np.array([len(token) for token in self._bytes_of], dtype=np.int64)
        for text, i in self.specials.items():
            self._bytes_of[i] = text.encode()
        # the fingerprint of a tokenizer trained here is that of its merges alone
        definition: list[Any] = ["bpe", self.merges]
        if (self._vocab, words, self.specials, self.added) != (plain, GPT2_WORDS, {END_TEXT: len(plain)}, {}):
            definition += [sorted(self._vocab.items()), words, sorted(self.specials.items()), end]
        if self.added:
            definition.append(sorted(self.added.items()))
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
        definition = json.dumps(self.definition(), ensure_ascii=False)
        (directory / FILE_NAME).write_text(definition + "\n", encoding="utf-8")

    def definition(self, *, with_specials: bool = True) -> dict[str, Any]:
        """Return the contents of a tokenizer.json; other libraries encode the name of a special token in a text to it.

        Without special tokens they encode every text as `encode` does.
        """
        specials = self.specials if with_specials else {}
        added = [added_entry(text, AddedToken(i, False, False), special=True) for text, i in specials.items()]
        added += [added_entry(text, token, special=False) for text, token in self.added.items()]
        model: dict[str, Any] = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None}
        model |= {"end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False}
        # with ignore_merges a word that is a token encodes to it, although no merge makes it
        model |= {"ignore_merges": len(self._vocab) > self._num_made, "vocab": self._all_ids(), "merges": self.merges}
        return {
            "version": "1.0", "truncation": None, "padding": None,
            "added_tokens": sorted(added, key=lambda token: token["id"]), "normalizer": None,
            "pre_tokenizer": _pre_tokenizer(self.words), "post_processor": None, "decoder": BYTE_LEVEL, "model": model,
        }  # fmt: skip

    def _all_ids(self) -> dict[str, int]:
        """Return the id of every token: those of text, as letters, then special and added tokens, as their text."""
        return self._vocab | self.specials | {text: token.id for text, token in self.added.items()}

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

        BPE ranks merges, tiktoken ranks tokens, and merges any two whose bytes together are a token. Both are the same
        where the merges are those that follow from the ranks of the tokens, as training leaves them.
        """
        if self.added or not isinstance(self.words, str) or READ_ALIKE.fullmatch(self.words) is None:
            return None
        try:
            import tiktoken
        except ImportError:
            return None
        ranks = {token: rank for rank, token in enumerate(from_letters(self._vocab))}
        if in_letters(list(find_merges(ranks).values())) != self.merges:
            return None
        words = GPT2_FAST if self.words == GPT2_WORDS else self.words
        try:
            return tiktoken.Encoding(self.name, pat_str=words, mergeable_ranks=ranks, special_tokens={})
        except ValueError:
            # a pattern that only `tokenizers` reads
            return None

    @cached_property
    def _slow(self) -> Any:
        library, definition = _library(), self.definition(with_specials=False)
        # a word may be equal to the name of a special token
        definition["model"]["vocab"] = {text: i for text, i in self._all_ids().items() if text not in self.specials}
        try:
            return library.Tokenizer.from_str(json.dumps(definition))
        # the library raises no narrower class
        except Exception as error:
            raise DataError(
                f"tokenizer: the package tokenizers cannot use it ({error}); save the tokenizer again"
            ) from error


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


def in_letters(merges: Sequence[tuple[bytes, bytes]]) -> list[Merge]:
    """Return merges of bytes as merges of letters."""
    firsts, seconds = to_letters(a for a, _ in merges), to_letters(b for _, b in merges)
    return list(zip(firsts, seconds, strict=True))


def _merged_tokens(merges: list[Merge]) -> dict[str, None]:
    """Return the bytes, then the token that each merge makes, as an ordered set."""
    made: dict[str, None] = dict.fromkeys(BYTES)
    for a, b in merges:
        if a not in made or b not in made:
            raise DataError(f"tokenizer: merges {a!r} and {b!r} before making both; save the tokenizer again")
        made[a + b] = None
    return made


def _with_ids(tokens: list[str], ids: Mapping[str, int]) -> dict[str, int]:
    missing = [BYTES[letter] for letter in BYTES if letter not in ids]
    if missing:
        raise DataError(
            f"tokenizer: {len(missing)} of the 256 bytes have no token, such as {missing[0]:#04x}, so it cannot encode "
            "every text; train it again with initial_alphabet=ByteLevel.alphabet()"
        )
    try:
        return {token: ids[token] for token in dict.fromkeys(tokens)}
    except KeyError as error:
        raise DataError(f"tokenizer: the token {error} has no id; its files belong to different tokenizers") from None


def _vocab_size(ids: Mapping[str, int]) -> int:
    """Return the number of ids from 0 to the largest of `ids`. Raises DataError for ids that are no such numbers."""
    names = {i: token for token, i in ids.items()}
    for token, i in ids.items():
        if type(i) is not int or not 0 <= i < MAX_VOCAB_SIZE:
            raise DataError(
                f"tokenizer: the token {token!r} has the id {i!r}; ids are whole numbers from 0, below {MAX_VOCAB_SIZE}"
            )
        if names[i] != token:
            raise DataError(f"tokenizer: {token!r} and {names[i]!r} have one id, {i}; save the tokenizer again")
    return max(names) + 1


def added_entry(text: str, token: AddedToken, *, special: bool) -> dict[str, Any]:
    """Return an entry of `added_tokens` in a tokenizer.json."""
    flags = {"single_word": token.single_word, "lstrip": False, "rstrip": False, "normalized": token.normalized}
    return {"id": token.id, "content": text} | flags | {"special": special}


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
            "data.tokenizer=bpe: needs the package tokenizers; pip install -e '.[data]', or use data.tokenizer=byte"
        ) from error
    return tokenizers
