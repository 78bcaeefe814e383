"""The table of optimizer groups."""

from nested_learning.optim.optimizer import Optimizer

HEADER = ("group", "rule", "lr", "weight decay", "period", "tensors", "parameters")


def group_table(optimizer: Optimizer) -> str:
    """Return the optimizer's groups as a table, one a line; the last line is their total."""
    groups = optimizer.table()
    rows = [HEADER, *(tuple(_cell(value) for value in group) for group in groups)]
    rows.append(
        ("total", "", "", "", "", str(sum(group[5] for group in groups)), f"{sum(group[6] for group in groups):,}")
    )
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADER))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def _cell(value: str | float | int) -> str:
    if isinstance(value, str):
        return value
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
