from pathlib import Path

import pytest

from nested_learning.data.text import stdlib
from nested_learning.data.text.stdlib import StdlibConfig, read_sources
from nested_learning.errors import DataError


def make_library(folder: Path) -> Path:
    files = {
        "os.py": "import sys\n",
        "json/decoder.py": "class Decoder: pass\n",
        "json/README.txt": "no python",
        "test/test_os.py": "a test\n",
        "json/tests/more.py": "a test\n",
        "site-packages/numpy.py": "other people's\n",
        "idlelib/editor.py": "an editor\n",
        "_sysconfigdata_linux.py": "paths of this machine\n",
        "__pycache__/os.py": "compiled\n",
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "latin.py").write_bytes(b"# caf\xe9\n")
    return folder


def test_only_the_library_s_own_utf8_sources_are_read_in_a_fixed_order(tmp_path: Path) -> None:
    assert read_sources(make_library(tmp_path)) == ["import sys\n", "class Decoder: pass\n"]


def test_a_python_without_sources_is_refused_with_another_source_of_text(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no Python sources in .*; use data=text data\.path="):
        read_sources(tmp_path)


def test_this_python_s_library_is_split_by_file() -> None:
    source = StdlibConfig().build(0)
    train, validation = source.num_rows("train"), source.num_rows("validation")
    assert train * source.seq_len > 2_000_000
    assert 0.08 < validation / (train + validation) < 0.12


def test_a_changed_file_changes_the_fingerprint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = make_library(tmp_path)
    monkeypatch.setattr(stdlib.sysconfig, "get_paths", lambda: {"stdlib": str(library)})
    config = StdlibConfig(seq_len=4)
    before = config.build(0).fingerprint
    (library / "test" / "test_os.py").write_text("changed, but not read\n")
    assert config.build(0).fingerprint == before == StdlibConfig(seq_len=8).build(1).fingerprint
    (library / "os.py").write_text("import sys, re\n")
    assert config.build(0).fingerprint != before
