"""Trials in worker processes: as many results as one after the other, whatever happens to them."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import METHOD, ROOT, features, read_csv

import tavaal_jax
from configs import moons
from tavaal_jax.errors import UserError
from tavaal_jax.report import files
from tavaal_jax.study.parallel import worker, worker_pool
from tavaal_jax.study.study import Throttle

METHODS = ("random", "coreset", "tavaal")
SHORT = ("--config.cycles=3", "--config.epochs=5", "--config.trials=3",
         f"--config.methods={','.join(METHODS)}")  # fmt: skip
APART = ("--config.parallel=trials", "--config.workers=2")


# Without processes


class Member:
    """A worker that only keeps what it is given."""

    def __init__(self):
        self.order, self.is_alive, self.is_ready = None, True, True

    def send(self, order):
        self.order = order


@pytest.mark.parametrize(
    ("methods", "workers", "first"),
    [("abcd", 2, "ab"), ("ab", 2, "ab"), ("a", 3, "aaa"), ("ab", 4, "abab"), ("abc", 2, "ab")],
)
def test_workers_begin_with_methods_of_their_own_and_then_take_what_is_left(
    methods, workers, first
):
    some = worker_pool.WorkerPool.__new__(worker_pool.WorkerPool)
    some._methods = list(methods)
    some._workers = [Member() for _ in range(workers)]
    left = [worker.TrialOrder(method, trial) for trial in range(4) for method in methods]
    some.give(left)
    given = [member.order for member in some._workers]
    assert "".join(order.method for order in given) == first
    while left:
        some._workers[0].order = None
        some.give(left)
        given.append(some._workers[0].order)
    assert len(set(given)) == 4 * len(methods)
    mine = [order for order in given if order.method == methods[0]]
    assert mine == sorted(mine, key=lambda order: order.trial)


def test_what_takes_long_is_done_seldom(monkeypatch):
    now, done = [0.0], []
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def act():
        done.append(now[0])
        now[0] += 1.0  # second

    seldom = Throttle(act)
    for moment in (0.0, 1.5, 19.9, 20.0, 30.0, 40.0):
        now[0] = moment
        seldom()
    assert done == [0.0, 20.0, 40.0]


# Studies


@pytest.fixture(scope="module")
def whole(run_main, tmp_path_factory):
    """A study one trial after the other."""
    folder = tmp_path_factory.mktemp("whole")
    assert run_main("moons", folder, *SHORT).returncode == 0
    return folder


def assert_same(folder, whole):
    assert (folder / "results.csv").read_bytes() == (whole / "results.csv").read_bytes()
    for method in METHODS:
        for trial in range(3):
            place = Path(method, f"trial_{trial}")
            for name in ("picks.csv", "results.csv"):
                assert (folder / place / name).read_bytes() == (whole / place / name).read_bytes()
            mine, theirs = (read_csv(f / place / "diagnostics.csv") for f in (folder, whole))
            for row in mine + theirs:
                for name in [name for name in row if name.startswith("seconds")]:
                    del row[name]
            assert mine == theirs
            assert (folder / place / "model" / "model.json").exists()
            assert not (folder / place / "checkpoints").exists()


def start(command, folder, *flags):
    argv, environment = command("moons", folder, *SHORT, *APART, *flags)
    return subprocess.Popen(
        argv, env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def workers_of(run):
    """PIDs of its workers."""
    return list(map(int, Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()))


def wait_for(condition, run):
    until = time.monotonic() + 300
    while not condition():
        assert run.poll() is None, run.communicate()
        assert time.monotonic() < until
        time.sleep(0.02)


def is_gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.mark.slow
def test_workers_write_what_one_process_writes(run_main, whole, tmp_path):
    done = run_main("moons", tmp_path, *SHORT, *APART)
    assert done.returncode == 0, done.stderr
    assert_same(tmp_path, whole)
    assert "tavaal trial 2 cycle 2: 40 labelled, accuracy" in done.stdout
    assert (tmp_path / "accuracy.png").exists()
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("picks.csv")}
    assert "nothing to do" in run_main("moons", tmp_path, *SHORT, *APART).stdout
    assert before == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("picks.csv")}


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_all_workers_and_one_process_goes_on(
    number, command, run_main, whole, tmp_path
):
    run = start(command, tmp_path)
    wait_for(lambda: list(tmp_path.glob("*/trial_*/results.csv")), run)
    workers = workers_of(run)
    run.send_signal(number)
    _, said = run.communicate(timeout=300)
    assert run.returncode == 128 + number
    assert said.splitlines()[-1].startswith(f"stopped by {signal.Signals(number).name}; everything")
    assert len(workers) == 2
    assert all(map(is_gone, workers))
    assert run_main("moons", tmp_path, *SHORT).returncode == 0
    assert_same(tmp_path, whole)


@pytest.mark.slow
def test_a_lost_worker_is_named_and_the_same_command_finishes(command, run_main, whole, tmp_path):
    run = start(command, tmp_path)
    wait_for(lambda: list(tmp_path.glob("*/trial_*/results.csv")), run)
    os.kill(workers_of(run)[0], signal.SIGKILL)
    out, said = run.communicate(timeout=300)
    assert run.returncode == 2, (out, said)
    line = said.splitlines()[-1]
    assert "a worker process ended in " in line
    assert "with SIGKILL: the same command continues, with fewer --config.workers if" in line
    finished = len(list(tmp_path.glob("*/trial_*/model/model.json")))
    assert finished in {8, 9}  # All but the lost one's, which it may just have ended.
    assert run_main("moons", tmp_path, *SHORT, *APART).returncode == 0
    assert_same(tmp_path, whole)


@pytest.mark.slow
def test_without_their_study_workers_end_and_the_same_command_finishes(
    command, run_main, whole, tmp_path
):
    run = start(command, tmp_path)
    wait_for(lambda: list(tmp_path.glob("*/trial_*/results.csv")), run)
    workers = workers_of(run)
    run.kill()
    run.communicate()
    until = time.monotonic() + 60
    while not all(map(is_gone, workers)):
        assert time.monotonic() < until
        time.sleep(0.1)
    assert run_main("moons", tmp_path, *SHORT, *APART).returncode == 0
    assert_same(tmp_path, whole)


@pytest.mark.slow
def test_faults_of_a_trial_are_those_of_one_process(run_main, tmp_path):
    flags = ("--config.methods=random,vaal", "--config.trials=1", "--config.cycles=2")
    flags += ("--config.epochs=3", "--config.vae.learning_rate=1e20", "--config.vae.optimiser=sgd")
    alone = run_main("moons", tmp_path / "alone", *flags)
    apart = run_main("moons", tmp_path / "apart", *flags, *APART)
    assert alone.returncode == apart.returncode == 2
    mine, theirs = (done.stderr.strip().splitlines()[-1] for done in (apart, alone))
    what = lambda line: line.split(": the last good")[0].split(": lower")[0]
    assert what(mine) == what(theirs)
    assert (tmp_path / "apart" / "random" / "trial_0" / "model" / "model.json").exists()


@pytest.mark.slow
def test_a_second_command_helps_and_each_trial_is_run_once(command, whole, tmp_path):
    run = start(command, tmp_path, "--config.workers=1")
    wait_for(lambda: list(tmp_path.glob("*/trial_*/results.csv")), run)
    (slow,) = workers_of(run)
    os.kill(slow, signal.SIGSTOP)  # At a trial that nobody takes from it.
    helper = start(command, tmp_path)
    help_said, _ = helper.communicate(timeout=300)
    os.kill(slow, signal.SIGCONT)
    said, _ = run.communicate(timeout=300)
    assert (run.returncode, helper.returncode) == (0, 0)
    assert_same(tmp_path, whole)
    assert "All trials that are left are run by another process." in help_said
    ends = [
        [line.split(" cycle")[0] for line in text.splitlines() if "cycle 2: 40" in line]
        for text in (said, help_said)
    ]
    assert len(ends[1]) >= 5
    assert len(ends[0] + ends[1]) == len(set(ends[0] + ends[1])) == 9


@pytest.mark.slow
def test_a_helper_finishes_what_its_first_process_has_left(command, whole, tmp_path):
    run = start(command, tmp_path, "--config.workers=1")
    wait_for((tmp_path / ".parallel").exists, run)
    helper = start(command, tmp_path, "--config.workers=1")
    wait_for(lambda: len(list(tmp_path.glob("*/trial_*/results.csv"))) > 2, run)
    run.kill()
    run.communicate()
    _, said = helper.communicate(timeout=300)
    assert helper.returncode == 0, said
    assert_same(tmp_path, whole)
    assert (tmp_path / "accuracy.png").exists()


@pytest.mark.slow
def test_nothing_can_be_saved_when_all_shall_stop(command, run_main, whole, tmp_path):
    run = start(command, tmp_path)
    wait_for(lambda: list(tmp_path.glob("*/trial_*/results.csv")), run)
    for folder in tmp_path.glob("*/trial_*/checkpoints"):
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # Of a trial that has just ended.
            folder.write_text("in the way")
    run.send_signal(signal.SIGTERM)
    _, said = run.communicate(timeout=300)
    assert run.returncode == 2, said
    assert "checkpoints" in said.splitlines()[-1]
    for folder in tmp_path.glob("*/trial_*/checkpoints"):
        if folder.is_file():
            folder.unlink()
    assert run_main("moons", tmp_path, *SHORT, *APART).returncode == 0
    assert_same(tmp_path, whole)


ALONE = """
import sys
import jax
import tavaal_jax as tv
from jax._src import xla_bridge

config = tv.load_config("configs/moons.py", methods="random", trials=1, cycles=2, epochs=2,
                        parallel="trials")
rows = tv.run_study(config, sys.argv[1]).rows()
assert len(rows) == 2, rows
assert not xla_bridge.backends_are_initialized()
"""


@pytest.mark.slow
def test_the_process_that_has_workers_leaves_the_devices_to_them(command, tmp_path):
    _, environment = command("moons", tmp_path)
    argv = [sys.executable, "-c", ALONE, str(tmp_path / "study")]
    done = subprocess.run(
        argv, env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_trial_that_another_process_runs_is_left_alone(call_study, tmp_path):
    with files.claim_trial(tmp_path, "random", 0):
        with pytest.raises(UserError, match="another process is running random trial 0 in"):
            call_study(tmp_path)
        assert not (tmp_path / "random").exists()
    call_study(tmp_path)


def test_one_process_after_another_takes_no_help(call_study, tmp_path):
    with files.claim(tmp_path), pytest.raises(UserError, match="another process is running in"):
        call_study(tmp_path)
    call_study(tmp_path)
    with files.claim(tmp_path):
        files.tell_helpers(tmp_path, "devices")
        with pytest.raises(UserError, match="another process is running in"):
            call_study(tmp_path, parallel="trials")


@pytest.fixture
def call_study():
    def call(folder, **changes):
        config = moons.get_config()
        config.update(methods="random", trials=1, cycles=2, epochs=2, batch_size=16, **changes)
        return tavaal_jax.run_study(config, folder)

    return call


@pytest.mark.slow
def test_workers_know_the_methods_of_a_config_file_and_tell_of_bugs(run_main, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(METHOD.format(body="return view.image.sum()"))
    done = run_main(path, tmp_path / "study", *APART, "--config.trials=2")
    assert done.returncode == 0, done.stderr
    assert {r["trial"] for r in read_csv(tmp_path / "study" / "results.csv")} == {"0", "1"}
    broken = METHOD.replace("tv.picks.largest", "lambda values, *others: values.nothing")
    path.write_text(broken.format(body="return view.image.sum()"))
    done = run_main(path, tmp_path / "broken", *APART)
    assert done.returncode == 1
    assert "in a worker process:" in done.stderr
    assert "has no attribute 'nothing'" in done.stderr


@pytest.mark.slow
def test_arrays_are_given_to_the_workers(tmp_path):
    dataset = features()
    config = moons.get_config()
    config.update(methods="random,margin", trials=1, cycles=2, epochs=2, batch_size=16, subset=0)
    told = []
    alone = tavaal_jax.run_study(config, tmp_path / "alone", dataset)
    config.update(parallel="trials", workers=2)
    apart = tavaal_jax.run_study(config, tmp_path / "apart", dataset, progress=told.append)
    assert apart.rows() == alone.rows()
    done = [event.done for event in told if event.done is not None]
    assert done == sorted(done)
    assert done[-1] == pytest.approx(1)


def test_workers_and_hosts_do_not_go_together(monkeypatch, tmp_path):
    config = moons.get_config()
    config.parallel = "trials"
    monkeypatch.setattr(tavaal_jax.study.study.processes, "several", lambda: True)
    monkeypatch.setattr(tavaal_jax.study.study.processes, "check_alike", lambda *_: None)
    with pytest.raises(UserError, match="parallel is 'trials' with --distributed: leave that"):
        tavaal_jax.run_study(config, tmp_path / "w")
    assert not (tmp_path / "w").exists()
