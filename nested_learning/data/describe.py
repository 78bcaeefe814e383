"""Describe the training rows of packed text: number of documents, padding, documents cut."""

from nested_learning.data.combined import rows_by_source
from nested_learning.data.source import Source
from nested_learning.data.text.packed import PackedText
from nested_learning.data.text.packing import PackingReport


def packing_reports(source: Source) -> dict[str, PackingReport]:
    """Return the packing report of the training split of each source in `source`, by name. Tasks have none."""
    parts = {name: part for name, (part, _) in rows_by_source(source, 1).items()}
    return {name: part.packings["train"].report() for name, part in parts.items() if isinstance(part, PackedText)}


def describe_rows(source: Source) -> list[str]:
    """Return one line per source that describes its training rows; summary.json has the whole report."""
    return [
        f"data{f' {name}' if name else ''}: {report.rows:,} rows of {source.seq_len} tokens from {report.documents:,} "
        f"documents, padding {report.padding:.2%}"
        for name, report in packing_reports(source).items()
    ]
