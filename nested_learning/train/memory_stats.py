"""Statistics of memories on validation rows: `memory/<memory>/{norm,rank,surprise,retention}`."""

from collections import defaultdict

import torch

from nested_learning.data.batch import to
from nested_learning.data.loader import validation_batches
from nested_learning.data.source import Source
from nested_learning.nn.dropout import evaluating
from nested_learning.nn.language_model import LanguageModel
from nested_learning.nn.telemetry import MemoryStats, level_stats, memory_stats, observing
from nested_learning.objective.protocol import Objective
from nested_learning.train.precision import autocast

# the statistics take two forward passes of each row, so few rows are read
NUM_ROWS = 2


@torch.no_grad()
def observe(
    model: LanguageModel, objective: Objective, source: Source, device: torch.device, dtype: torch.dtype
) -> dict[str, float]:
    """Return the statistics of every memory, by its name, as means over layers and `NUM_ROWS` fixed validation rows.

    `norm` and effective `rank` after the last token, `surprise` and `retention` as means over tokens. Levels of the
    continuum memory that learn inside the context have the rank only; validation reports their other metrics. A model
    without memories gives {}. The model is not changed.
    """
    batch = to(next(validation_batches(source, NUM_ROWS, NUM_ROWS)), device)
    before = model.init_state(len(batch.tokens))
    with evaluating(model), autocast(device, dtype), observing(model.blocks) as seen:
        after = objective(model, batch, before).state
    stats = memory_stats(seen)
    stats += [each._replace(metrics={"rank": each.metrics["rank"]}) for each in level_stats(before, after)]
    return mean_over_layers(stats)


def mean_over_layers(stats: list[MemoryStats]) -> dict[str, float]:
    """Return `memory/<memory>/<metric>` of `stats`, as means over layers and rows."""
    values = defaultdict(list)
    for each in stats:
        for metric, of_rows in each.metrics.items():
            values[f"memory/{each.level}/{metric}"].append(of_rows.mean())
    return {name: float(torch.stack(each).mean()) for name, each in values.items()}
