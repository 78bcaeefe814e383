import sys
from pathlib import Path

import pytest
from data.rows import KINDS, make_documents, write_lines, write_parquet, write_zstandard

from nested_learning.data.text import readers
from nested_learning.data.text.readers import Reader, find_inputs
from nested_learning.errors import ConfigError, DataError

SEPARATED = Reader(separator="<|next|>")


def read_all(source: str, reader: Reader) -> list[str | None]:
    return [text for each in find_inputs([source]) for text in reader.read(each.name)]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_gives_the_same_documents(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "ROWS", 5)
    monkeypatch.setattr(readers, "CHARACTERS", 11)
    documents = make_documents()
    source = KINDS[kind](tmp_path / kind, documents)
    reader = SEPARATED if kind == "separated" else Reader()
    assert read_all(source, reader) == documents
    for each in find_inputs([source])[:2]:
        whole = list(reader.read(each.name))
        for skip in (0, 1, 6, 7, 8, 24, len(whole) - 1, len(whole), len(whole) + 1):
            assert list(reader.read(each.name, skip)) == whole[skip:]


def test_a_document_that_is_not_text_is_counted_and_has_none(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "a"}\n{"text": ""}\n\n{"text": null}\n{"text": "\\ud800"}\n{"text": "\\u0000"}\n')
    assert read_all(str(path), Reader()) == ["a", None, None, None, None]
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe")
    assert read_all(str(tmp_path / "b.txt"), Reader()) == [None]
    (tmp_path / "c.txt").write_bytes(b"a;b\0;;c")
    assert read_all(str(tmp_path / "c.txt"), Reader(separator=";")) == ["a", None, "c"]


def test_the_text_may_be_in_another_field(tmp_path: Path) -> None:
    path = tmp_path / "a.ndjson"
    path.write_text('{"content": "a"}\n')
    assert read_all(str(path), Reader(field="content")) == ["a"]


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (b'{"text": "a"}\n{"text"\n', "a.jsonl, line 2: not JSON"),
        (b'{"text": "a"}\n{"body": "b"}\n', r"a.jsonl, line 2: no key 'text', its keys are body; .* --field"),
        (b'["a"]\n', "a.jsonl, line 1: no key 'text', it is not an object"),
        (b'{"text": 3}\n', "a.jsonl, line 1: is int, not text"),
        (b'{"text": "\xff"}\n', "a.jsonl, line 1: not JSON"),
    ],
)
def test_a_line_that_cannot_be_read_is_named(tmp_path: Path, contents: bytes, message: str) -> None:
    (tmp_path / "a.jsonl").write_bytes(contents)
    with pytest.raises(DataError, match=message):
        read_all(str(tmp_path / "a.jsonl"), Reader())


@pytest.mark.parametrize("kind", ["gzip", "zstandard", "parquet", "arrow"])
def test_a_truncated_file_is_an_error_that_names_it(kind: str, tmp_path: Path) -> None:
    source = KINDS[kind](tmp_path / kind, make_documents())
    path = Path(find_inputs([source])[-1].name)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match=path.name):
        read_all(str(path), Reader())


@pytest.mark.parametrize("kind", ["parquet", "arrow", "hub"])
def test_a_missing_column_is_refused_and_the_existing_ones_are_named(kind: str, tmp_path: Path) -> None:
    source = KINDS[kind](tmp_path / kind, make_documents())
    with pytest.raises(DataError, match=r"no column 'body', only .*text"):
        read_all(source, Reader(field="body"))


def test_a_missing_data_set_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    with pytest.raises(DataError, match=r"hf:.*cannot be read"):
        read_all(f"hf:{tmp_path / 'none'}", Reader())
    write_parquet(tmp_path / "set", make_documents())
    with pytest.raises(DataError, match="cannot be read"):
        read_all(f"hf:{tmp_path / 'set'}::test", Reader())


def test_sources_are_read_in_the_order_given_and_folders_by_name(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt", ".hidden", "c.md"):
        (tmp_path / name).write_text(name)
    found = find_inputs([str(tmp_path / "c.md"), str(tmp_path), str(tmp_path / "*.txt"), "hf:x:y"])
    assert [Path(each.name).name for each in found] == ["c.md", "a.txt", "b.txt", "c.md", "a.txt", "b.txt", "hf:x:y"]
    assert [each.size for each in found[:1] + found[-1:]] == [4, None]
    with pytest.raises(ConfigError, match="none: no such file"):
        find_inputs([str(tmp_path / "none")])


@pytest.mark.parametrize(("package", "write"), [("zstandard", write_zstandard), ("pyarrow", write_parquet)])
def test_without_a_library_the_error_says_what_to_install(
    package: str, write: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = {"zstandard": write_zstandard, "pyarrow": write_parquet}[package](tmp_path / "rows", make_documents())
    for module in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=rf"needs {package}; pip install nested-learning\[data\]"):
        read_all(source, Reader())
    assert read_all(write_lines(tmp_path / "lines", ["a"]), Reader()) == ["a"]
