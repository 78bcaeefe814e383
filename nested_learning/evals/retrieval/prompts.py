"""`evals=prompts`: questions after contexts, from a file of one's own, as needle, niah and babilong ask theirs."""

from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple

from nested_learning.evals.memory_check import require_memory
from nested_learning.evals.metrics import Metric, Samples
from nested_learning.evals.protocol import EvalContext, Record, Report
from nested_learning.evals.retrieval.answering import generate_greedily, likeliest_candidate, read_prompts
from nested_learning.evals.retrieval.prompt_file import WrittenPrompt
from nested_learning.evals.variable_length import Text, encode_text, memorize_each, read_each
from nested_learning.inference.session import Session

# metric -> the key of records that it is the mean of
METRICS = {
    "accuracy": "right",
    "accuracy_no_context": "right_no_context",
    "accuracy_wrong_context": "right_wrong_context",
    "exact": "found",
    "logprob": "logprob",
}


class PromptToAsk(NamedTuple):
    """A prompt in the tokens of the model; `another` is the context of another prompt, for a control."""

    number: int
    written: WrittenPrompt
    context: Text
    question: Text
    another: Text


class PromptsPack:
    """Asks `prompts`; the model generates at most `num_generated` tokens.

    Metrics, by task where tasks are named: `accuracy`, the first answer is the likeliest of the candidates, of prompts
    that have some; `exact`, the fraction of the answers in the greedy continuation; `logprob`, nats per token of the
    first answer. `accuracy_no_context` is the accuracy on the question alone. Under memory=memorize the context is
    memorized, the question begins a new document, and `accuracy_wrong_context` is the accuracy after the context of
    another prompt was memorized.
    """

    reads_text = True

    def __init__(self, prompts: Sequence[WrittenPrompt], num_generated: int, batch_size: int) -> None:
        self.prompts, self.num_generated, self.batch_size = prompts, num_generated, batch_size

    def examples(self, ctx: EvalContext) -> list[PromptToAsk]:
        """Return the prompts. Raises ConfigError for a model that reads no text, or contexts that do not fit."""
        tokenizer = ctx.require_tokenizer("prompts")
        contexts = [encode_text(tokenizer, each.context) for each in self.prompts]
        questions = [encode_text(tokenizer, each.question) for each in self.prompts]
        longest = max(len(context) + len(question) for context, question in zip(contexts, questions, strict=True))
        require_memory(ctx.model, longest, self.batch_size, "evals.prompts.path")
        others = [*contexts[1:], contexts[0]]
        parts = zip(self.prompts, contexts, questions, others, strict=True)
        return [PromptToAsk(number, *each) for number, each in enumerate(parts)]

    def answer(self, session: Session, examples: Sequence[PromptToAsk]) -> list[list[Record]]:
        """Return a record of each prompt: the `chosen` candidate, the generated `text`, and what METRICS name."""
        questions = [each.question for each in examples]
        control, name = self._control(session, examples), "wrong" if session.memorizes else "no"
        readers, written = read_prompts(session, [each.context for each in examples], questions)
        records = []
        for place, (reader, each) in enumerate(zip(readers, examples, strict=True)):
            answers, candidates = each.written.answers, each.written.candidates
            chosen, logprob = likeliest_candidate(reader, candidates or answers[:1], _right(each))
            text = generate_greedily(reader, self.num_generated)
            record: Record = {"example": each.number, "task": each.written.task, "text": text, "logprob": logprob}
            record["found"] = fmean(answer.lower() in text.lower() for answer in answers)
            if candidates:
                record |= {"chosen": candidates[chosen], "right": int(chosen == _right(each))}
            if candidates and control:
                chosen = likeliest_candidate(control[place], candidates, _right(each))[0]
                record[f"right_{name}_context"] = int(chosen == _right(each))
            records.append([record | written[place]])
        return records

    def summarise(self, ctx: EvalContext, records: Sequence[Record]) -> Report:
        """Return the metrics of each task."""
        samples: dict[str, Samples | Metric] = {}
        for task in dict.fromkeys(record["task"] for record in records):
            here = [record for record in records if record["task"] == task]
            asked = [each for each in here if "right" in each]
            chance = fmean(1 / len(self.prompts[each["example"]].candidates) for each in asked) if asked else None
            for metric, key in METRICS.items():
                values = [each[key] for each in here if key in each]
                least = {"exact": 0.0, "logprob": None}.get(metric, chance)
                if values:
                    samples[f"{task}/{metric}" if task else metric] = Samples.mean(values, "higher", least)
        return Report(samples=samples, records=list(records))

    def _control(self, session: Session, examples: Sequence[PromptToAsk]) -> list[Session]:
        """Return sessions that read the questions without their contexts; none where that would spoil later answers."""
        questions = [each.question for each in examples]
        if not session.memorizes:
            return read_each(session, questions)
        if session.policy.carries or len(self.prompts) == 1:
            return []
        readers, _ = memorize_each(session, [each.another for each in examples])
        for reader, question in zip(readers, questions, strict=True):
            reader.feed(question)
        return readers


def _right(example: PromptToAsk) -> int:
    """Return the index of the first answer among what is compared."""
    written = example.written
    return written.candidates.index(written.answers[0]) if written.candidates else 0
