"""A parent for a process of several, which lives to say that another one was lost.

Where a process of a run dies, JAX's coordinator aborts the others, in the midst of C++ and with a
stack of it: nothing can be said any more. So the command runs in a child process, and its parent
says in one line what has happened.
"""

import os
import signal
import subprocess
import sys
import threading
from types import FrameType

LOST = 76
"""Exit code of a process whose fellow was lost."""
MESSAGE = "another process was lost, or never came: start the same command again on all of them"
_PIPE = "TAVAAL_JAX_PARENT"


def watch(argv: list[str]) -> int | None:
    """The exit code of this command, run in a child process; None: go on and run it here.

    That is so in the child itself, and without `--distributed` among `argv`. Signals are passed on;
    a child whose parent is killed ends at once. To be called before JAX is imported.
    """
    if _PIPE in os.environ:
        pipe = int(os.environ.pop(_PIPE))
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

    def pass_on(number: int, frame: FrameType | None) -> None:
        del frame
        child.send_signal(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, pass_on)
    code = child.wait()
    os.close(write)
    if code == -signal.SIGABRT:
        print(f"error: {MESSAGE}", file=sys.stderr)
        return LOST
    return code if code >= 0 else 128 - code


def is_loss(error: BaseException) -> bool:
    """Whether a call to the devices failed because another process is not there any more."""
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
