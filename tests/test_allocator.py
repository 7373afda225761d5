"""The process starts itself anew once, with huge pages, its arguments and its PID."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import os, sys
from tavaal_jax.engine import allocator
threads = os.environ.get("OPENBLAS_NUM_THREADS")
print(os.getpid(), threads, os.environ.get("GLIBC_TUNABLES"), sys.argv[1:], flush=True)
allocator.restart_with_huge_pages()
print("went on", flush=True)
"""


@pytest.fixture
def program(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    return [str(tmp_path / "program.py")]


def lines(program, tunables=None, **more):
    ours = ("GLIBC_TUNABLES", "TAVAAL_JAX_RESTARTED", "OPENBLAS_NUM_THREADS")
    environment = {k: v for k, v in os.environ.items() if k not in ours} | more
    if tunables is not None:
        environment["GLIBC_TUNABLES"] = tunables
    command = [sys.executable, *program, "--flag", "a b"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return result.stdout.splitlines()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc is Linux's")
@pytest.mark.parametrize("tunables", [None, "glibc.malloc.check=0"])
def test_starts_anew_once(program, tunables):
    first, second, end = lines(program, tunables)
    both = "glibc.malloc.hugetlb=1" if tunables is None else f"{tunables}:glibc.malloc.hugetlb=1"
    assert first.split()[0] == second.split()[0]
    assert second.endswith(f" 1 {both} ['--flag', 'a b']")
    assert end == "went on"


def test_leaves_the_users_choice_alone(program):
    first, end = lines(program, "glibc.malloc.hugetlb=0")
    assert "hugetlb=0" in first
    assert end == "went on"
    assert lines(program, OPENBLAS_NUM_THREADS="3")[1].split()[1] == "3"


def test_leaves_an_interpreter_alone_that_runs_something_else(program):
    assert len(lines(["-c", PROGRAM])) == 2
    assert len(lines(["-m", "cProfile", "-o", os.devnull, *program])) == 2
