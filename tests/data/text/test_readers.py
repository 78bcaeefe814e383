import gzip
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
    # half a character, and utf-16 without a mark
    for contents in (b"caf\xe9", "text".encode("utf-16-le")):
        (tmp_path / "b.txt").write_bytes(contents)
        assert read_all(str(tmp_path / "b.txt"), Reader()) == [None]
    (tmp_path / "c.txt").write_bytes(b"a;b\0;;c")
    assert read_all(str(tmp_path / "c.txt"), Reader(separator=";")) == ["a", None, "c"]


BAD = [b"a", b"caf\xe9", b"b\0", b"", b"c"]


def test_a_document_that_is_not_utf8_is_left_out_and_those_after_it_are_read(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    (tmp_path / "a.jsonl").write_bytes(b"".join(b'{"text": "%s", "id": 1}\n' % text for text in BAD if text != b"b\0"))
    assert read_all(str(tmp_path / "a.jsonl"), Reader()) == ["a", None, None, "c"]
    # only the text must be text
    (tmp_path / "b.jsonl").write_bytes(b'{"text": "a", "author": "\xff"}\n')
    assert read_all(str(tmp_path / "b.jsonl"), Reader()) == ["a"]
    (tmp_path / "c.csv").write_bytes(b"text\n" + b"\n".join(BAD[:2]) + b"\n")
    assert read_all(str(tmp_path / "c.csv"), Reader()) == ["a", None]
    (tmp_path / "d.txt").write_bytes(b"<|next|>".join(BAD))
    assert read_all(str(tmp_path / "d.txt"), SEPARATED) == ["a", None, None, "c"]
    for kind in (pyarrow.binary(), pyarrow.large_binary()):
        unchecked = pyarrow.array(BAD, kind)
        as_text = pyarrow.string() if kind == pyarrow.binary() else pyarrow.large_string()
        # text that its writer did not check
        text = pyarrow.Array.from_buffers(as_text, len(BAD), unchecked.buffers())
        for column in (unchecked, text):
            table = pyarrow.table({"text": column})
            parquet.write_table(table, tmp_path / "e.parquet")
            with pyarrow.ipc.new_file(str(tmp_path / "e.arrow"), table.schema) as file:
                file.write_table(table)
            for name in ("e.parquet", "e.arrow"):
                assert read_all(str(tmp_path / name), Reader()) == ["a", None, None, None, "c"], (kind, name)


def test_a_streamed_data_set_goes_on_after_a_document_that_is_not_utf8(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    text = pyarrow.Array.from_buffers(pyarrow.string(), len(BAD), pyarrow.array(BAD).buffers())
    (tmp_path / "set").mkdir()
    parquet.write_table(pyarrow.table({"text": text}), tmp_path / "set" / "a.parquet")
    assert list(Reader().read(f"hf:{tmp_path / 'set'}", 1)) == [None, None, None, "c"]


def test_columns_of_every_kind_of_text_are_read_and_others_refused(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    words = pyarrow.array(["a", None, "b"])
    for column in (
        words,
        words.cast(pyarrow.large_string()),
        words.cast(pyarrow.string_view()),
        words.dictionary_encode(),
    ):
        parquet.write_table(pyarrow.table({"a.b": column, "n": [1, 2, 3]}), tmp_path / "a.parquet")
        assert read_all(str(tmp_path / "a.parquet"), Reader(field="a.b")) == ["a", None, "b"]
    for column in ([1, 2], [["a"], ["b"]], [{"a": "b"}] * 2):
        parquet.write_table(pyarrow.table({"text": column}), tmp_path / "a.parquet")
        with pytest.raises(
            DataError, match=r"a\.parquet, column text: is (int|list|dict), not text; give another --field"
        ):
            read_all(str(tmp_path / "a.parquet"), Reader())
    twice = pyarrow.Table.from_arrays([words, words], ["text", "text"])
    with pyarrow.ipc.new_file(str(tmp_path / "a.arrow"), twice.schema) as file:
        file.write_table(twice)
    with pytest.raises(DataError, match="more than one column 'text' of text, text"):
        read_all(str(tmp_path / "a.arrow"), Reader())
    parquet.write_table(pyarrow.table({"text": []}), tmp_path / "a.parquet")
    assert read_all(str(tmp_path / "a.parquet"), Reader()) == []


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.csv", "a.jsonl.gz"])
def test_files_in_an_encoding_with_a_mark_are_read_right(tmp_path: Path, name: str, encoding: str) -> None:
    contents = {"a.txt": "é;;\r\nü", "a.csv": "id,text\r\n1,é\r\n2,ü\r\n"}
    lines = '{"text": "é"}\r\n{"text": "ü"}\r\n'
    data = contents.get(name, lines).encode(encoding)
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    assert read_all(str(tmp_path / name), Reader(separator=";;")) == ["é", "ü"]


def test_a_separator_with_line_ends_separates_files_of_windows_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.txt").write_bytes(b"one\r\ntwo\r\n\r\nthree\n\nfour")
    for characters in (1, 3, 1 << 20):
        monkeypatch.setattr(readers, "CHARACTERS", characters)
        assert read_all(str(tmp_path / "a.txt"), Reader(separator="\n\n")) == ["one\r\ntwo", "three", "four"]
    with pytest.raises(ConfigError, match="--separator ''"):
        Reader(separator="")


def test_a_table_of_csv_is_read_by_its_column(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('id,text\n1,"a, ""b""\nc"\n2\n3,' + "x" * 200_000 + "\n")
    (tmp_path / "a.tsv").write_text("text\tid\na\t1\n")
    assert read_all(str(tmp_path / "a.csv"), Reader()) == ['a, "b"\nc', None, "x" * 200_000]
    assert list(Reader().read(str(tmp_path / "a.csv"), 2)) == ["x" * 200_000]
    assert read_all(str(tmp_path / "a.tsv"), Reader()) == ["a"]
    with pytest.raises(DataError, match="no column 'body', only id, text"):
        read_all(str(tmp_path / "a.csv"), Reader(field="body"))


def test_json_lines_under_another_name_are_not_read_as_one_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text('{"text": "a"}\n{"text": "b"}\n')
    with pytest.raises(DataError, match=r"holds JSON lines; rename it to a\.jsonl"):
        read_all(str(tmp_path / "a.txt"), Reader())


def test_a_folder_of_save_to_disk_is_its_table(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    made = datasets.Dataset.from_dict({"text": ["a", "b"]})
    made.save_to_disk(tmp_path / "one")
    (tmp_path / "one" / "cache-0123.arrow").write_bytes(b"what map once made")
    datasets.DatasetDict({"train": made}).save_to_disk(tmp_path / "dict")
    for source in (tmp_path / "one", tmp_path / "one" / "*", tmp_path / "dict", tmp_path / "dict" / "train"):
        assert read_all(str(source), Reader()) == ["a", "b"]
    datasets.DatasetDict({"train": made, "test": made}).save_to_disk(tmp_path / "two")
    with pytest.raises(ConfigError, match=r"two: has the splits test, train; give one, such as .*two/train"):
        find_inputs([str(tmp_path / "two")])


def test_the_text_may_be_in_another_field(tmp_path: Path) -> None:
    path = tmp_path / "a.ndjson"
    path.write_text('{"content": "a"}\n')
    assert read_all(str(path), Reader(field="content")) == ["a"]


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (b'{"text": "a"}\n{"text"\n', "a.jsonl, line 2: not JSON"),
        (b'{"text": "a"}\n{"body": "b"}\n', r"a.jsonl, line 2: no key 'text', its keys are body; .* --field"),
        (b'["a"]\n', r'a.jsonl, line 1: \["a"\] is not an object; .* jq '),
        (b"null\n", "a.jsonl, line 1: null is not an object"),
        (b'[\n {"text": "a"}\n]\n', r"a.jsonl, line 1: not JSON .* jq "),
        (b"[" * 100_000, "a.jsonl, line 1: not JSON"),
        (b'{"text": 3}\n', "a.jsonl, line 1: is int, not text"),
        (b'{"text": {"body": "a"}}\n', "a.jsonl, line 1: is dict, not text"),
        (b'{"text": ["a"]}\n', "a.jsonl, line 1: is list, not text"),
        (b"{}\n", "a.jsonl, line 1: no key 'text', its keys are none"),
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
    with pytest.raises(ConfigError, match=rf"needs {package}; pip install -e '\.\[data\]'"):
        read_all(source, Reader())
    assert read_all(write_lines(tmp_path / "lines", ["a"]), Reader()) == ["a"]
