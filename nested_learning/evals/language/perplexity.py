"""`evals=perplexity`: loss by position in the context, also beyond the training length."""

import math
from collections import defaultdict
from collections.abc import Sequence

from nested_learning.evals.language.texts import TextToRead, file_texts, longer, validation_texts
from nested_learning.evals.memory_check import require_memory
from nested_learning.evals.metrics import Metric, Samples, difference
from nested_learning.evals.protocol import EvalContext, Record, Report
from nested_learning.evals.reading import buckets, loss_metrics, read_rows
from nested_learning.inference.session import Session

# `relative_bpb` compares with the span that begins here, where the first tokens, which are hard, are over
REFERENCE = 128


class Perplexity:
    """Reads long texts from empty states and reports bits per byte, loss, accuracy and perplexity by position.

    The texts are validation rows or the documents in `path` (a file, folder, glob or data set). They are
    `length_factor` times as long as training rows, and longer documents are split; None: documents are read to their
    end. `num_texts` of them are read, evenly spaced, `batch_size` at once. Under memory=memorize each segment of a text
    is memorized after it was predicted, which is dynamic evaluation (Krause et al., arXiv 1709.07432). Perplexity by
    word as in Rae et al., arXiv 1911.05507.
    """

    # texts bring their own `end`
    reads_text = False

    def __init__(self, path: str | None, length_factor: int | None, num_texts: int, batch_size: int) -> None:
        self.path, self.length_factor = path, length_factor
        self.num_texts, self.batch_size = num_texts, batch_size

    def examples(self, ctx: EvalContext) -> list[TextToRead]:
        """Return the texts.

        Raises ConfigError or DataError for data that is not text or cannot be read, and for texts that do not fit into
        memory.
        """
        length = None if self.length_factor is None else longer(ctx, self.length_factor)
        if self.path is not None:
            texts = file_texts(ctx, self.path, length, self.num_texts)
        else:
            assert length is not None, "the configuration refuses rows without a length"
            texts = validation_texts(ctx, length, self.num_texts)
        longest = max((len(text.num_words) for text in texts), default=0)
        require_memory(ctx.model, longest, self.batch_size, "evals.perplexity.length_factor: tokens")
        return texts

    def answer(self, session: Session, examples: Sequence[TextToRead]) -> list[list[Record]]:
        """Return the sums over each span of each text; texts of one length are read together."""
        answers: dict[int, list[Record]] = {}
        for length in {len(text.num_words) for text in examples}:
            places = [place for place, text in enumerate(examples) if len(text.num_words) == length]
            # under memory.reset=carry the session itself must memorize, not a fork of it
            reader = session if len(places) == len(examples) else session.fork(places)
            readings, written = read_rows(reader, [examples[place].row for place in places])
            for place, reading, each in zip(places, readings, written, strict=True):
                text = examples[place]
                answers[place] = [
                    {"text": text.row.number, "start": start, "end": end}
                    | reading.sums(start, end)
                    | {"words": int(text.num_words[start:end].sum())}
                    | each
                    for start, end in buckets(length)
                ]
        return [answers[place] for place in range(len(examples))]

    def summarise(self, ctx: EvalContext, records: Sequence[Record]) -> Report:
        """Return the metrics of whole texts, such as `bpb`, and by position, such as `bpb/32-128`."""
        found = text_metrics(whole_texts(records))
        starts = sorted({record["start"] for record in records})
        parts = {start: [record for record in records if record["start"] == start] for start in starts}
        points: list[tuple[float, float, float | None]] = []
        for start, part in parts.items():
            end = max(record["end"] for record in part)
            here = text_metrics(part) | compared(part, parts.get(REFERENCE, []))
            found |= {f"{name}/{start}-{end}": each for name, each in here.items()}
            points += [(float(end), *loss_metrics(part)["bpb"].metric()[:2])] if "bpb" in here else []
        curves = {"bits per byte": {ctx.policy.name: points}} if points else {}
        return Report(samples=found, records=list(records), curves=curves)


def whole_texts(records: Sequence[Record]) -> list[Record]:
    """Add up the spans of each text."""
    texts: dict[int, Record] = defaultdict(lambda: defaultdict(float))
    for record in records:
        for name in ("nats", "targets", "correct", "text_nats", "bytes", "words"):
            texts[record["text"]][name] += record[name]
    return list(texts.values())


def text_metrics(records: Sequence[Record]) -> dict[str, Samples | Metric]:
    """Return loss, bpb, accuracy, `perplexity` (per token) and `word_perplexity`; each record is a sample."""
    found = loss_metrics(records)
    perplexities: dict[str, Samples | Metric] = {"perplexity": exponential(found["loss"])}
    words = [record["words"] for record in records]
    if any(words):
        perplexities["word_perplexity"] = exponential(
            Samples([record["text_nats"] for record in records], words, "lower")
        )
    return {**found, **perplexities}


def exponential(nats: Samples) -> Metric:
    """Return e to the power of a mean of nats, with its standard error (delta method); infinite above e^700."""
    value, stderr, n, better, _ = nats.metric()
    power = math.exp(value) if value < 700 else math.inf
    return Metric(power, None if stderr is None else power * stderr, n, better)


def compared(records: Sequence[Record], reference: Sequence[Record]) -> dict[str, Samples | Metric]:
    """Return `relative_bpb`: bits per byte over those of the `reference`, in texts that have both.

    The standard error is that of the linearised ratio of two paired ratios.
    """
    known = {record["text"]: record for record in reference if record["bytes"]}
    pairs = [(record, known[record["text"]]) for record in records if record["bytes"] and record["text"] in known]
    if not pairs or all(record is other for record, other in pairs):
        return {}
    one, other = (loss_metrics(column)["bpb"] for column in zip(*pairs, strict=True))
    factor, base = one.metric().value / other.metric().value, other.metric().value
    scaled = Samples([top * factor for top in other.numerators], other.denominators, "lower")
    stderr = difference(one, scaled).stderr
    return {"relative_bpb": Metric(factor, None if stderr is None else stderr / base, len(pairs), "lower")}
