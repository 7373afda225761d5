"""Settings of C libraries that are read when a process starts: huge pages, threads of BLAS.

XLA's CPU backend asks for its temporary memory, 1.7 GB for a step of ResNet-18, anew at every call,
and the kernel hands it over in pages of 4 KiB: 400,000 page faults, half a second. With glibc's
tunable `glibc.malloc.hugetlb=1` the pages have 2 MiB. glibc reads it when a process starts, so
`main` restarts itself with it; importing the package changes nothing. (`mallopt` from inside can
keep the memory instead, but then the process grows and some calls still fault.)

OpenBLAS, of NumPy and of XLA's decompositions, waits for its threads by spinning. Where XLA's or
another process's threads have the cores, a decomposition that one thread ends in 0.06 s takes
seconds; so it gets one, unless OPENBLAS_NUM_THREADS says otherwise.
"""

import contextlib
import os
import sys

_TUNABLE = "glibc.malloc.hugetlb"
_THREADS = "OPENBLAS_NUM_THREADS"
_RESTARTED = "TAVAAL_JAX_RESTARTED"


def restart_with_huge_pages() -> None:
    """Restarts this process (same arguments, same PID) with huge pages, and BLAS on one thread.

    Does nothing the second time, where the user has set the tunable (`GLIBC_TUNABLES=
    glibc.malloc.hugetlb=0` refuses it), where there is no glibc, or where the process is not a
    plain `python [-m] program arguments` (a notebook, a debugger). Call it before anything else.
    """
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    if _RESTARTED in os.environ or _TUNABLE in tunables or not _has_glibc() or not _is_plain():
        return
    tunables = ":".join(filter(None, [tunables, f"{_TUNABLE}=1"]))
    arguments = [sys.executable, *sys.orig_argv[1:]]
    environment = {_THREADS: "1", **os.environ, "GLIBC_TUNABLES": tunables, _RESTARTED: "1"}
    with contextlib.suppress(OSError):  # It is only slower without.
        os.execve(sys.executable, arguments, environment)


def _has_glibc() -> bool:
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    except (AttributeError, ValueError, OSError):
        return False


def _is_plain() -> bool:
    """Whether the interpreter was started for this program: `python -m module ...` or a script."""
    given = sys.orig_argv[1 : len(sys.orig_argv) - len(sys.argv) + 1]
    module = getattr(sys.modules.get("__main__"), "__spec__", None)
    expected = ["-m", module.name] if module is not None else [sys.argv[0]]
    one_program = given.count("-m") == expected.count("-m")
    return bool(sys.executable) and one_program and given[-len(expected) :] == expected
