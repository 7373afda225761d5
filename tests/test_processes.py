"""Several processes on this machine, with gloo: told, agreed, stopped, lost, as many as one."""

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ON_CPU, ROOT, read_csv

from tavaal_jax.engine import guard, processes
from tavaal_jax.errors import UserError

METHODS = "tavaal,coreset,mc_dropout,badge"


def free_port():
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return found.getsockname()[1]


# One process


def test_alone_everything_is_trivial():
    assert processes.is_first()
    assert not processes.several()
    assert processes.tell({"a": 1}) == {"a": 1}
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
    assert guard._is_one_of_several(["main", "--config=a.py", argument]) == several


def test_flags_of_several_processes_need_distributed(run_main, tmp_path):
    found = run_main("smoke", tmp_path / "w", "--coordinator=localhost:1")
    assert found.returncode == 2
    assert found.stderr == (
        "error: --coordinator, --process_count, --process_index: give --distributed too\n"
    )
    assert not (tmp_path / "w").exists()


# Two processes without a study

SCRIPT = """
import json, sys
import numpy as np
from tavaal_jax.engine import processes
from tavaal_jax.errors import UserError

index = int(sys.argv[1])
processes.join(f"localhost:{sys.argv[2]}", 2, index)

def told(call):
    try:
        return ["value", call()]
    except UserError as error:
        return [str(error), error.told, error.__cause__ is not None]

def fail(*where):
    def call():
        if index in where:
            raise UserError(f"fault of {index}") from OSError()
        return index
    return call

assert processes.is_first() == (index == 0)
found = {
    "several": processes.several(),
    "tell": processes.tell({"who": index, "long": "x" * 3000}),
    "array": processes.tell(np.arange(3) + 10 * index).tolist(),
    "by_first": told(lambda: processes.by_first(fail(1))),
    "by_first_fails": told(lambda: processes.by_first(fail(0))),
    "together": told(lambda: processes.together(fail())),
    "together_fails": told(lambda: processes.together(fail(1))),
    "nobody": processes.agree(None),
    "second": processes.agree(15 if index == 1 else None),
    "fault": told(lambda: processes.agree(None, UserError("full") if index == 0 else None)),
}
try:
    processes.check_alike(b"same", "data")
    processes.check_alike(b"data of %d" % index, "data")
    found["alike"] = True
except RuntimeError as error:
    found["alike"] = str(error)
print(json.dumps(found))
"""


def several(command, count):
    """Starts `command(index)` for each process: `-> their Popen`."""
    return [
        subprocess.Popen(
            argv, env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True,
        )
        for argv, environment in map(command, range(count))
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(not ON_CPU, reason="the processes share the CPU")
def test_what_one_process_knows_the_others_are_told(command):
    port = str(free_port())
    environment = command("smoke", "unused")[1]
    run = several(lambda i: ([sys.executable, "-c", SCRIPT, str(i), port], environment), 2)
    ended = [one.communicate(timeout=120) for one in run]
    assert [one.returncode for one in run] == [0, 0], ended
    first, second = (json.loads(out.splitlines()[-1]) for out, _ in ended)
    for found in (first, second):
        assert found["several"]
        assert found["tell"]["who"] == 0
        assert found["array"] == [0, 1, 2]
        assert found["by_first"] == ["value", 0]
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
    assert first["alike"] is True
    assert second["alike"] == "process 1 has other data than the first one"


# Studies


@pytest.fixture
def start(command):
    """Starts a study on several processes: `(workdir, count, devices of each) -> their Popen`."""

    def begin(workdir, count, devices, methods=METHODS):
        join = ("--distributed", f"--coordinator=localhost:{free_port()}",
                f"--process_count={count}", f"--config.methods={methods}")  # fmt: skip
        one = lambda i: command("smoke", workdir, *join, f"--process_index={i}", devices=devices)
        return several(one, count)

    if not ON_CPU:
        pytest.skip("the processes share the CPU")
    return begin


@pytest.fixture(scope="module")
def whole(run_main, tmp_path_factory):
    """A study of one process with one device."""
    folder = tmp_path_factory.mktemp("whole")
    assert run_main("smoke", folder, f"--config.methods={METHODS}").returncode == 0
    return folder


def wait_for(condition, run):
    while not condition():
        assert all(one.poll() is None for one in run), [one.communicate() for one in run]
        time.sleep(0.05)


def assert_same(folder, whole, methods=METHODS):
    """Picks and results; scores agree to rounding."""
    for method in methods.split(","):
        results = Path(method, "trial_0", "results.csv")
        assert (folder / results).read_bytes() == (whole / results).read_bytes()
        mine, other = (read_csv(f / method / "trial_0" / "picks.csv") for f in (folder, whole))
        assert len(mine) == 32
        assert [(r["cycle"], r["rank"], r["id"]) for r in mine] == [
            (r["cycle"], r["rank"], r["id"]) for r in other
        ]
    assert not list(folder.glob("*/trial_*/checkpoints"))


def ends(run):
    """Exit codes and the last line that each has said."""
    ended = [one.communicate(timeout=300) for one in run]
    return [one.returncode for one in run], [
        ([*out.splitlines(), *err.splitlines()] or [""])[-1] for out, err in ended
    ]


@pytest.mark.slow
def test_a_signal_to_one_of_two_stops_both_and_one_process_goes_on(
    start, run_main, whole, tmp_path
):
    run = start(tmp_path, 2, 2)
    results = tmp_path / "results.csv"
    wait_for(lambda: results.exists() and "coreset" in results.read_text(), run)
    run[1].send_signal(signal.SIGTERM)
    codes, said = ends(run)
    assert codes == [143, 143]
    assert said[0] == "stopped by SIGTERM; everything is saved, the same command continues"
    assert list(tmp_path.glob("*/trial_0/checkpoints"))
    found = run_main("smoke", tmp_path, f"--config.methods={METHODS}")
    assert found.returncode == 0
    assert "continues in cycle" in found.stdout
    assert_same(tmp_path, whole)


@pytest.mark.slow
def test_four_processes_go_on_with_what_one_has_begun(start, command, whole, tmp_path):
    argv, environment = command("smoke", tmp_path, f"--config.methods={METHODS}")
    run = several(lambda i: (argv, environment), 1)
    results = tmp_path / "results.csv"
    wait_for(lambda: results.exists() and "coreset" in results.read_text(), run)
    run[0].send_signal(signal.SIGTERM)
    assert ends(run)[0] == [143]
    run = start(tmp_path, 4, 1)
    ended = [one.communicate(timeout=600) for one in run]
    assert [one.returncode for one in run] == [0, 0, 0, 0], ended
    assert "continues in cycle" in ended[0][0]
    assert not any("accuracy" in out for out, _ in ended[1:])  # The first one speaks.
    assert_same(tmp_path, whole)


@pytest.mark.slow
def test_a_lost_process_stops_the_other_and_the_same_command_finishes(start, whole, tmp_path):
    for victim in (1, 0):
        run = start(tmp_path, 2, 1, "tavaal")
        logs = list(tmp_path.glob("*/trial_0/metrics.jsonl"))
        size = sum(log.stat().st_size for log in logs)
        wait_for(
            lambda size=size: sum(
                log.stat().st_size for log in tmp_path.glob("*/trial_0/metrics.jsonl")
            ) > size + 1000,
            run,
        )  # fmt: skip
        run[victim].kill()
        killed = time.monotonic()
        codes, said = ends(run)
        assert codes[victim] == -signal.SIGKILL
        assert codes[1 - victim] == guard.LOST
        assert said[1 - victim].startswith(f"error: {guard.MESSAGE}")
        assert time.monotonic() - killed < 60  # What is promised, not a speed.
    run = start(tmp_path, 2, 1, "tavaal")
    ended = [one.communicate(timeout=600) for one in run]
    assert [one.returncode for one in run] == [0, 0], ended
    assert_same(tmp_path, whole, "tavaal")


@pytest.mark.slow
def test_what_concerns_all_is_said_once(start, tmp_path):
    (tmp_path / "file").write_text("in the way")
    run = start(tmp_path / "file", 2, 1)
    ended = [one.communicate(timeout=300) for one in run]
    assert [one.returncode for one in run] == [2, 2]
    assert ended[0][1].splitlines()[-1].startswith("error: cannot write to workdir")
    assert "error" not in ended[1][1]
