"""Huge pages for the C library's allocator.

XLA's CPU backend asks for its temporary memory, 1.7 GB for a step of ResNet-18, anew at every call,
and the kernel hands it over in pages of 4 KiB: 400,000 page faults, half a second. With glibc's
tunable `glibc.malloc.hugetlb=1` the pages have 2 MiB. glibc reads it when a process starts, so
`main` starts itself anew with it; importing the package changes nothing. (`mallopt` from inside can
keep the memory instead, but then the process grows and some calls still fault.)
"""

import os
import sys

_TUNABLE = "glibc.malloc.hugetlb"


def restart_with_huge_pages() -> None:
    """Replaces this process by itself (same arguments, same PID) with huge pages allowed.

    Does nothing the second time, where the user has set the tunable (`GLIBC_TUNABLES=
    glibc.malloc.hugetlb=0` refuses it), or where there is no glibc. To be called first of all.
    """
    set_already = os.environ.get("GLIBC_TUNABLES", "")
    if not sys.platform.startswith("linux") or not sys.executable or _TUNABLE in set_already:
        return
    tunables = ":".join(filter(None, [set_already, f"{_TUNABLE}=1"]))
    arguments = [sys.executable, *sys.orig_argv[1:]]
    os.execve(sys.executable, arguments, {**os.environ, "GLIBC_TUNABLES": tunables})
