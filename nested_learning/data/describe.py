"""What rows are made of, in words and numbers: how many documents, what is padded, what is cut."""

from nested_learning.data.combined import rows_by_source
from nested_learning.data.source import Source
from nested_learning.data.text.packed import PackedText
from nested_learning.data.text.packing import PackingReport


def packing_reports(source: Source) -> dict[str, PackingReport]:
    """Return by name what packing made of the training text of each source that `source` mixes; a task has none."""
    parts = {name: part for name, (part, _) in rows_by_source(source, 1).items()}
    return {name: part.packings["train"].report() for name, part in parts.items() if isinstance(part, PackedText)}


def describe_rows(source: Source) -> list[str]:
    """Say in a line for each source what its rows are made of."""
    return [
        f"data{f' {name}' if name else ''}: {report.rows:,} rows of {source.seq_len} tokens from {report.documents:,} "
        f"documents; padding {report.padding:.2%}, targets dropped {report.dropped}, cut although they fit into a row "
        f"{report.cut:.1%}"
        for name, report in packing_reports(source).items()
    ]
