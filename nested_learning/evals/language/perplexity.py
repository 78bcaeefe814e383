"""`evals=perplexity`: what text costs, by position in it, and beyond the length that was trained."""

import math
from collections import defaultdict
from collections.abc import Sequence

from nested_learning.evals.language.texts import TextToRead, file_texts, longer, validation_texts
from nested_learning.evals.memory_check import require_memory
from nested_learning.evals.metrics import Metric, Samples, difference
from nested_learning.evals.protocol import EvalContext, Record, Report
from nested_learning.evals.reading import buckets, loss_metrics, read_rows
from nested_learning.inference.session import Session

# the positions that others are compared with begin here, where a text has got going
REFERENCE = 128


class Perplexity:
    """Reads long texts from empty states and reports bits per byte, loss, accuracy and perplexity by position.

    The texts are validation rows or, of `path` (a file, folder, glob or data set), documents. They are `length_factor`
    times as long as the rows of training, longer documents being cut; None: documents are read to their end.
    `num_texts` of them are read, evenly spaced, `batch_size` at once. A session that studies learns from each piece of
    a text once it was predicted. Source: perplexity by word as in Rae et al., arXiv 1911.05507; study along a text is
    dynamic evaluation, Krause et al., arXiv 1709.07432.
    """

    # texts bring their own `end`
    reads_text = False

    def __init__(self, path: str | None, length_factor: int | None, num_texts: int, batch_size: int) -> None:
        self.path, self.length_factor = path, length_factor
        self.num_texts, self.batch_size = num_texts, batch_size

    def examples(self, ctx: EvalContext) -> list[TextToRead]:
        """Return the texts.

        Raises ConfigError, DataError for data that is no text or cannot be read, and for texts that there is no room
        for.
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
        """Return the sums over each stretch of each text; texts of one length are read together."""
        answers: dict[int, list[Record]] = {}
        for length in {len(text.num_words) for text in examples}:
            places = [place for place, text in enumerate(examples) if len(text.num_words) == length]
            # what is carried to the next text lies in `session` itself
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
        """Return the figures of whole texts, such as `bpb`, and by position, such as `bpb/32-128`."""
        found = text_metrics(whole_texts(records))
        starts = sorted({record["start"] for record in records})
        parts = {start: [record for record in records if record["start"] == start] for start in starts}
        points: list[tuple[float, float, float | None]] = []
        for start, part in parts.items():
            end = max(record["end"] for record in part)
            here = text_metrics(part) | compared(part, parts.get(REFERENCE, []))
            found |= {f"{name}/{start}-{end}": figure for name, figure in here.items()}
            points += [(float(end), *loss_metrics(part)["bpb"].metric()[:2])] if "bpb" in here else []
        curves = {"bits per byte": {ctx.policy.name: points}} if points else {}
        return Report(samples=found, records=list(records), curves=curves)


def whole_texts(records: Sequence[Record]) -> list[Record]:
    """Add up the stretches of each text."""
    texts: dict[int, Record] = defaultdict(lambda: defaultdict(float))
    for record in records:
        for name in ("nats", "targets", "correct", "text_nats", "bytes", "words"):
            texts[record["text"]][name] += record[name]
    return list(texts.values())


def text_metrics(records: Sequence[Record]) -> dict[str, Samples | Metric]:
    """Return loss, bpb and accuracy, `perplexity` of a token and `word_perplexity`; a row is a sample."""
    found = loss_metrics(records)
    perplexities: dict[str, Samples | Metric] = {"perplexity": exponential(found["loss"])}
    words = [record["words"] for record in records]
    if any(words):
        perplexities["word_perplexity"] = exponential(
            Samples([record["text_nats"] for record in records], words, "lower")
        )
    return {**found, **perplexities}


def exponential(nats: Samples) -> Metric:
    """Return e to a mean of nats, with the error that its own makes (delta method); infinite above e^700."""
    value, stderr, n, better, _ = nats.metric()
    power = math.exp(value) if value < 700 else math.inf
    return Metric(power, None if stderr is None else power * stderr, n, better)


def compared(records: Sequence[Record], reference: Sequence[Record]) -> dict[str, Samples | Metric]:
    """Return `relative_bpb`: by what factor bits per byte are above the `reference`, in texts that have both.

    The error is of pairs: that of the ratio of two ratios, linearised.
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
