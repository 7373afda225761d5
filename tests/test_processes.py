"""Several processes on this machine, with gloo: broadcasts, agreement, stopping, a lost process."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ON_CPU, ROOT, assert_same_picks, read_csv

from tavaal_jax.engine import processes, supervisor
from tavaal_jax.errors import UserError

METHODS = "tavaal,coreset,mc_dropout,badge"
"""Several processes go through each of them in some test below."""


def free_port():
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return found.getsockname()[1]


# One process


def test_alone_everything_is_trivial():
    assert processes.is_first()
    assert not processes.several()
    assert processes.broadcast({"a": 1}) == {"a": 1}
    assert processes.by_first(lambda: 2) == processes.together(lambda: 2) == 2
    assert processes.agree(None) is None
    assert processes.agree(15) == 15
    processes.check_alike(b"a", "data")
    with pytest.raises(UserError, match="disk"):
        processes.agree(None, UserError("disk"))


@pytest.mark.parametrize(
    ("given", "mend"),
    [
        (("pod:8080", 0, -1), "a count of 1 or more and an index of 0 to count - 1"),
        (("pod:8080", 2, 2), "an index of 0 to count - 1"),
        (("", 2, 0), "the first process's host:port"),
        (("pod", 2, 0), "the first process's host:port"),
        (("pod:port", 2, 0), "the first process's host:port"),
        (("pod:70000", 2, 0), "the first process's host:port"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(given, mend):
    with pytest.raises(UserError, match=mend):
        processes.join(*given)


@pytest.mark.parametrize(
    ("argument", "several"),
    [("--distributed", True), ("-distributed", True), ("--distributed=true", True),
     ("--distributed=false", False), ("--nodistributed", False), ("--workdir=distributed", False)],
)  # fmt: skip
def test_only_one_of_several_gets_a_parent(argument, several):
    assert supervisor._is_one_of_several(["main", "--config=a.py", argument]) == several


@pytest.mark.slow
def test_flags_of_several_processes_need_distributed(run_main, tmp_path):
    found = run_main("smoke", tmp_path / "w", "--coordinator=localhost:1")
    assert found.returncode == 2
    assert found.stderr == (
        "error: --coordinator, --process_count, --process_index: give --distributed too\n"
    )
    assert not (tmp_path / "w").exists()


# Two processes without a study

SCRIPT = """
import json, sys, time
import numpy as np
from tavaal_jax.engine import processes
from tavaal_jax.errors import UserError

index = int(sys.argv[1])
processes.join(f"localhost:{sys.argv[2]}", 2, index)

def raised(call):
    try:
        return ["value", call()]
    except UserError as error:
        return [str(error), error.told, error.__cause__ is not None]
    except Exception as error:
        return [type(error).__name__, str(error)]

def fail(*where, kind=UserError):
    def call():
        if index in where:
            raise kind(f"fault of {index}") from OSError()
        return index
    return call

def broadcast_in_chunks():
    usual, processes._CHUNK = processes._CHUNK, 1000
    received = processes.broadcast("y" * 12345 if index == 0 else None)
    processes._CHUNK = usual
    return received

assert processes.is_first() == (index == 0)
found = {
    "several": processes.several(),
    "broadcast": processes.broadcast({"who": index, "long": "x" * 3000}),
    "chunks": len(broadcast_in_chunks()),
    "slow": processes.by_first(lambda: time.sleep(33)),  # Gloo is said to wait for 30 s.
    "array": processes.broadcast(np.arange(3) + 10 * index).tolist(),
    "by_first": raised(lambda: processes.by_first(fail(1))),
    "by_first_fails": raised(lambda: processes.by_first(fail(0))),
    "bug": raised(lambda: processes.by_first(fail(0, kind=KeyError))),
    "together": raised(lambda: processes.together(fail())),
    "bug_together": raised(lambda: processes.together(fail(1, kind=KeyError))),
    "together_fails": raised(lambda: processes.together(fail(1))),
    "nobody": processes.agree(None),
    "second": processes.agree(15 if index == 1 else None),
    "fault": raised(lambda: processes.agree(None, UserError("full") if index == 0 else None)),
}
processes.check_alike(b"same", "data")
found["alike"] = raised(lambda: processes.check_alike({"of": index}, "data"))
print(json.dumps(found))
"""


class Process(subprocess.Popen):
    """A process that never waits for somebody to read what it says."""

    def __init__(self, argv, environment, folder):
        self._said = folder / "stdout", folder / "stderr"
        with self._said[0].open("w") as out, self._said[1].open("w") as err:
            super().__init__(argv, env=environment, cwd=ROOT, stdout=out, stderr=err)

    def said(self):
        """`-> stdout, stderr` so far."""
        return tuple(path.read_text() for path in self._said)

    def child(self):
        """PID of the child that does the work."""
        return int(
            Path(f"/proc/{self.pid}/task/{self.pid}/children")
            .read_text(encoding="utf-8")
            .split()[0]
        )


@pytest.fixture
def several(tmp_path_factory):
    """Starts `command(index)`, its `argv, environment`, for each process: `(command, count)`."""
    if not ON_CPU:
        pytest.skip("the processes share the CPU")
    folder = lambda: tmp_path_factory.mktemp("process")
    return lambda command, count: [Process(*command(i), folder()) for i in range(count)]


def ends(run):
    """Exit codes, and what each has said on stdout and stderr."""
    try:
        codes = [one.wait(timeout=300) for one in run]
    except subprocess.TimeoutExpired:
        for one in run:
            one.kill()
        pytest.fail(f"a process hangs: {[one.said() for one in run]}")
    return codes, [one.said() for one in run]


def ours(out):
    """The lines of stdout that are not gloo's."""
    return [line for line in out.splitlines() if not line.startswith("[Gloo]")]


def last(text):
    """The last line that was said."""
    return (text.splitlines() or [""])[-1]


@pytest.mark.slow
def test_what_one_process_knows_is_broadcast(command, several):
    port = str(free_port())
    environment = command("smoke", "unused")[1]
    run = several(lambda i: ([sys.executable, "-c", SCRIPT, str(i), port], environment), 2)
    codes, ended = ends(run)
    assert codes == [0, 0], ended
    first, second = (json.loads(out.splitlines()[-1]) for out, _ in ended)
    for found in (first, second):
        assert found["several"]
        assert found["broadcast"]["who"] == 0
        assert found["array"] == [0, 1, 2]
        assert found["by_first"] == ["value", 0]
        assert found["slow"] is None
        assert found["nobody"] is None
        assert found["second"] == 15
    assert first["by_first_fails"] == ["fault of 0", False, True]
    assert second["by_first_fails"] == ["fault of 0", True, False]
    assert first["together"] == ["value", 0]
    assert second["together"] == ["value", 1]
    assert first["together_fails"] == [
        "process 1 has stopped: its own message says why", True, False
    ]  # fmt: skip
    assert second["together_fails"] == ["fault of 1", False, True]
    assert first["fault"] == ["full", False, False]
    assert second["fault"] == ["full", True, False]
    assert first["alike"][0] == "process 1 has stopped: its own message says why"
    assert second["alike"][0].startswith("process 1 has other data than the first: start the same")
    assert first["bug"] == ["KeyError", "'fault of 0'"]
    assert second["bug"] == ["Elsewhere", "process 0 raised KeyError: 'fault of 0'"]
    assert first["bug_together"][0] == "Elsewhere"
    assert second["bug_together"] == ["KeyError", "'fault of 1'"]
    assert first["chunks"] == second["chunks"] == 12345


# Studies


@pytest.fixture
def start(command, several):
    """Starts a study on several processes: `(workdir, count, devices of each) -> their Popen`."""

    def begin(workdir, count, devices, *flags, methods="random"):
        join = ("--distributed", f"--coordinator=localhost:{free_port()}",
                f"--process_count={count}", f"--config.methods={methods}", *flags)  # fmt: skip
        one = lambda i: command("smoke", workdir, *join, f"--process_index={i}", devices=devices)
        return several(one, count)

    return begin


@pytest.fixture(scope="module")
def whole(run_main, tmp_path_factory):
    """A study of one process with one device."""
    folder = tmp_path_factory.mktemp("whole")
    assert run_main("smoke", folder, f"--config.methods={METHODS}").returncode == 0
    return folder


def wait_for(condition, run):
    until = time.monotonic() + 300
    while not condition():
        assert all(one.poll() is None for one in run), [one.said() for one in run]
        assert time.monotonic() < until, [one.said() for one in run]
        time.sleep(0.05)


def assert_same(folder, whole, methods):
    """Picks and results; scores agree to rounding."""
    for method in methods.split(","):
        results = Path(method, "trial_0", "results.csv")
        assert (folder / results).read_bytes() == (whole / results).read_bytes()
        mine, other = (read_csv(f / method / "trial_0" / "picks.csv") for f in (folder, whole))
        assert len(mine) == 32
        assert_same_picks(mine, other)
    assert not list(folder.glob("*/trial_*/checkpoints"))


@pytest.mark.slow
def test_a_signal_to_one_of_two_stops_both_and_one_process_goes_on(
    start, run_main, whole, tmp_path
):
    methods = "tavaal,coreset"
    run = start(tmp_path, 2, 2, methods=methods)
    results = tmp_path / "results.csv"
    wait_for(lambda: results.exists() and "coreset" in results.read_text(), run)
    # As pkill does: parent and child.
    os.kill(run[1].child(), signal.SIGTERM)
    run[1].send_signal(signal.SIGTERM)
    codes, said = ends(run)
    assert codes == [143, 143]
    line = "stopped by SIGTERM; everything is saved, the same command continues"
    assert last(said[0][1]) == line
    assert line not in said[1][1]
    assert list(tmp_path.glob("*/trial_0/checkpoints"))
    found = run_main("smoke", tmp_path, f"--config.methods={methods}")
    assert found.returncode == 0
    assert "continues in cycle" in found.stdout
    assert_same(tmp_path, whole, methods)


@pytest.mark.slow
def test_four_processes_go_on_with_what_one_has_begun(start, several, command, whole, tmp_path):
    methods = "mc_dropout,badge"
    argv, environment = command("smoke", tmp_path, f"--config.methods={methods}")
    run = several(lambda i: (argv, environment), 1)
    results = tmp_path / "results.csv"
    wait_for(results.exists, run)
    run[0].send_signal(signal.SIGTERM)
    assert ends(run)[0] == [143]
    codes, said = ends(start(tmp_path, 4, 1, methods=methods))
    assert codes == [0, 0, 0, 0], said
    assert "continues in cycle" in said[0][0]
    assert not any(ours(out) for out, _ in said[1:])  # The first one speaks.
    assert_same(tmp_path, whole, methods)


@pytest.mark.slow
def test_a_lost_process_stops_the_other_and_the_same_command_finishes(start, whole, tmp_path):
    def logged():
        return sum(log.stat().st_size for log in tmp_path.glob("*/trial_0/metrics.jsonl"))

    for victim, parent in ((1, True), (0, False)):
        before = logged()
        run = start(tmp_path, 2, 1, methods="tavaal")
        wait_for(lambda before=before: logged() > before + 1000, run)
        os.kill(run[victim].pid if parent else run[victim].child(), signal.SIGKILL)
        killed = time.monotonic()
        codes, said = ends(run)
        assert codes[victim] == (-signal.SIGKILL if parent else 128 + signal.SIGKILL)
        assert codes[1 - victim] == supervisor.LOST, said
        # JAX's threads may have a last word of their own, or abort the process: its parent says it.
        told = [line for line in said[1 - victim][1].splitlines() if supervisor.MESSAGE in line]
        assert [line.partition(":")[0] for line in told] == ["error"], said
        assert time.monotonic() - killed < 60  # What is promised, not a speed.
    codes, said = ends(start(tmp_path, 2, 1, methods="tavaal"))
    assert codes == [0, 0], said
    assert_same(tmp_path, whole, "tavaal")


@pytest.mark.slow
def test_a_trial_that_fails_fails_everywhere_and_is_said_once(start, tmp_path):
    rate = "--config.task.learning_rate=1e38"
    codes, said = ends(start(tmp_path, 2, 1, rate, methods="random,coreset"))
    assert codes == [2, 2], said
    assert last(said[0][1]).startswith("error: 2 faults: random trial 0: ")
    assert not ours(said[1][0])
    assert "error" not in said[1][1]


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["folder", "config", "devices"])
def test_what_concerns_all_ends_all_before_anything_is_done(
    start, several, command, tmp_path, fault
):
    workdir = tmp_path / "workdir"
    if fault == "folder":
        workdir.write_text("in the way")
        run = start(workdir, 2, 1)
    elif fault == "config":
        port = free_port()
        join = ("--distributed", f"--coordinator=localhost:{port}", "--process_count=2")
        run = several(
            lambda i: command(
                "smoke", workdir, *join, f"--process_index={i}", f"--config.seed={i}"
            ), 2,
        )  # fmt: skip
    else:
        port = free_port()
        join = ("--distributed", f"--coordinator=localhost:{port}", "--process_count=2")
        run = several(
            lambda i: command("smoke", workdir, *join, f"--process_index={i}", devices=1 + i), 2
        )
    codes, said = ends(run)
    assert codes == [2, 2], said
    first, second = (last(err) for _, err in said)
    if fault == "folder":
        assert first.startswith("error: cannot write to workdir")
        assert "error" not in said[1][1]
    elif fault == "config":
        assert second.startswith("error: process 1 has other config than the first")
        assert not workdir.exists()
    else:
        assert first == second == (
            "error: the processes have 1, 2 devices: give each the same number"
        )  # fmt: skip
        assert not workdir.exists()
