"""The command line: one configuration or a sweep, checked completely before any file is created.

Bad input prints one line on stderr and exits with status 2, in about a second: torch is imported only afterwards.
"""

import errno
import os
import shlex
import signal
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from importlib import import_module
from io import StringIO
from pathlib import Path
from tempfile import NamedTemporaryFile
from traceback import format_exc
from typing import TYPE_CHECKING, Any, NoReturn

from nested_learning.errors import ConfigError, FaultError, NestedLearningError, Stopped
from nested_learning.planning.config import SMALLER
from nested_learning.signals import (
    INTERRUPTED,
    STOPPING,
    handle_signals,
    hold_signals,
    interrupt_on_signals,
    signal_on_parent_death,
)
from nested_learning.streams import open_streams
from nested_learning.version import __version__

if TYPE_CHECKING:
    from nested_learning.config.option_files import OptionFiles
    from nested_learning.config.schema import Config

BROKEN_PIPE = 141
# seconds that other processes wait before they print an error
PATIENCE = 5.0
# parts of the messages of NumPy and torch when memory cannot be allocated; torch has no class of its own on a CPU
ALLOCATION_FAILURES = (
    "can't allocate memory",
    "out of memory",
    "Storage size calculation overflowed",
    "array is too big",
)
# characters of another library's message that an error line shows
MAX_SHOWN = 300


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line `arguments` and return the exit status; without arguments run this process's, which ends.

    0: done; 2: a mistake in the input; 1: a fault of this program; 130: interrupted; 141: the reader of a pipe is gone.
    """
    with interrupt_on_signals(ends_process=arguments is None), open_streams() as output_error:
        status = _run(sys.argv[1:] if arguments is None else arguments)
        error = output_error()
        if error is None or status:
            return status
        if isinstance(error, BrokenPipeError):
            # the reader closed the pipe, as in `--help | head`
            return BROKEN_PIPE
        _say(f"error: standard output: {error.strerror}; the work is done, what it printed is lost")
        return ConfigError.exit_code


def _run(arguments: Sequence[str]) -> int:
    """Run `arguments`; return the exit status, after one line about what ended them early."""
    try:
        with last_door():
            _dispatch(arguments)
            sys.stdout.flush()
    except NestedLearningError as error:
        _say(f"error: {error}")
        return error.exit_code
    except KeyboardInterrupt as interrupt:
        # torchrun stops the other processes at once, and the first one knows where the run is saved
        if os.environ.get("RANK", "0") == "0":
            _say(str(interrupt) or "interrupted")
        return INTERRUPTED
    return 0


@contextmanager
def last_door() -> Iterator[None]:
    """Turn every exception that is no NestedLearningError into one, so that the answer is always one line.

    An error of the file system names the file. Anything else is a fault of this program: its traceback goes to a file.
    """
    try:
        yield
    except NestedLearningError:
        raise
    except OSError as error:
        if error.errno == errno.ENOSPC:
            fix = "free some and give the same command again"
            raise ConfigError(f"{error.filename or 'a file'}: {error.strerror}; {fix}") from error
        if error.filename is None:
            raise FaultError(_report(error)) from error
        fix = "check the path and who may read and write it"
        raise ConfigError(f"{error.filename}: {error.strerror}; {fix}") from error
    except Exception as error:
        if is_allocation_failure(error):
            reason = " ".join(str(error).split())[:MAX_SHOWN] or type(error).__name__
            raise ConfigError(f"not enough memory ({reason}); use {SMALLER}") from error
        raise FaultError(_report(error)) from error


def is_allocation_failure(error: Exception) -> bool:
    """Return whether `error` of Python, NumPy or torch says that memory could not be allocated, on any device."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in ALLOCATION_FAILURES)


def _report(error: Exception) -> str:
    """Write the traceback of `error` to a file; return the line that asks to report it."""
    text = f"nested_learning {__version__}, python {sys.version}\n{shlex.join(sys.argv)}\n\n{format_exc()}"
    try:
        with NamedTemporaryFile(
            "w", prefix="nested_learning_fault_", suffix=".txt", delete=False, encoding="utf-8", errors="replace"
        ) as file:
            file.write(text)
        where = f"please report it with the file {file.name}"
    except OSError:
        print(text, file=sys.stderr)
        where = "please report it with the traceback above"
    return f"{type(error).__name__}: {' '.join(str(error).split())[:MAX_SHOWN]}: a fault of nested_learning; {where}"


def run_phase(config: "Config") -> Any:
    """Return the result of `run(config)` in `phase/<name>.py`; the import is here because it loads torch.

    Raises NestedLearningError before it, where training would not find its data.
    """
    # a signal that left torch half imported would surface as any error
    with hold_signals():
        from nested_learning.command.preflight import check_inputs

        check_inputs(config)
        phase = import_module(f"nested_learning.phase.{config.phase.name}")
    return phase.run(config)


def _dispatch(arguments: Sequence[str]) -> None:
    # these imports take half a second, in which a signal must already end in one line
    with hold_signals():
        from nested_learning.command.compose import as_hydra_reads, make_job, make_jobs
        from nested_learning.command.overrides import keep_last
        from nested_learning.command.sweep import run_sweep, sweep_name
        from nested_learning.config.option_files import open_option_files
        from nested_learning.config.schema import to_yaml

    flags = _read_flags(arguments)
    if flags.job:
        _run_job(Path(flags.job))
        return
    if sys.platform == "win32":
        raise ConfigError("nested_learning runs on Linux and macOS; on Windows, use it in WSL")
    files = open_option_files(flags.config_dir)
    lines, notes = keep_last(flags.overrides)
    for note in notes:
        _say(note)
    if flags.shell_completion:
        _hand_to_hydra(files, flags, lines)
    elif flags.multirun:
        run_sweep(make_jobs(files, lines), last_door()(run_phase), sweep_name(lines))
    else:
        config = make_job(files, lines).config
        if flags.cfg == "job":
            print(to_yaml(config, flags.package), end="")
        elif flags.help or flags.cfg or flags.info:
            _hand_to_hydra(files, flags, as_hydra_reads(files, lines))
        elif config.launcher.name != "serial":
            raise ConfigError(f"launcher={config.launcher.name} runs the jobs of -m: add -m; one job is a sweep too")
        else:
            run_phase(config)


def _run_job(file: Path) -> None:
    """Run the configuration in `file`, as a launcher starts it."""
    # training stops after a checkpoint then
    signal_on_parent_death(signal.SIGTERM)
    with hold_signals():
        from nested_learning.command.sweep import directory_of, wait_for_others
        from nested_learning.config.schema import from_yaml

    config = from_yaml(file)
    if config.phase.trains and config.name is not None and os.environ.get("RANK", "0") == "0":
        wait_for_others(directory_of(config))
    try:
        run_phase(config)
    except Stopped as stopped:
        raise Stopped(stopped.where, "the same command resumes it") from stopped


class _Flags(ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Raise ConfigError in place of printing the usage."""
        raise ConfigError(f"{message}; settings are key=value, such as steps=100; python train.py --help lists them")


def _read_flags(arguments: Sequence[str]) -> Namespace:
    """Parse the flags, among them those of Hydra that make sense here; all other arguments are overrides."""
    parser = _Flags(prog="train.py", add_help=False, allow_abbrev=False)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--help", "-h", action="store_true")
    parser.add_argument("--multirun", "-m", action="store_true")
    parser.add_argument("--job")
    parser.add_argument("--config-dir", "-cd")
    parser.add_argument("--cfg", "-c", choices=["job", "hydra", "all"])
    parser.add_argument("--package", "-p")
    parser.add_argument("--resolve", action="store_true")
    parser.add_argument("--info", "-i", nargs="?", const="all", choices=["all", "config", "defaults", "defaults-tree"])
    parser.add_argument("--shell-completion", "-sc", action="store_true")
    parser.add_argument("--version", action="version", version=f"nested_learning {__version__}")
    flags = parser.parse_intermixed_args(arguments)
    if flags.multirun and (flags.help or flags.cfg or flags.info):
        raise ConfigError(
            "-m: --help, --cfg and --info show one configuration; leave -m out, and one value for each key"
        )
    if flags.job and len(arguments) > len(["--job", flags.job]):
        raise ConfigError(f"--job {flags.job}: the file has all settings; leave all other arguments out")
    if (flags.package or flags.resolve) and not flags.cfg:
        raise ConfigError("--package and --resolve are for --cfg; add --cfg job, or leave them out")
    return flags


def _hand_to_hydra(files: "OptionFiles", flags: Namespace, lines: Sequence[str]) -> None:
    """Let Hydra print --help, --cfg, --info and shell completion. It runs no job."""
    import hydra

    from nested_learning.config.option_files import ROOT

    first, *others = (str(folder) for folder in files.folders)
    argv = [sys.argv[0], *(f"--config-dir={folder}" for folder in others)]
    argv += [f"--{name.replace('_', '-')}" for name in ("help", "resolve", "shell_completion") if vars(flags)[name]]
    argv += [f"--{name}={vars(flags)[name]}" for name in ("cfg", "package", "info") if vars(flags)[name]]
    # Hydra reads the process's own arguments
    before, sys.argv, said = sys.argv, [*argv, *lines], StringIO()
    try:
        with redirect_stderr(said):
            hydra.main(version_base="1.3", config_path=first, config_name=ROOT)(lambda _config: None)()
    except SystemExit as done:
        # Hydra exits with status 0 after --help
        if done.code:
            reason = said.getvalue().strip().splitlines()[-1]
            raise ConfigError(f"Hydra: {reason}; python train.py --help lists the flags") from None
    finally:
        sys.argv = before


def _say(line: str) -> None:
    """Write one line on stderr.

    In a distributed run all processes usually fail with the same error, and torchrun stops the others as soon as one
    exits. So processes other than the first wait before they print: they are heard only if they failed alone.
    """
    if os.environ.get("RANK", "0") != "0":
        with handle_signals(dict.fromkeys(STOPPING, signal.SIG_DFL)):
            time.sleep(PATIENCE)
    print(" ".join(line.split()), file=sys.stderr, flush=True)
