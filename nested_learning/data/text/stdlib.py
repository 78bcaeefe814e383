"""`data=stdlib`: the sources of the Python standard library on this machine, real text that needs no download."""

import sysconfig
from dataclasses import dataclass
from pathlib import Path

from nested_learning.data.text.documents import as_data_error, to_text, walk_files
from nested_learning.data.text.packed import DocumentsConfig, PackedText
from nested_learning.data.tokenizers.tokenizer import Tokenizer
from nested_learning.errors import DataError

# other people's packages, tests, an editor, and modules that are tables of characters rather than text
SKIPPED = frozenset(
    {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__", "idlelib", "lib2to3", "encodings"}
)


@dataclass(kw_only=True)
class StdlibConfig(DocumentsConfig):
    """The Python standard library's own sources, split into training and validation by file."""

    name: str = "stdlib"

    def build(self, seed: int, tokenizer: Tokenizer | None = None) -> PackedText:
        """Read the sources; `seed` only orders rows. Raises DataError where Python came without its sources."""
        folder = Path(sysconfig.get_paths()["stdlib"])
        return self.pack(read_sources(folder), f"data=stdlib ({folder})", tokenizer)


def read_sources(folder: Path) -> list[str]:
    """Read the Python files of a standard library at `folder` in one fixed order. Raises DataError when there are none.

    Left out: SKIPPED, files generated when Python was built (they hold this machine's paths), and files not in utf-8.
    """
    with as_data_error("data=stdlib"):
        files = [path for path in walk_files(folder, SKIPPED) if path.suffix == ".py"]
        texts = [to_text(path.read_bytes()) for path in files if not path.name.startswith("_sysconfigdata")]
    documents = [text for text in texts if text is not None]
    if not documents:
        raise DataError(f"data=stdlib: no Python sources in {folder}; use data=text data.path=<file, folder or glob>")
    return documents
