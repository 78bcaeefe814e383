import base64
import json
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data.gpt2 import FOLDER, needs_gpt2

from nested_learning.data.text.stdlib import read_sources
from nested_learning.data.tokenizers import tokenizer as tokenizer_module
from nested_learning.data.tokenizers.bpe import BYTE_LEVEL, GPT2_WORDS, BpeTokenizer, find_merges, train_bpe
from nested_learning.data.tokenizers.byte_letters import BYTES, from_letters, to_letters
from nested_learning.data.tokenizers.tokenizer import FILE_NAME, ByteTokenizer, Tokenizer
from nested_learning.data.tokenizers.tokenizer_files import CL100K_WORDS, O200K_WORDS, open_tokenizer, read_tokenizer
from nested_learning.errors import ConfigError, DataError

SPECIALS = ["<|end|>", "<|endoftext|>", "<|im_start|>", "</s>"]


@pytest.fixture(scope="module")
def code() -> list[str]:
    return read_sources(Path(json.__file__).parents[1])[:40]


@pytest.fixture(scope="module")
def trained(code: list[str]) -> BpeTokenizer:
    return train_bpe(code, 1000)


@pytest.fixture(scope="module")
def gpt2() -> Tokenizer:
    return read_tokenizer(str(FOLDER))


def every_kind_of_text(code: list[str]) -> str:
    """Return code, many characters, assigned or not, runs of spaces, and the names of special tokens."""
    points = [*range(0x3000), *range(0x3000, 0xD800, 97), *range(0xE000, 0x110000, 1997)]
    letters = "".join(f"a{chr(i)}b {chr(i)}{chr(i)} 1" for i in points)
    spaces = "".join(" " * n + "\n" * (n % 3) + "\t" * (n % 2) + "x" for n in range(40))
    return letters + spaces + "".join(SPECIALS) + " don't WE'LL 123456\r\n" + "".join(code)[:100_000]


def ranks_file(tokenizer: BpeTokenizer, path: Path) -> Path:
    """Write the ranks of `tokenizer` in tiktoken's file format."""
    single = to_letters(bytes([i]) for i in range(256))
    tokens = from_letters(dict.fromkeys([*single, *(a + b for a, b in tokenizer.merges)]))
    path.write_text("".join(f"{base64.b64encode(token).decode()} {i}\n" for i, token in enumerate(tokens)))
    return path


def test_any_bytes_round_trip_are_counted_and_encode_to_no_special_token(
    trained: BpeTokenizer, request: pytest.FixtureRequest
) -> None:
    rng = random.Random(0)
    tokenizers: list[Tokenizer] = [ByteTokenizer(), trained]
    if FOLDER.is_dir():
        tokenizers.append(request.getfixturevalue("gpt2"))
    for i in range(2000):
        data = rng.randbytes(rng.randrange(12)) + rng.choice(SPECIALS).encode() * (i % 2) + "é ".encode()[i % 3 :]
        # the others decode more slowly by the same code
        for tokenizer in tokenizers if i % 50 == 0 else [trained]:
            tokens = tokenizer.encode_bytes(data)
            assert tokenizer.decode_bytes(tokens) == data
            assert tokenizer.token_bytes[tokens].sum() == len(data)
            assert tokenizer.end not in tokens


def test_a_saved_tokenizer_gives_the_same_tokens_in_other_libraries(
    trained: BpeTokenizer, code: list[str], tmp_path: Path
) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    trained.save(tmp_path)
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / FILE_NAME))
    text = every_kind_of_text(code)
    text = text.replace("<|end|>", "")
    assert theirs.encode(text).ids == trained.encode(text).tolist()
    # only the other library encodes the name of `end` in a text as that token
    assert theirs.encode("<|end|>").ids == [trained.end]
    assert theirs.decode(theirs.encode("a é\n").ids) == "a é\n"


@pytest.mark.parametrize("words", [None, CL100K_WORDS, O200K_WORDS], ids=["gpt2", "cl100k", "o200k"])
def test_both_libraries_encode_every_character_alike(
    trained: BpeTokenizer, code: list[str], words: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast = trained if words is None else BpeTokenizer(trained.merges, words=words)
    slow = BpeTokenizer(trained.merges, words=fast.words)
    monkeypatch.setitem(sys.modules, "tiktoken", None)
    assert slow._fast is None
    monkeypatch.undo()
    assert fast._fast is not None
    text = every_kind_of_text(code)
    assert np.array_equal(fast.encode(text), slow.encode(text))


def test_a_million_spaces_are_encoded_where_tiktoken_gives_up(trained: BpeTokenizer) -> None:
    text = "a" + " " * 1_000_000 + "b"
    with pytest.raises(ValueError, match="Regex error"):
        trained._fast.encode_to_numpy(text)
    tokens = trained.encode(text)
    assert trained.token_bytes[tokens].sum() == len(text)


@needs_gpt2
def test_gpt2_encodes_as_published(gpt2: Tokenizer) -> None:
    assert (gpt2.vocab_size, gpt2.end) == (50257, 50256)
    assert gpt2.encode("Hello world! don't 123  \n x").tolist() == [
        *(15496, 995, 0, 836, 470, 17031, 220, 220, 198, 2124),
    ]
    assert gpt2.decode([gpt2.end]) == "<|endoftext|>"


@needs_gpt2
def test_gpt2_is_the_same_from_any_of_its_files(gpt2: Tokenizer, code: list[str], tmp_path: Path) -> None:
    assert isinstance(gpt2, BpeTokenizer)
    gpt2.save(tmp_path)
    text = every_kind_of_text(code)
    tokens = gpt2.encode(text)
    again = read_tokenizer(str(tmp_path / FILE_NAME))
    assert again.fingerprint == gpt2.fingerprint
    assert np.array_equal(again.encode(text), tokens)
    assert gpt2.token_bytes[tokens].sum() == len(text.encode())


def test_merges_are_recovered_from_ranks(trained: BpeTokenizer, code: list[str], tmp_path: Path) -> None:
    opened = read_tokenizer(str(ranks_file(trained, tmp_path / "r50k_base.tiktoken")))
    assert isinstance(opened, BpeTokenizer)
    assert opened.merges == trained.merges
    text = every_kind_of_text(code)
    assert b"".join(opened._bytes_of[i] for i in opened.encode(text).tolist()).decode() == text
    assert len(opened.encode(text)) == len(trained.encode(text))


def test_a_file_of_ranks_with_an_unknown_name_needs_a_word_pattern(trained: BpeTokenizer, tmp_path: Path) -> None:
    path = ranks_file(trained, tmp_path / "mine.tiktoken")
    with pytest.raises(DataError, match=r"write the regular expression into a file mine\.tiktoken\.words"):
        read_tokenizer(str(path))
    (tmp_path / "mine.tiktoken.words").write_text(r"\p{N}|\P{N}+" + "\n")
    assert len(read_tokenizer(str(path)).encode("12")) == 2


def test_a_token_is_merged_from_the_two_parts_that_bpe_leaves() -> None:
    ranks = {bytes([i]): i for i in range(256)} | {b"ab": 300, b"bc": 301, b"abc": 302, b"xyz": 303}
    # ab comes before bc, and nothing makes xyz
    assert find_merges(ranks) == {b"ab": (b"a", b"b"), b"bc": (b"b", b"c"), b"abc": (b"ab", b"c")}


def saved_json(tokenizer: BpeTokenizer, folder: Path, **changes: Any) -> str:
    """Save `tokenizer` with other values at `model.x`, written `model__x`, or at the root; return the file."""
    tokenizer.save(folder)
    saved = json.loads((folder / FILE_NAME).read_text())
    for key, value in changes.items():
        *into, last = key.split("__")
        (saved[into[0]] if into else saved)[last] = value
    (folder / FILE_NAME).write_text(json.dumps(saved))
    return str(folder / FILE_NAME)


def added(text: str, **changes: Any) -> dict[str, Any]:
    """Return an entry of added_tokens, by default one that is not special."""
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    return {"id": 2000, "content": text} | flags | changes


def after(step: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "pretokenizers": [step, BYTE_LEVEL]}


def split(behavior: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"String": "a"}, "behavior": behavior, "invert": False}


# in parts of words, next to each other, one within another, at both ends
ADDED_IN_TEXT = "  x  y\n    z  foo barfoo foo foofoo_foo é foo\u0301 <|end|> <|mark|>a<|mark|>foo  re are re"


@pytest.mark.parametrize("single_word", [False, True])
@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("with_end", [False, True])
def test_added_tokens_that_are_not_special_encode_as_the_file_says(
    trained: BpeTokenizer, tmp_path: Path, single_word: bool, normalized: bool, with_end: bool
) -> None:
    library = pytest.importorskip("tokenizers")
    flags = {"single_word": single_word, "normalized": normalized}
    words = ["  ", "    ", "foo", "foofoo", "<|mark|>", "ab cd", "re"]
    ids = {"re": trained._vocab["re"]}
    entries = [added(word, id=ids.get(word, 1000 + number), **flags) for number, word in enumerate(words)]
    path = saved_json(trained, tmp_path, added_tokens=entries + [added("<|end|>", id=999, special=True)] * with_end)
    opened, theirs = read_tokenizer(path), library.Tokenizer.from_file(path)
    theirs.encode_special_tokens = True
    content = {each["id"]: each["content"] for each in entries}
    expected = [theirs.id_to_token(token) for token in theirs.encode(ADDED_IN_TEXT).ids]
    tokens = opened.encode(ADDED_IN_TEXT)
    assert [content.get(token) or theirs.id_to_token(token) for token in tokens.tolist()] == expected
    assert opened.decode(tokens) == ADDED_IN_TEXT and opened.end not in tokens
    assert opened.token_bytes[tokens].sum() == len(ADDED_IN_TEXT.encode())
    assert "foofoo" in expected or single_word
    opened.save(tmp_path)
    again = open_tokenizer(tmp_path)
    assert again.fingerprint == opened.fingerprint and np.array_equal(again.encode(ADDED_IN_TEXT), tokens)


def test_runs_of_spaces_are_tokens_where_the_file_adds_them(trained: BpeTokenizer, tmp_path: Path) -> None:
    runs = [added(" " * n, id=1000 + n, normalized=True) for n in range(2, 9)]
    opened = read_tokenizer(saved_json(trained, tmp_path, added_tokens=runs, normalizer={"type": "NFC"}))
    assert [token for token in opened.encode("def f():\n        return 1\n").tolist() if token > 1000] == [1008]


def test_no_text_encodes_to_an_added_token(trained: BpeTokenizer, tmp_path: Path) -> None:
    added = [{"id": 2000 + i, "content": text, "special": True} for i, text in enumerate(SPECIALS[1:])]
    opened = read_tokenizer(saved_json(trained, tmp_path, added_tokens=added))
    assert (opened.end, opened.vocab_size) == (2000, 2003)
    assert opened.decode([2001, 1500]) == "<|im_start|>"
    assert opened.encode("".join(SPECIALS)).max() < 1000
    assert opened.token_bytes[1000:].sum() == 0


def test_merges_that_never_happen_are_dropped(trained: BpeTokenizer, code: list[str], tmp_path: Path) -> None:
    vocab = {a + b for a, b in trained.merges} | set(to_letters(bytes([i]) for i in range(256)))
    every = [
        (token[:i], token[i:])
        for token in (a + b for a, b in trained.merges)
        for i in range(1, len(token))
        if token[:i] in vocab and token[i:] in vocab
    ]
    assert len(every) > len(trained.merges)
    opened = read_tokenizer(saved_json(trained, tmp_path, model__merges=every))
    assert isinstance(opened, BpeTokenizer)
    assert opened.fingerprint == trained.fingerprint
    theirs = pytest.importorskip("tokenizers").Tokenizer.from_file(str(tmp_path / FILE_NAME))
    text = every_kind_of_text(code).replace("<|end|>", "")
    assert theirs.encode(text).ids == opened.encode(text).tolist()


def test_a_pre_tokenizer_of_several_steps_is_kept(trained: BpeTokenizer, tmp_path: Path) -> None:
    digits = {"type": "Digits", "individual_digits": True}
    cutter = {"type": "Sequence", "pretokenizers": [digits, BYTE_LEVEL]}
    opened = read_tokenizer(saved_json(trained, tmp_path, pre_tokenizer=cutter))
    assert len(opened.encode("1234")) == 4
    opened.save(tmp_path)
    assert open_tokenizer(tmp_path).fingerprint == opened.fingerprint


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model__type": "Unigram"}, "a Unigram tokenizer is not lossless"),
        ({"model__byte_fallback": True}, "byte_fallback=True is not lossless"),
        ({"model__unk_token": "<unk>"}, "unk_token=<unk> is not lossless"),
        ({"normalizer": {"type": "Lowercase"}}, "its normalizer changes the text"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "its pre_tokenizer must be ByteLevel"),
        ({"pre_tokenizer": BYTE_LEVEL | {"add_prefix_space": True}}, "must be ByteLevel without a prefix"),
        ({"pre_tokenizer": None}, "its pre_tokenizer must be ByteLevel"),
        ({"pre_tokenizer": after({"type": "Whitespace"})}, "its pre_tokenizer Whitespace changes or drops text"),
        ({"pre_tokenizer": after({"type": "Metaspace"})}, "its pre_tokenizer Metaspace changes or drops text"),
        ({"pre_tokenizer": after(BYTE_LEVEL)}, "its pre_tokenizer ByteLevel changes or drops text"),
        ({"pre_tokenizer": after(split("Removed"))}, "its pre_tokenizer Split changes or drops text"),
        ({"pre_tokenizer": after(split("Isolated") | {"pattern": {"Regex": "("}})}, "tokenizers cannot use it"),
        ({"pre_tokenizer": {"type": "Sequence", "pretokenizers": []}}, "its pre_tokenizer must be ByteLevel"),
        ({"model__vocab": {"a": 0}}, "255 of the 256 bytes have no token, such as 0x21"),
        ({"model__vocab": dict.fromkeys(BYTES, 0), "model__merges": []}, "have one id, 0"),
        ({"model__vocab": {letter: f"{i}" for i, letter in enumerate(BYTES)}}, "cannot be read as a tokenizer"),
        ({"model__vocab": BYTES | {"a": 1 << 40}, "model__merges": []}, "ids are whole numbers"),
        ({"model__vocab": BYTES}, "has no id; its files belong to different tokenizers"),
        (
            {"added_tokens": [added("x y", lstrip=True)]},
            "its added token 'x y' has lstrip=true, which drops the spaces",
        ),
        ({"added_tokens": [added("x y", rstrip=True)]}, "its added token 'x y' has rstrip=true"),
        ({"added_tokens": [added("é")]}, "its added token 'é' has the name of another token"),
        ({"added_tokens": [added("a", id=2000)]}, "its added token 'a' has the name of another token"),
        ({"added_tokens": [added("x y", id=5)]}, "have one id, 5"),
        ({"added_tokens": [added("x y", id=-1)]}, "ids are whole numbers"),
        ({"added_tokens": 3}, "cannot be read as a tokenizer"),
        ({"model__merges": [["a", "▁b"]]}, "before making both"),
        ({"model": 3}, "is not a tokenizer"),
    ],
)
def test_a_tokenizer_that_is_not_lossless_is_refused(
    trained: BpeTokenizer, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=rf"{FILE_NAME}: .*{message}.*"):
        read_tokenizer(saved_json(trained, tmp_path, **changes))


@pytest.mark.parametrize(
    "step",
    [
        split("MergedWithPrevious"),
        {"type": "Punctuation", "behavior": "Isolated"},
        {"type": "UnicodeScripts"},
        after(split("Isolated")),
    ],
)
def test_pre_tokenizers_that_only_split_text_encode_as_the_file_says(
    trained: BpeTokenizer, tmp_path: Path, step: dict[str, Any]
) -> None:
    library = pytest.importorskip("tokenizers")
    inner = {"type": "Sequence", "pretokenizers": step["pretokenizers"][:1]} if "pretokenizers" in step else step
    path = saved_json(trained, tmp_path, pre_tokenizer=after(inner))
    text = "the cat, that sat.  a木a 12\n"
    tokens = read_tokenizer(path).encode(text)
    assert tokens.tolist() == library.Tokenizer.from_file(path).encode(text).ids
    assert trained.decode(tokens) == text


def test_files_of_old_versions_of_the_library_are_read(trained: BpeTokenizer, tmp_path: Path) -> None:
    saved_json(trained, tmp_path, pre_tokenizer={"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True})
    saved = json.loads((tmp_path / FILE_NAME).read_text())
    del saved["model"]["type"], saved["normalizer"]
    (tmp_path / FILE_NAME).write_text(json.dumps(saved))
    assert read_tokenizer(str(tmp_path)).fingerprint == trained.fingerprint


@pytest.mark.parametrize(
    ("merges", "whole", "words", "text"),
    [
        # the listed merge of abc never happens, as bc is merged first
        ([("b", "c"), ("a", "b"), ("ab", "c")], [], GPT2_WORDS, "abc"),
        # no merge makes abc: only the whole word is this token
        ([("a", "b")], ["abc"], GPT2_WORDS, "abc abcd"),
        # the two libraries know other characters by these names
        ([("a", "b")], [], r"\w+|\W+", "ab\u200dab ²ab"),
        ([("a", "b")], [], r"\h+|\H+", "ab ab"),
    ],
)
def test_where_the_libraries_could_differ_tokens_are_those_of_the_files_own(
    tmp_path: Path, merges: list[tuple[str, str]], whole: list[str], words: str, text: str
) -> None:
    library = pytest.importorskip("tokenizers")
    made = [*BYTES, *(a + b for a, b in merges), *whole]
    tokenizer = BpeTokenizer(merges, {token: i for i, token in enumerate(made)}, words)
    tokenizer.save(tmp_path)
    theirs = library.Tokenizer.from_file(str(tmp_path / FILE_NAME))
    assert tokenizer.encode(text).tolist() == theirs.encode(text).ids
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_file_of_ranks_without_all_bytes_is_refused_with_the_reason(trained: BpeTokenizer, tmp_path: Path) -> None:
    path = ranks_file(trained, tmp_path / "r50k_base.tiktoken")
    path.write_text("".join(path.read_text().splitlines(keepends=True)[5:]))
    with pytest.raises(DataError, match="5 of the 256 bytes have no token"):
        read_tokenizer(str(path))


def pair_files(tokenizer: BpeTokenizer, folder: Path, newline: str = "\n") -> str:
    """Write `tokenizer` as vocab.json and merges.txt."""
    (folder / "vocab.json").write_text(json.dumps(tokenizer._vocab))
    (folder / "merges.txt").write_text("".join(f"{a} {b}{newline}" for a, b in tokenizer.merges), newline="")
    return str(folder)


def test_a_pair_of_files_may_have_any_line_ends_and_no_added_tokens_beside(
    trained: BpeTokenizer, tmp_path: Path
) -> None:
    assert read_tokenizer(pair_files(trained, tmp_path, "\r\n")).fingerprint == trained.fingerprint
    (tmp_path / "added_tokens.json").write_text('{"  ": 1000}')
    with pytest.raises(DataError, match=r"added tokens in added_tokens\.json.*save_pretrained"):
        read_tokenizer(str(tmp_path))


def test_a_path_with_no_tokenizer_is_refused_with_what_is_allowed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.tokenizer=word: must be byte, bpe, words, or the path"):
        read_tokenizer("word")
    with pytest.raises(ConfigError, match="no tokenizer in this folder"):
        read_tokenizer(str(tmp_path))
    (tmp_path / "r50k_base.tiktoken").write_bytes(b"\0\x01 sentence piece")
    with pytest.raises(DataError, match="cannot be read as a tokenizer"):
        read_tokenizer(str(tmp_path / "r50k_base.tiktoken"))


def test_files_of_earlier_versions_still_open(trained: BpeTokenizer, tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text(json.dumps({"name": "bpe", "merges": trained.merges}))
    assert open_tokenizer(tmp_path).fingerprint == trained.fingerprint


@pytest.mark.parametrize("words", [GPT2_WORDS, CL100K_WORDS, O200K_WORDS], ids=["gpt2", "cl100k", "o200k"])
def test_encoding_in_parts_gives_the_same_tokens(
    trained: BpeTokenizer, code: list[str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = BpeTokenizer(trained.merges, words=words)
    text = every_kind_of_text(code)
    whole = tokenizer.encode(text)
    monkeypatch.setattr(tokenizer_module, "PART_LENGTH", 50)
    assert len(list(tokenizer_module.split_parts(text))) > 1000
    assert np.array_equal(tokenizer.encode(text), whole)
