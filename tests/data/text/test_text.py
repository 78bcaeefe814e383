import gzip
import logging
import os
import sys
from pathlib import Path

import pytest

from nested_learning.data.text.packed import PackedText
from nested_learning.data.text.text import TextConfig, read_documents, read_span
from nested_learning.errors import ConfigError, DataError


def write(folder: Path, **files: str | bytes) -> Path:
    """Write files, `name="text"` to `name.txt`."""
    folder.mkdir(exist_ok=True)
    for name, contents in files.items():
        (folder / f"{name}.txt").write_bytes(contents.encode() if isinstance(contents, str) else contents)
    return folder


def config(path: str | list[str] | None, **values: int) -> TextConfig:
    return TextConfig(path=path, **{"seq_len": 8} | values)  # type: ignore[arg-type]


def text_of(source: PackedText, split: str) -> str:
    assert source.tokenizer is not None
    rows = [source.row(split, 0, index).tokens for index in range(source.num_rows(split))]
    return "".join(map(source.tokenizer.decode, rows))


def test_file_folder_glob_and_list_read_the_same_files(tmp_path: Path) -> None:
    folder = write(tmp_path / "texts", a="first", b="second", c="third")
    expected = ["first", "second", "third"]
    assert read_documents([str(folder)]) == expected
    assert read_documents([str(folder / "*.txt")]) == expected
    assert read_documents([str(tmp_path / "**" / "*.txt")]) == expected
    assert read_documents([str(folder / f"{name}.txt") for name in "abc"]) == expected


def test_an_existing_path_with_glob_characters_is_that_file(tmp_path: Path) -> None:
    (tmp_path / "a[1].txt").write_text("named so")
    assert read_documents([str(tmp_path / "a[1].txt")]) == ["named so"]


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(write(tmp_path, a="at home")))
    assert read_documents(["~/a.txt"]) == read_documents(["~/*.txt"]) == ["at home"]


def test_validation_files_were_not_trained_on(tmp_path: Path) -> None:
    files = {f"f{i}": f"file {i} with some text of its own\n" for i in range(30)}
    source = config(str(write(tmp_path, **files))).build(0)
    train, validation = text_of(source, "train"), text_of(source, "validation")
    assert {(text in train) + (text in validation) for text in files.values()} == {1}
    assert sum(text in validation for text in files.values()) == 3


def test_a_program_may_hold_tables_between_its_text(tmp_path: Path) -> None:
    for name in ("a.py", "package.json", "table.csv"):
        (tmp_path / name).write_text(name)
    assert read_documents([str(tmp_path)]) == ["a.py", "package.json", "table.csv"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_the_mark_of_an_encoding_is_obeyed_and_no_part_of_the_text(tmp_path: Path, encoding: str) -> None:
    text = "€zeile é 漢字\r\n"
    (tmp_path / "a.txt").write_bytes((text if encoding[-1] in "g62" else f"\ufeff{text}").encode(encoding))
    assert read_documents([str(tmp_path / "a.txt")]) == [text]


def test_a_span_has_no_mark_of_the_encoding(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("\ufefftext and more".encode())
    assert read_span([str(tmp_path / "a.txt")], [0, 7]) == "text"


def test_an_empty_path_is_not_the_working_directory() -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        read_documents([""])


def test_the_home_of_nobody_is_refused() -> None:
    with pytest.raises(DataError, match=r"data\.path=~no_such_user/a: cannot be read"):
        read_documents(["~no_such_user/a"])


def test_line_ends_and_other_characters_are_kept(tmp_path: Path) -> None:
    text = "€zeile é\r\nzeile\r\n" * 20
    source = config(str(write(tmp_path, a=text) / "a.txt")).build(0)
    read = text_of(source, "train").replace("<|end|>", "")
    assert text.startswith(read)
    assert len(read) > 0.8 * len(text)


def test_the_fingerprint_changes_with_the_text_and_not_with_its_path(tmp_path: Path) -> None:
    text = "some text for both of them\n" * 10
    here, there = write(tmp_path / "here", a=text), write(tmp_path / "there", a=text)
    before = config(str(here)).build(0).fingerprint
    assert before == config(str(there / "*.txt"), seq_len=4).build(1).fingerprint
    write(here, a=text.replace("both", "Both"))
    assert before != config(str(here)).build(0).fingerprint


def test_a_trained_tokenizer_never_saw_the_validation_text(tmp_path: Path) -> None:
    letters = "abcdefghijklmnoprstuvwxyz"
    text = " ".join(a + b for a in letters for b in letters) + "\n" + "q" * 190
    source = config(str(write(tmp_path, a=text)), tokenizer="bpe", vocab_size=262).build(0)  # type: ignore[arg-type]
    assert source.tokenizer is not None
    assert source.vocab_size == 262
    assert len(source.tokenizer.encode("qqqqqqqq")) == 8
    assert len(source.tokenizer.encode(text)) < len(text)


def test_folders_and_globs_leave_out_files_that_are_not_text_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write(tmp_path, a="text", binary=b"\0\1\2", empty="", latin=b"caf\xe9")
    for path in (folder, folder / "*"):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert read_documents([str(path)]) == ["text"]
        assert "left out 3 of 4 files" in caplog.text
        assert "binary.txt" in caplog.text


# files that would be read as text, although their records or compressed bytes are not it
LINES = b'{"text": "a"}\n{"text": "b"}\n'
FOREIGN = {
    "records.jsonl": LINES,
    "records.NDJSON": LINES,
    "lines.txt": b"\n" + LINES,
    "array.json": b'[{"text": "a"}]',
    "table.csv": b"id,text\n1,a\n",
    "text.txt.gz": gzip.compress(b"text"),
    "mixed/a.md": b"text",
    "mixed/more.jsonl": LINES,
    "saved/data-00000-of-00001.arrow": b"ARROW1\0",
    "saved/dataset_info.json": b'{"features": {}}',
    "shards/manifest.json": b"{}",
    "shards/train_00000.tokens": b"\0\1",
}


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("missing.txt", "no such file or folder"),
        ("missing/*.txt", "no text there, it has no files"),
        ("empty.txt", "is empty"),
        ("nul.txt", "is not utf-8 text"),
        ("latin.txt", "is not utf-8 text"),
        ("folder", "no text there, it has no files"),
        ("binaries", "no text there, all 2 files are empty or not utf-8"),
        ("binaries/*", "no text there, all 2 files are empty or not utf-8"),
        ("dangling", "no such file or folder"),
        ("x" * 300, "cannot be read"),
        ("records.jsonl", "records.jsonl is JSON lines, not plain text; run python scripts/prepare_data.py <shards> "),
        ("records.NDJSON", "records.NDJSON is JSON lines"),
        ("lines.txt", "lines.txt is JSON lines"),
        ("array.json", "array.json is JSON,"),
        ("table.csv", "table.csv is a table"),
        ("text.txt.gz", "text.txt.gz is compressed"),
        ("mixed", "more.jsonl is JSON lines"),
        ("mixed/*", "more.jsonl is JSON lines"),
        ("*.json", "array.json is JSON,"),
        ("saved", "data-00000-of-00001.arrow is Arrow"),
        ("shards", "holds token shards, not text; use data=tokens data.path=<?.*shards"),
    ],
)
def test_a_path_without_text_is_refused_by_name(tmp_path: Path, path: str, message: str) -> None:
    write(tmp_path, empty="", nul=b"text\0", latin=b"caf\xe9", good="good text")
    write(tmp_path / "binaries", one=b"\0", two=b"\xff")
    (tmp_path / "folder").mkdir()
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    for name, contents in FOREIGN.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(contents)
    where = str(tmp_path / path)
    for paths in ([where], [str(tmp_path / "good.txt"), where]):
        with pytest.raises(DataError, match=message) as caught:
            read_documents(paths)
        assert str(caught.value).startswith(f"data.path={where}: ")
        # the option with what it should be
        assert str(caught.value).count("data.path=") > 1
        assert "\n" not in str(caught.value)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux has a file that no user can read")
def test_a_file_the_system_refuses_to_read_is_a_data_error() -> None:
    with pytest.raises(DataError, match=r"data\.path=/proc/self/mem: cannot be read"):
        read_documents(["/proc/self/mem"])


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="nothing is unreadable for root")
def test_a_file_without_permission_is_never_left_out(tmp_path: Path) -> None:
    (write(tmp_path, a="text", b="secret") / "b.txt").chmod(0)
    for path in (tmp_path, tmp_path / "*.txt", tmp_path / "b.txt"):
        with pytest.raises(DataError, match="cannot be read"):
            read_documents([str(path)])


@pytest.mark.parametrize("path", [None, "", []])
def test_no_path_at_all_is_a_config_error(path: str | list[str] | None) -> None:
    with pytest.raises(ConfigError, match=r"data\.path is missing; use data\.path=<"):
        config(path)


def test_a_text_shorter_than_one_sequence_is_refused(tmp_path: Path) -> None:
    path = str(write(tmp_path, a="short\n" * 10) / "a.txt")
    with pytest.raises(DataError, match=r"data\.path=.*a\.txt, validation split: 7 tokens .* at most data\.seq_len=7"):
        config(path, seq_len=20).build(0)
    assert config(path, seq_len=7).build(0).num_rows("validation") == 1
