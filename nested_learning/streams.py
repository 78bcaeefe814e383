"""Standard streams that end no work: closed ones, letters that an encoding lacks, a reader that is gone."""

import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import NoReturn, TextIO

from nested_learning.signals import INTERRUPTED, interrupt_on_signals


class Output(io.TextIOWrapper):
    """A stream that writes letters which its encoding lacks as `\\xe9`, and drops all text once writing has failed.

    `failure` is the error then: a reader that has read enough, a terminal that was closed, a full disk.
    """

    def __init__(self, stream: io.TextIOWrapper) -> None:
        super().__init__(
            stream.buffer, stream.encoding, "backslashreplace",
            line_buffering=stream.line_buffering, write_through=stream.write_through,
        )  # fmt: skip
        self.failure: OSError | None = None

    def write(self, text: str, /) -> int:
        """Write `text`."""
        try:
            return super().write(text)
        except OSError as error:
            self._fail(error)
        return len(text)

    def flush(self) -> None:
        """Pass on what was written."""
        try:
            super().flush()
        except OSError as error:
            self._fail(error)

    def _fail(self, error: OSError) -> None:
        # what is still in the buffer goes there too, at the latest when the interpreter ends
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)
        self.failure = error


@contextmanager
def open_streams() -> Iterator[Callable[[], OSError | None]]:
    """Make the standard streams of this process safe within the context: what they show never ends what they show.

    Yields a function that returns the error that ended standard output, if any.
    """
    if None in (sys.stdin, sys.stdout, sys.stderr):
        _replace_closed()
    stdout, stderr = _safe(sys.stdout), _safe(sys.stderr)
    try:
        with redirect_stdout(stdout), redirect_stderr(stderr):
            yield lambda: stdout.failure if isinstance(stdout, Output) else None
    finally:
        for each in (stdout, stderr):
            if isinstance(each, Output):
                # a wrapper that is collected closes the stream below it
                each.detach()


def run_process(work: Callable[[], int], interrupted: str = "interrupted") -> NoReturn:
    """Do `work` as all that this process does, and exit with the status that it returns.

    A stop signal ends it with the line `interrupted` and status 130.
    """
    with interrupt_on_signals(ends_process=True), open_streams():
        try:
            status = work()
        except KeyboardInterrupt as interrupt:
            print(str(interrupt) or interrupted, file=sys.stderr)
            status = INTERRUPTED
    sys.exit(status)


def _safe(stream: TextIO) -> TextIO:
    # notebooks have streams of their own kind, which cannot fail
    return Output(stream) if isinstance(stream, io.TextIOWrapper) else stream


def _replace_closed() -> None:
    """Open the null device in the place of closed streams: else the next files that are opened get their numbers."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    sys.stdin = sys.stdin or os.fdopen(0, encoding="utf-8")
    sys.stdout = sys.stdout or os.fdopen(1, "w", encoding="utf-8")
    sys.stderr = sys.stderr or os.fdopen(2, "w", encoding="utf-8")
