"""A parent process that reports the loss of another process of a distributed run.

Where a process of a run dies, JAX's coordinator aborts the others, in the midst of C++ and with a
stack of it: they can print no message of their own. So the command runs in a child process, and
its parent prints one line.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

LOST = 76
"""Exit code where another process was lost."""
MESSAGE = "another process was lost, or never came: start the same command again on all of them"
_PIPE = "TAVAAL_JAX_PARENT"
_PATIENCE = 5.0  # seconds that a second signal leaves a child


def run_supervised(argv: list[str]) -> int | None:
    """Runs this command in a child process, `-> exit code`; None: the caller is to run it itself.

    None is returned in the child, and without `--distributed` among `argv`. Signals are passed on;
    a child whose parent is killed ends at once. Call it before JAX is imported.
    """
    if is_child():
        pipe = int(os.environ[_PIPE])
        threading.Thread(target=_end_with_parent, args=(pipe,), daemon=True).start()
        return None
    if not _is_one_of_several(argv):
        return None
    read, write = os.pipe()
    child = subprocess.Popen(
        [sys.executable, *sys.orig_argv[1:]],
        env={**os.environ, _PIPE: str(read)},
        pass_fds=(read,),
        start_new_session=True,  # A terminal's ctrl-C would reach it twice.
    )
    os.close(read)

    first = 0.0

    def pass_on(number: int, frame: FrameType | None) -> None:
        nonlocal first
        del frame
        child.send_signal(number)
        if first and time.monotonic() - first > 1:  # It may be waiting for others.
            threading.Timer(_PATIENCE, child.kill).start()
        first = first or time.monotonic()

    for number in signals():
        signal.signal(number, pass_on)
    code = child.wait()
    os.close(write)
    if code == -signal.SIGABRT:
        print(f"error: aborted, see above; most likely {MESSAGE}", file=sys.stderr)
        return LOST
    return code if code >= 0 else 128 - code


def signals() -> tuple[int, ...]:
    """Signals that ask this program to end, and those by which a batch system warns that it will.

    Not SIGHUP where `nohup` has it ignored, and no warning that something else listens to.
    """
    ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    warnings = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU)
    return (
        signal.SIGINT,
        signal.SIGTERM,
        *(() if ignored else (signal.SIGHUP,)),
        *(number for number in warnings if signal.getsignal(number) == signal.SIG_DFL),
    )


def is_child() -> bool:
    """Whether this process runs under `run_supervised`."""
    return _PIPE in os.environ


def exit_now(main: Callable[[list[str]], int]) -> int:
    """Calls `main`, `-> exit code`; ends the process at once where others do not end as well.

    JAX would wait for the others before it ends, and they for this one.
    """
    try:
        code = main(sys.argv)
    except Exception:
        traceback.print_exc()
        code = 1
    if code in (1, LOST, 128 + signal.SIGINT):
        leave(code)
    return code


def leave(code: int) -> NoReturn:
    """Ends the process without waiting for its threads; what is printed is written first."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # Its reader is gone, or it is closed.
            stream.flush()
    os._exit(code)


def end(code: int) -> NoReturn:
    """Ends a command, at once after a fault that the user can mend, where it is the only process.

    Of Orbax's threads, those that wait for a folder on a failed disk would wait 20 minutes. Several
    processes wait for each other instead.
    """
    if code == 2 and not is_child():
        leave(code)
    sys.exit(code)


def is_loss(error: BaseException) -> bool:
    """Whether a call to the devices failed because another process has ended."""
    text = str(error)
    signs = ("Gloo", "onnection", "UNAVAILABLE", "DEADLINE_EXCEEDED", "heartbeat", "NCCL")
    return any(sign in text for sign in signs)


def _is_one_of_several(argv: list[str]) -> bool:
    given = [argument.lstrip("-").partition("=")[::2] for argument in argv if argument[:1] == "-"]
    values = [value.lower() for name, value in given if name == "distributed"]
    return bool(values) and values[-1] not in ("false", "f", "0")


def _end_with_parent(pipe: int) -> None:
    os.read(pipe, 1)  # Ends when the parent does.
    os._exit(128 + signal.SIGKILL)
