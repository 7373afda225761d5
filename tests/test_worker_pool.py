"""Trials in worker processes: as many results as one after the other, whatever happens to them.

The pool's side is tested with threads in the place of worker processes, the worker's side with a
worker in a thread; only the slow tests start real ones.
"""

import contextlib
import importlib.util
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from multiprocessing.connection import Pipe
from pathlib import Path

import pytest
from conftest import METHOD, ROOT, features, read_csv

import tavaal_jax
from configs import moons
from tavaal_jax.algorithm import methods
from tavaal_jax.data import SETS
from tavaal_jax.engine.device_shares import Share
from tavaal_jax.errors import Diverged, Interrupted, TrialError, UserError
from tavaal_jax.models.networks import NETWORKS
from tavaal_jax.report import files
from tavaal_jax.report.progress import Throttle
from tavaal_jax.study.parallel import worker, worker_pool
from tavaal_jax.study.parallel.worker import Ended, HasResults, Ready, StopOrder, Stopped
from tavaal_jax.study.trial import TrialHooks

METHODS = ("random", "coreset", "margin")
SHORT = ("--config.cycles=3", "--config.epochs=5", "--config.trials=2",
         "--config.methods=random,margin")  # fmt: skip
APART = ("--config.parallel=trials", "--config.workers=2")
SHARES = [Share({}, frozenset())] * 2
JOB = worker.Job(
    moons.get_config(), Path("unused"), None, {name: methods.METHODS[name] for name in METHODS}, {},
    {},
)  # fmt: skip


# The pool


class FakeProcess:
    """A worker in a thread, which answers orders by `behave(order) -> messages`."""

    def __init__(self, behave, orders):
        self.pipe, self._theirs = Pipe()
        self._behave, self._orders = behave, orders
        self.code = 0
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self):
        with contextlib.suppress(EOFError, OSError), self._theirs as pipe:
            pipe.recv(), pipe.recv_bytes()  # Cores and job.
            pipe.send(Ready())
            while True:
                order = pipe.recv()
                self._orders.append(order)
                for message in self._behave(order):
                    if isinstance(message, int):  # It ends like a process with that exit code.
                        self.code = message
                        return
                    pipe.send(message)

    def kill(self):
        with contextlib.suppress(OSError):
            self.pipe.send(StopOrder(signal.SIGKILL))

    def wait(self):
        self._thread.join(30)
        assert not self._thread.is_alive()
        return self.code


def finish(order):
    """What a good worker does."""
    if isinstance(order, StopOrder):
        return [Stopped(), 0]
    return [HasResults(), worker.TrackerCall((f"{order.method} {order.trial}",), {}), Ended()]


@pytest.fixture
def pool(monkeypatch):
    """`(behave, todo, stop) -> outcomes, orders, lines, results` of two fake workers."""

    def run(behave, todo, stop=lambda: None):
        orders, lines, results = [], [], []

        def launch(share):
            process = FakeProcess(behave, orders)
            return process, process.pipe

        monkeypatch.setattr(worker_pool, "_launch", launch)
        hooks = TrialHooks(
            lambda text, **place: lines.append(text), lambda: results.append(1), stop
        )
        outcomes = worker_pool.run(JOB, SHARES, todo, hooks)
        return outcomes, orders, lines, results

    return run


TODO = [(method, trial) for trial in range(2) for method in METHODS]


def test_every_trial_is_given_once_and_heard_of(pool):
    outcomes, orders, lines, results = pool(finish, TODO)
    assert list(outcomes) == [None] * 6
    assert sorted(o for o in orders if not isinstance(o, StopOrder)) == sorted(TODO)
    assert sorted(lines) == sorted(f"{method} {trial}" for method, trial in TODO)
    assert len(results) == 6


def test_an_error_of_a_trial_comes_with_its_cause_and_the_others_go_on(pool):
    def behave(order):
        if order == ("coreset", 0):
            return [Ended(Diverged("coreset trial 0: nan", "mend"), OSError(28, "full"))]
        return finish(order)

    outcomes = list(pool(behave, TODO)[0])
    (error,) = (found for found in outcomes if found is not None)
    assert (str(error), error.__cause__.errno) == ("coreset trial 0: nan: mend", 28)
    assert len(outcomes) == 6


def test_a_lost_worker_is_named_and_the_others_finish(pool):
    behave = lambda order: [-signal.SIGKILL] if order == ("random", 0) else finish(order)
    outcomes = list(pool(behave, TODO)[0])
    (error,) = (found for found in outcomes if found is not None)
    assert isinstance(error, TrialError)
    assert str(error).startswith(
        "a worker process ended in random trial 0 with SIGKILL: the same command continues, with"
        " fewer --config.workers if"
    )
    assert len(outcomes) == 6


def test_without_any_worker_left_the_study_ends(pool):
    outcomes = pool(lambda order: [3], TODO)[0]
    found = [next(outcomes), next(outcomes)]
    assert all("with exit code 3" in str(error) for error in found)
    with pytest.raises(UserError, match="no worker process is left, see above; the same command"):
        next(outcomes)


def test_a_signal_stops_workers_that_have_a_trial(pool):
    begun = threading.Event()

    def behave(order):
        begun.set()
        return finish(order) if isinstance(order, StopOrder) else []

    stop = lambda: signal.SIGTERM if begun.is_set() else None
    outcomes, orders, *_ = pool(behave, TODO, stop)
    with pytest.raises(Interrupted) as error:
        list(outcomes)
    assert error.value.number == signal.SIGTERM
    assert StopOrder(signal.SIGTERM) in orders


def test_nothing_can_be_saved_when_all_shall_stop(pool):
    begun = threading.Event()

    def behave(order):
        begun.set()
        if isinstance(order, StopOrder):
            return [Ended(UserError("checkpoints is in the way")), Stopped(), 0]
        return []

    with pytest.raises(UserError, match="checkpoints is in the way"):
        list(pool(behave, TODO, lambda: 15 if begun.is_set() else None)[0])


def test_a_bug_in_a_worker_is_raised_with_its_traceback_and_the_others_save(pool):
    slow = threading.Event()

    def behave(order):
        if order == ("random", 0):
            slow.wait(30)
            return [worker.Bug("Traceback: no attribute 'nothing'"), 0]
        slow.set()
        return finish(order) if isinstance(order, StopOrder) else []

    outcomes, orders, *_ = pool(behave, TODO)
    with pytest.raises(RuntimeError, match="in a worker process:\nTraceback: no attribute 'noth"):
        list(outcomes)
    assert StopOrder(signal.SIGTERM) in orders


def test_what_no_worker_can_do_ends_the_study(pool):
    failed = lambda order: [worker.Failed(UserError("there is no data set")), 0]
    with pytest.raises(UserError, match="there is no data set"):
        list(pool(failed, TODO)[0])


@pytest.mark.parametrize(
    ("methods", "workers", "first"),
    [("abcd", 2, "ab"), ("ab", 2, "ab"), ("a", 3, "aaa"), ("ab", 4, "abab"), ("abc", 2, "ab")],
)
def test_workers_begin_with_methods_of_their_own_and_then_take_what_is_left(
    methods, workers, first
):
    class Handle:
        def __init__(self):
            self.order, self.is_alive, self.is_ready = None, True, True

        def send(self, order):
            self.order = order

    some = worker_pool.WorkerPool(list(methods))
    some._workers = [Handle() for _ in range(workers)]
    left = [worker.TrialOrder(method, trial) for trial in range(4) for method in methods]
    some.give(left)
    given = [handle.order for handle in some._workers]
    assert "".join(order.method for order in given) == first
    while left:
        some._workers[0].order = None
        some.give(left)
        given.append(some._workers[0].order)
    assert len(set(given)) == 4 * len(methods)
    of_first = [order for order in given if order.method == methods[0]]
    assert of_first == sorted(of_first, key=lambda order: order.trial)


def test_methods_of_a_config_file_travel_with_their_code(tmp_path, monkeypatch):
    path = tmp_path / "mine_of_a_file.py"
    path.write_text(METHOD.format(body="return view.image.sum() + 1"))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, path.stem, module)
    monkeypatch.setattr(methods, "METHODS", dict(methods.METHODS))
    monkeypatch.setattr(tavaal_jax, "METHODS", methods.METHODS, raising=False)
    spec.loader.exec_module(module)
    mine = methods.METHODS["mine"]
    pickled = worker_pool.pickled_job(JOB._replace(methods={"mine": mine}))
    del sys.modules[path.stem]
    again = pickle.loads(pickled).methods["mine"]
    assert again.value is not mine.value
    assert again.value.__code__.co_code == mine.value.__code__.co_code


def test_what_cannot_be_sent_is_named():
    row = methods.METHODS["random"]._replace(value=threading.Lock())
    with pytest.raises(UserError, match="the study cannot be given to other processes"):
        worker_pool.pickled_job(JOB._replace(methods={"mine": row}))


# The worker


@pytest.fixture
def serve():
    """Starts a worker in a thread on a job, `-> our end of its pipe`."""
    pipes, threads = [], []

    def start(job):
        ours, theirs = Pipe()
        thread = threading.Thread(target=worker.Worker(theirs).serve, daemon=True)
        thread.start()
        ours.send(frozenset())
        ours.send_bytes(pickle.dumps(job))
        pipes.append(ours)
        threads.append(thread)
        return ours

    yield start
    for ours, thread in zip(pipes, threads, strict=True):
        with contextlib.suppress(BrokenPipeError):  # It may have ended already.
            ours.send(StopOrder(signal.SIGTERM))
        thread.join(60)
        assert not thread.is_alive()


def job_of(folder, dataset=None, **changes):
    config = moons.get_config()
    config.update(methods="random", trials=1, cycles=2, epochs=2, batch_size=16, **changes)
    rows = {"random": methods.METHODS["random"]}
    network = config.task.network
    sets = {} if dataset else {config.dataset: SETS[config.dataset]}
    return worker.Job(config, folder, dataset, rows, {network: NETWORKS[network]}, sets)


def until(pipe, kind):
    """All messages up to one of a kind."""
    found = []
    while not found or not isinstance(found[-1], kind):
        assert pipe.poll(120)
        found.append(pipe.recv())
    return found


@pytest.mark.parametrize("is_given", [False, True])
def test_a_worker_runs_what_it_is_given_and_reports_it(serve, tmp_path, is_given):
    dataset = features() if is_given else None
    pipe = serve(job_of(tmp_path, dataset, parallel="trials"))
    assert until(pipe, Ready) == [Ready()]
    pipe.send(worker.TrialOrder("random", 0))
    messages = until(pipe, Ended)
    assert messages[-1] == Ended()
    assert messages.count(HasResults()) == 2
    lines = [m.arguments[0] for m in messages if isinstance(m, worker.TrackerCall)]
    assert any(line and line.startswith("random trial 0 cycle 1: ") for line in lines)
    assert len(read_csv(tmp_path / "random" / "trial_0" / "results.csv")) == 2
    assert (tmp_path / "random" / "trial_0" / "model" / "model.json").exists()


def test_a_worker_reports_the_errors_of_its_trials(serve, tmp_path):
    pipe = serve(job_of(tmp_path))
    until(pipe, Ready)
    folder = tmp_path / "random" / "trial_0"
    folder.mkdir(parents=True)
    (folder / "checkpoints").write_text("in the way")
    pipe.send(worker.TrialOrder("random", 0))
    error = until(pipe, Ended)[-1]
    assert isinstance(error.error, UserError)
    assert "checkpoints" in str(error.error)


def test_a_worker_that_is_stopped_in_a_trial_saves_it(serve, tmp_path):
    pipe = serve(job_of(tmp_path))
    until(pipe, Ready)
    pipe.send(worker.TrialOrder("random", 0))
    pipe.send(StopOrder(signal.SIGTERM))
    assert until(pipe, Stopped)[-1] == Stopped()
    assert any((tmp_path / "random" / "trial_0" / "checkpoints").iterdir())


@pytest.mark.parametrize(("fault", "kind"), [(KeyError("ours"), "Bug"), (UserError("x"), "Failed")])
def test_a_worker_that_cannot_begin_says_why(serve, tmp_path, monkeypatch, fault, kind):
    def load(config):
        raise fault

    monkeypatch.setattr(worker.data, "load", load)
    pipe = serve(job_of(tmp_path))
    (message,) = until(pipe, (worker.Bug, worker.Failed))
    assert type(message).__name__ == kind


def test_a_worker_on_other_features_than_the_study_runs_nothing(serve, tmp_path):
    pipe = serve(job_of(tmp_path)._replace(made_by="digest of other weights"))
    (message,) = until(pipe, worker.Failed)
    assert "backbone.features, have changed since the study began" in str(message.error)


@pytest.mark.slow
def test_a_worker_process_whose_study_is_gone_ends():
    process, pipe = worker_pool._launch(Share(dict(os.environ), frozenset()))
    pipe.close()
    assert process.wait() == 128 + signal.SIGKILL


# Studies


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


@pytest.fixture(scope="module")
def whole(run_main, tmp_path_factory):
    """A study one trial after the other."""
    folder = tmp_path_factory.mktemp("whole")
    assert run_main("moons", folder, *SHORT).returncode == 0
    return folder


def assert_same(folder, whole):
    assert (folder / "results.csv").read_bytes() == (whole / "results.csv").read_bytes()
    for method in ("random", "margin"):
        for trial in range(2):
            place = Path(method, f"trial_{trial}")
            for name in ("picks.csv", "results.csv"):
                assert (folder / place / name).read_bytes() == (whole / place / name).read_bytes()
            both = [read_csv(f / place / "diagnostics.csv") for f in (folder, whole)]
            for row in both[0] + both[1]:
                for name in [name for name in row if name.startswith("seconds")]:
                    del row[name]
            assert both[0] == both[1]
            assert (folder / place / "model" / "model.json").exists()
            assert not (folder / place / "checkpoints").exists()


def start(command, folder, *flags):
    argv, environment = command("moons", folder, *SHORT, *APART, *flags)
    return subprocess.Popen(
        argv, env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def workers_of(run):
    """PIDs of its workers."""
    return list(
        map(
            int,
            Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text(encoding="utf-8").split(),
        )
    )


def wait_for(condition, run):
    until = time.monotonic() + 300
    while not condition():
        assert run.poll() is None, run.communicate()
        assert time.monotonic() < until
        time.sleep(0.02)


def is_gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").split(")")[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.mark.slow
def test_a_signal_stops_all_workers_and_the_same_command_writes_what_one_process_writes(
    command, run_main, whole, tmp_path
):
    run = start(command, tmp_path)
    wait_for(lambda: list(tmp_path.glob("*/trial_*/results.csv")), run)
    workers = workers_of(run)
    run.send_signal(signal.SIGTERM)
    _, errors = run.communicate(timeout=300)
    assert run.returncode == 128 + signal.SIGTERM
    assert errors.splitlines()[-1].startswith("stopped by SIGTERM; everything")
    assert len(workers) == 2
    assert all(map(is_gone, workers))
    done = run_main("moons", tmp_path, *SHORT, *APART)
    assert done.returncode == 0, done.stderr
    assert_same(tmp_path, whole)
    assert "margin trial 1 cycle 2: 40 labelled, accuracy" in done.stdout
    assert (tmp_path / "accuracy.png").exists()


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


@pytest.mark.parametrize("parallel", ["devices", "trials"])
def test_a_second_process_in_a_folder_is_refused(parallel, tmp_path):
    config = moons.get_config()
    config.update(parallel=parallel, batch_size=16)
    with files.claim(tmp_path), pytest.raises(UserError, match="another process is running in"):
        tavaal_jax.run_study(config, tmp_path)
    assert not (tmp_path / "config.json").exists()


def test_workers_and_hosts_do_not_go_together(monkeypatch, tmp_path):
    config = moons.get_config()
    config.parallel = "trials"
    monkeypatch.setattr(tavaal_jax.study.study.processes, "several", lambda: True)
    monkeypatch.setattr(tavaal_jax.study.study.processes, "check_alike", lambda *_: None)
    with pytest.raises(UserError, match="parallel is 'trials' with --distributed: leave"):
        tavaal_jax.run_study(config, tmp_path / "w")
    assert not (tmp_path / "w").exists()
