"""`data=stdlib`: the source files of the installed Python standard library, real text without a download."""

import sysconfig
from dataclasses import dataclass
from pathlib import Path

from nested_learning.data.text.documents import as_data_error, to_text, walk_files
from nested_learning.data.text.packed import DocumentsConfig, PackedText
from nested_learning.data.tokenizers.tokenizer import Tokenizer
from nested_learning.errors import DataError

# installed packages, tests, the IDLE editor, and modules that are character tables and not text
SKIPPED = frozenset(
    {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__", "idlelib", "lib2to3", "encodings"}
)


@dataclass(kw_only=True)
class StdlibConfig(DocumentsConfig):
    """Source files of the Python standard library, split into training and validation by file."""

    name: str = "stdlib"

    def build(self, seed: int, tokenizer: Tokenizer | None = None) -> PackedText:
        """Read the files. `seed` only permutes rows. Raises DataError where Python was installed without sources."""
        folder = Path(sysconfig.get_paths()["stdlib"])
        return self.pack(read_sources(folder), f"data=stdlib ({folder})", tokenizer)


def read_sources(folder: Path) -> list[str]:
    """Read the Python files of a standard library at `folder` in a fixed order. Raises DataError when there are none.

    Left out: SKIPPED, files that are not utf-8, and files generated when Python was built: they contain paths of this
    machine, and the text should be the same on all.
    """
    with as_data_error("data=stdlib"):
        files = [path for path in walk_files(folder, SKIPPED) if path.suffix == ".py"]
        texts = [to_text(path.read_bytes()) for path in files if not path.name.startswith("_sysconfigdata")]
    documents = [text for text in texts if text is not None]
    if not documents:
        raise DataError(f"data=stdlib: no Python sources in {folder}; use data=text data.path=<file, folder or glob>")
    return documents
