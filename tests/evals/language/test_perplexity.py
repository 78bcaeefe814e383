"""Loss by position on real text and real models: each byte and word counts once, whatever the batch."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import memorize_policy, tiny

from nested_learning.data.tokenizers.bpe import train_bpe
from nested_learning.data.tokenizers.tokenizer import ByteTokenizer
from nested_learning.errors import ConfigError, DataError
from nested_learning.evals import memory_check
from nested_learning.evals.language.config import PerplexityConfig
from nested_learning.evals.language.perplexity import Perplexity, compared
from nested_learning.evals.language.texts import split_document, to_texts
from nested_learning.evals.protocol import EvalContext
from nested_learning.evals.runner import evaluate
from nested_learning.inference.config import MemoryConfig

MEMORIZE = memorize_policy(lr=0.5, chunk=16, surprise_metric="loss")
BOOK = "".join(f"{line} green  bottles,\n\thanging on the wåll.\n" for line in range(40))


@pytest.fixture
def ctx(tmp_path):
    config = tiny(tmp_path, model="titans_lmm", data__val_rows=6)
    model = config.model.build(257, seed=1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    return EvalContext(
        model=model,
        tokenizer=ByteTokenizer(),
        data=config.data,
        seed=0,
        policy=MemoryConfig(name="online"),
        run=tmp_path,
    )


def write(folder, *documents):
    folder.mkdir(exist_ok=True)
    for number, document in enumerate(documents):
        (folder / f"{number}.txt").write_text(document, encoding="utf-8")
    return str(folder)


def report_on(ctx, path=None, length_factor=4, num_texts=8, batch_size=4):
    options = PerplexityConfig(
        name="perplexity", path=path, length_factor=length_factor, num_texts=num_texts, batch_size=batch_size
    )
    draft = ctx.run / f"evals/{ctx.policy.name}{batch_size}.jsonl"
    return evaluate(options.build(ctx.data), ctx, draft, {"options": repr((options, ctx.policy))})


def value(report, name):
    return report.metrics[name].value


def nats_of(model, text):
    tokens = torch.cat([torch.tensor([256]), torch.from_numpy(ByteTokenizer().encode(text))])[None]
    with torch.no_grad():
        logits, _ = model(tokens[:, :-1], model.init_state(1))
    return torch.nn.functional.cross_entropy(logits.mT, tokens[:, 1:], reduction="none")[0]


def test_rows_may_be_longer_than_in_training_and_every_position_has_its_metrics(ctx):
    report = report_on(ctx, num_texts=5)
    stretches = {name.partition("/")[2] for name in report.metrics}
    assert stretches == {"", "0-32", "32-128"}
    source = ctx.open_source(seq_len=128)
    rows = [source.row("validation", 0, index * source.num_rows("validation") // 5) for index in range(5)]
    tokens, targets = (torch.from_numpy(np.stack(column)) for column in list(zip(*rows, strict=True))[:2])
    with torch.no_grad():
        logits, _ = ctx.model(tokens, ctx.model.init_state(5))
    nats = torch.nn.functional.cross_entropy(logits.mT, targets, reduction="none")
    assert value(report, "loss/32-128") == pytest.approx(nats[:, 32:][targets[:, 32:] >= 0].mean().item(), rel=1e-4)
    text = (targets != 256) & (targets >= 0)
    assert value(report, "bpb") == pytest.approx(nats[text].mean().item() / math.log(2), rel=1e-4)
    assert report.metrics["bpb/0-32"].n == 5 and report.metrics["bpb/0-32"].stderr > 0
    (line,) = report.curves["bits per byte"].values()
    assert [x for x, _, _ in line] == [32, 128]


def test_documents_are_read_to_their_end_and_words_are_separated_by_white_space(ctx, tmp_path):
    documents = [BOOK, BOOK[7:900], "one wörd\n"]
    report = report_on(ctx, write(tmp_path / "books", *documents), length_factor=None)
    nats = sum(nats_of(ctx.model, text).sum().item() for text in documents)
    num_bytes, num_words = (
        sum(map(len, each)) for each in ([t.encode() for t in documents], map(str.split, documents))
    )
    assert value(report, "bpb") == pytest.approx(nats / num_bytes / math.log(2), rel=1e-4)
    assert value(report, "word_perplexity") == pytest.approx(math.exp(nats / num_words), rel=1e-3)
    assert value(report, "perplexity") == pytest.approx(math.exp(value(report, "loss")))
    assert report.metrics["word_perplexity"].n == 3
    # a text that has ended no longer counts, and its tokens leave the reference too
    assert [
        report.metrics[f"bpb/{name}"].n for name in ("0-32", "32-128", "256-512", f"1024-{len(BOOK.encode()) + 1}")
    ] == [3, 2, 2, 1]
    assert report.metrics["relative_bpb/256-512"].n == 2


@pytest.mark.parametrize("tokenizer", ["byte", "bpe"])
@pytest.mark.parametrize("length", [5, 64, None])
def test_every_byte_and_every_word_counts_once_wherever_a_document_is_cut(tokenizer, length):
    tokenizer = ByteTokenizer() if tokenizer == "byte" else train_bpe([BOOK], 300)
    texts = to_texts(split_document(BOOK, tokenizer, length), tokenizer)
    assert sum(int(text.num_words.sum()) for text in texts) == len(BOOK.split())
    assert sum(int(text.row.num_bytes.sum()) for text in texts) == len(BOOK.encode())
    assert sum(len(text.num_words) for text in texts) == len(tokenizer.encode(BOOK)) + 1


@pytest.mark.parametrize("policy", [MemoryConfig(name="online"), MEMORIZE], ids=lambda policy: policy.name)
def test_the_loss_of_a_text_is_the_same_alone_and_in_a_batch_with_longer_ones(ctx, tmp_path, policy):
    context = replace(ctx, policy=policy)
    path = write(tmp_path / "books", BOOK[:60], BOOK[60:200], BOOK[200:260])
    together, alone = (report_on(context, path, length_factor=None, batch_size=size).records for size in (3, 1))
    for one, other in zip(together, alone, strict=True):
        assert one == pytest.approx(other, rel=1e-5)


def test_a_segment_is_memorized_only_after_it_was_predicted(ctx, tmp_path):
    path = write(tmp_path / "books", BOOK[:700])
    context = replace(ctx, policy=replace(MEMORIZE, chunk=32))
    online, memorized = (report_on(each, path, length_factor=None) for each in (ctx, context))
    last = f"loss/512-{len(BOOK[:700].encode()) + 1}"
    assert value(memorized, "loss/0-32") == pytest.approx(value(online, "loss/0-32"), rel=1e-6)
    assert value(memorized, last) < 0.9 * value(online, last)
    assert value(memorized, "memory/mlp/writes") > 0
    other = write(tmp_path / "others", BOOK[:513])
    changed = report_on(context, other, length_factor=None)
    assert value(changed, "loss/256-512") == pytest.approx(value(memorized, "loss/256-512"), rel=1e-6)


def test_with_reset_carry_the_loss_of_the_next_text_is_lower(ctx, tmp_path):
    path = write(tmp_path / "books", BOOK[:250], BOOK[250:500])
    fresh = report_on(replace(ctx, policy=MEMORIZE), path, length_factor=None)
    carried = report_on(replace(ctx, policy=replace(MEMORIZE, reset="carry")), path, length_factor=None)
    first, *_, last = ([row["nats"] for row in report.records if row["start"] == 0] for report in (fresh, carried))
    assert first[0] == pytest.approx(last[0], rel=1e-5)
    assert sum(last[1:]) < 0.9 * sum(first[1:])


def test_separate_documents_each_begin_at_position_0(ctx, tmp_path):
    path = write(tmp_path / "many", *(f"{number}: {BOOK[number : number + 20]}\n" for number in range(60)))
    data = replace(ctx.data, path=path, boundary="reset", val_fraction=0.5)
    report = report_on(replace(ctx, data=data), num_texts=2)
    assert all(row["end"] <= 32 for row in report.records) and len(report.records) > 4
    source = replace(ctx, data=data).open_source(seq_len=128)
    _, targets, documents = source.row("validation", 0, 0)
    inside = documents == 1
    text = bytes(targets[inside][targets[inside] < 256].astype(np.uint8)).decode()
    assert report.records[1]["text_nats"] == pytest.approx(nats_of(ctx.model, text).sum().item(), rel=1e-4)


def test_a_uniform_model_has_the_same_loss_on_every_token(ctx):
    with torch.no_grad():
        ctx.model.head.weight.zero_()
    report = report_on(ctx)
    assert value(report, "perplexity") == pytest.approx(257, rel=1e-4)
    assert value(report, "bpb") == pytest.approx(math.log2(257), rel=1e-4)


def test_positions_are_compared_over_the_texts_that_reach_both():
    def bucket(text, bits):
        return {"text": text, "nats": bits * 10, "targets": 10, "correct": 0, "text_nats": bits * 10, "bytes": 10}

    reference = [bucket(0, 2.0), bucket(1, 4.0), bucket(2, 400.0)]
    proportional = compared([bucket(0, 1.0), bucket(1, 2.0)], reference)["relative_bpb"]
    assert (proportional.value, proportional.n) == (pytest.approx(0.5), 2)
    assert proportional.stderr == pytest.approx(0, abs=1e-12)
    other = compared([bucket(0, 2.0), bucket(1, 1.0)], reference)["relative_bpb"]
    assert other.value == pytest.approx(0.5) and other.stderr == pytest.approx(1 / 3)
    assert compared(reference, reference) == {} == compared([bucket(7, 1.0)], reference)


def test_invalid_settings_are_refused(ctx, tmp_path):
    rows = tiny(tmp_path, data="recall").data
    empty, broken = tmp_path / "empty.txt", tmp_path / "broken.jsonl"
    empty.write_text("")
    broken.write_text(json.dumps({"text": "fine"}) + "\n{\n")
    with pytest.raises(ConfigError, match="have a fixed length"):
        report_on(replace(ctx, data=rows))
    with pytest.raises(ConfigError, match="has no tokenizer"):
        report_on(replace(ctx, tokenizer=None))
    with pytest.raises(ConfigError, match="no such file"):
        report_on(ctx, str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="no text there"):
        report_on(ctx, str(empty))
    with pytest.raises(DataError, match="line 2"):
        report_on(ctx, str(broken))
    with pytest.raises(ConfigError, match="length_factor=null"):
        report_on(ctx, length_factor=None)
    with pytest.raises(ConfigError, match="num_texts=0"):
        report_on(ctx, num_texts=0)


def test_a_chosen_number_of_texts_is_spread_over_the_documents(ctx, tmp_path):
    documents = [chr(ord("a") + number) * 200 for number in range(6)]
    pack = Perplexity(write(tmp_path / "books", *documents), 1, 6, 4)
    first = [text.row.row.tokens[1] for text in pack.examples(ctx)]
    assert bytes(first).decode() == "abcdef"


def test_texts_that_do_not_fit_into_memory_are_refused_before_they_are_read(ctx, tmp_path, monkeypatch):
    path = write(tmp_path / "books", BOOK)
    full, window = (tiny(tmp_path, model__window=window).model.build(257, seed=0) for window in ("null", 8))
    monkeypatch.setattr(memory_check, "free_bytes", lambda device: 1 << 20)
    report_on(replace(ctx, model=window), path, length_factor=None)
    with pytest.raises(ConfigError, match="use at most"):
        report_on(replace(ctx, model=full), path, length_factor=None, batch_size=2)
