import os
import signal
import time
from pathlib import Path

import pytest
import torch
from data.letters import make_source

from nested_learning.data.batch import Batch
from nested_learning.data.curriculum import Stage, StageConfig, constant_stages, plan_stages
from nested_learning.data.feed import Feed
from nested_learning.data.source import Row, Source
from nested_learning.data.tasks.copy import CopyConfig
from nested_learning.data.text.packed import PackedText
from nested_learning.errors import ConfigError, DataError


@pytest.fixture(scope="module")
def source() -> PackedText:
    return make_source()


def join(batches: list[Batch]) -> Batch:
    return Batch(*(torch.cat(column) for column in zip(*batches, strict=True)))


def same(one: Batch, two: Batch) -> bool:
    return all(map(torch.equal, one, two))


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("num_workers", [0, 1, 2, 4])
@pytest.mark.parametrize("world", [1, 2, 4, 8])
def test_any_number_of_workers_and_processes_resumes_exactly_at_any_step(
    source: Source, world: int, num_workers: int
) -> None:
    alone = Feed(source, 5, constant_stages(8, 4))
    # starting workers is slow: with workers, one rank and one first step are enough
    ranks, first_steps = (range(world), range(6)) if num_workers == 0 else ([world - 1], [2])
    for rank in ranks:
        own = range(rank * 8 // world, (rank + 1) * 8 // world)
        for begin in first_steps:
            with Feed(source, 5, constant_stages(8, 4), 8, own, num_workers=num_workers) as feed:
                for step in range(begin, 7):
                    whole = alone.micro_batches(step)[0]
                    share = Batch(*(column[own.start : own.stop] for column in whole))
                    assert same(join(feed.read(step)), share)


@pytest.mark.parametrize("ahead", [1, 5])
def test_steps_may_be_read_in_any_order_with_any_number_of_prefetched_steps(source: Source, ahead: int) -> None:
    alone = Feed(source, 0, constant_stages(8, 4))
    with Feed(source, 0, constant_stages(8, 4), num_workers=2, ahead=ahead) as feed:
        for step in [0, 1, 2, 3, 1, 2, 9, 0]:
            assert same(feed.read(step)[0], alone.read(step)[0])


def test_prefetching_draws_no_number_from_the_global_generator(source: Source) -> None:
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    with Feed(source, 0, constant_stages(8, 4), num_workers=1) as feed:
        feed.read(0)
    assert torch.equal(torch.rand(3), expected)


class Slow(PackedText):
    """A slow source that records which process reads a row, and raises at row `bad`."""

    folder: Path
    bad: int | None

    def row(self, split: str, epoch: int, index: int) -> Row:
        (self.folder / str(os.getpid())).touch()
        if index == self.bad:
            raise DataError(f"row {index}: not to be read; use another")
        time.sleep(0.02)
        return super().row(split, epoch, index)


def make_slow(folder: Path, bad: int | None = None) -> Slow:
    slow = make_source()
    slow.__class__ = Slow
    slow.folder, slow.bad = folder, bad
    return slow


def workers(folder: Path) -> list[int]:
    return [int(path.name) for path in folder.iterdir() if int(path.name) != os.getpid()]


@pytest.mark.parametrize("waiting", [True, False])
def test_a_killed_worker_ends_the_run(tmp_path: Path, waiting: bool) -> None:
    killed = pytest.raises(DataError, match=r"num_workers=2: a data worker was killed.* num_workers=1")
    with killed, Feed(make_slow(tmp_path), 0, constant_stages(1, 4), num_workers=2) as feed:
        feed.read(0)
        os.kill(workers(tmp_path)[0], signal.SIGKILL)
        # whether training waits for the next batch or computes meanwhile
        for step in range(1, 500 if waiting else 1):
            feed.read(step)
        time.sleep(30)


def test_an_error_in_a_worker_is_the_error_of_the_source(tmp_path: Path) -> None:
    bad = pytest.raises(DataError, match=r"^row 12: not to be read; use another$")
    with bad, Feed(make_slow(tmp_path, bad=12), 0, constant_stages(13, 4), num_workers=1) as feed:
        feed.read(0)


def test_workers_end_with_the_context(tmp_path: Path) -> None:
    with Feed(make_slow(tmp_path), 0, constant_stages(1, 4), num_workers=2) as feed:
        feed.read(0)
        started = workers(tmp_path)
    assert started
    for pid in started:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_row_of_the_global_batch_is_the_same_in_every_process(source: Source) -> None:
    whole = Feed(source, 0, constant_stages(8, 4)).micro_batches(3)[0]
    other = Feed(source, 0, constant_stages(8, 4), 4, range(1, 2))
    assert [other.row(3, row).tokens.tolist() for row in range(8)] == [[row] for row in whole.tokens.tolist()]


def test_overfitting_reads_the_first_batch_at_every_step(source: Source) -> None:
    feed = Feed(source, 0, constant_stages(8, 4), overfit=True)
    assert same(feed.read(5)[0], Feed(source, 0, constant_stages(8, 4)).read(0)[0])


def test_stages_that_do_not_fit_are_refused_by_name(source: Source) -> None:
    with pytest.raises(ConfigError, match=r"^data\.batch_size=8: .* the 3 micro-batches .* use data\.batch_size=9"):
        Feed(source, 0, constant_stages(8, 4), 3)
    with pytest.raises(ConfigError, match=r"^stages: batch_size=2: must be a multiple of the 4 micro-batches"):
        Feed(source, 0, [Stage(0, 1, 0, 2, 4), Stage(1, None, 8, 8, 4)], 4)
    task = CopyConfig(length=8).build(0)
    with pytest.raises(ConfigError, match=r"^stages: seq_len=1 would split rows of a task.* use seq_len=17"):
        Feed(task, 0, plan_stages([StageConfig(steps=17, batch_size=1, seq_len=1)], 1, 17))
