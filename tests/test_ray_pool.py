"""Trials on a Ray cluster: the files of `parallel=devices`, whatever is lost meanwhile.

What needs Ray is one slow test, of a study on nodes of this machine; the rest is tested without it.
"""

import asyncio
import contextlib
import errno
import importlib.metadata
import os
import pickle
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import METHOD, ROOT, features

import tavaal_jax
from configs import moons
from tavaal_jax.errors import Diverged, Interrupted, UserError
from tavaal_jax.report import files
from tavaal_jax.study.parallel import pools, ray_pool, ray_share, ray_trial, trial_files, worker
from tavaal_jax.study.parallel.mailbox import Mailbox
from tavaal_jax.study.parallel.ray_trial import Attempt, Files
from tavaal_jax.study.parallel.worker import Ended, Failed, Ready, TrackerCall
from tavaal_jax.study.trial import TrialHooks


def config_of(**changes):
    config = moons.get_config()
    config.update(methods="random", trials=1, cycles=2, epochs=2, batch_size=16, parallel="ray")
    config.update_from_flattened_dict(changes)
    return config


# What is refused


@pytest.mark.parametrize(
    ("version", "text"),
    [
        (None, "parallel is 'ray', and Ray is not installed: pip install 'tavaal_jax.cluster.'"),
        ("2.49.1", "parallel is 'ray', and Ray is 2.49.1, older than 2.50: pip install"),
    ],
)
def test_without_ray_or_with_an_old_one_nothing_begins(monkeypatch, tmp_path, version, text):
    usual = importlib.metadata.version

    def found(name):
        if name == "ray" and version is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return version if name == "ray" else usual(name)

    monkeypatch.setattr(importlib.metadata, "version", found)
    with pytest.raises(UserError, match=text) as error:
        tavaal_jax.run_study(config_of(), tmp_path / "study")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "study").exists()


def test_other_versions_on_a_node_are_named():
    here = ray_trial.installed()
    assert {"tavaal_jax", "jax", "jaxlib", "numpy"} <= set(here)
    ray_trial.check_versions(here, here)
    study = {**here, "jax": "0.0.1"}
    text = f"jax {here['jax']} is installed, and the study began with 0.0.1: install the same"
    with pytest.raises(UserError, match=text):
        ray_trial.check_versions(study, here)
    message = pickle.loads(ray_trial.run("study", study, np.zeros(0), ("random", 0, 1), {}, None))
    assert isinstance(message, Failed)
    assert f" jax {here['jax']} is installed" in str(message.error)


def test_other_code_of_the_same_version_is_named(tmp_path):
    here = ray_trial.installed()
    (tmp_path / "configs").mkdir()
    digests = []
    for name, text in (("a.py", "1"), ("configs/b.py", "1"), ("a.py", "2"), ("c.py", "1")):
        (tmp_path / name).write_text(text)
        digests.append(ray_trial._digest_of_code(tmp_path))
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3
    study = {**here, "tavaal_jax with code": digests[0]}
    text = (
        rf"tavaal_jax with code \w{{12}} is installed, and the study began with {digests[0]}: ins"
    )
    with pytest.raises(UserError, match=text):
        ray_trial.check_versions(study, here)


def test_where_no_cluster_answers_one_line_says_so(monkeypatch, tmp_path):
    given = config_of(**{"ray.address": "127.0.0.1:9"})
    with pytest.raises(
        UserError, match=r"^no Ray cluster at 127.0.0.1:9 \(.*\): start one with ray"
    ):
        ray_pool._address(given)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert ray_pool._address(config_of()) == "local"
    # What an earlier cluster leaves that did not end in order.
    note = tmp_path / "ray" / "ray_current_cluster"
    written(tmp_path, {note: "127.0.0.1:9"})
    with pytest.raises(UserError) as error:
        ray_pool._address(config_of())
    assert str(error.value).startswith(f"no Ray cluster at 127.0.0.1:9, which {note} names (")
    assert "or give local, for one of this machine alone" in str(error.value)
    assert ray_pool._address(config_of(**{"ray.address": "local"})) == "local"


def test_a_cluster_that_is_started_here_does_not_get_what_a_closed_terminal_sends(monkeypatch):
    blocked = lambda: signal.pthread_sigmask(signal.SIG_BLOCK, ())
    at_start = []
    ray = SimpleNamespace(
        is_initialized=lambda: False,
        init=lambda *_, **__: at_start.extend(blocked()),
        shutdown=lambda: None,
    )
    monkeypatch.setitem(sys.modules, "ray", ray)
    with ray_pool._connected(config_of(**{"ray.address": "local"})) as (_, may_grow):
        assert not may_grow
        assert signal.SIGHUP in at_start
        assert signal.SIGHUP not in blocked()


def test_a_module_that_a_node_lacks_is_named():
    pickled = np.frombuffer(b"cno_such_module\nvalue\n.", np.uint8)
    message = pickle.loads(ray_trial.run("study", {}, pickled, ("random", 0, 1), {}, None))
    assert isinstance(message, Failed)
    assert "No module named 'no_such_module', from which the study has a method" in str(
        message.error
    )


def test_a_node_without_the_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, ray_trial.__name__, None)
    monkeypatch.delattr(sys.modules["tavaal_jax.study.parallel"], "ray_trial")
    assert " there is no tavaal_jax of this version (" in ray_pool._task()()


@pytest.mark.parametrize(
    ("share", "nodes", "expected"),
    [
        ("", [{"CPU": 2.0}], {"CPU": 1.0}),
        ("", [{"CPU": 2.0}, {"CPU": 8.0, "GPU": 4.0}], {"CPU": 1.0}),  # JAX_PLATFORMS is cpu.
        ("GPU=0.5, CPU=2", [{"CPU": 2.0}], {"GPU": 0.5, "CPU": 2.0}),
    ],
)
def test_a_trial_has_its_share(share, nodes, expected):
    config = config_of(**{"ray.share": share})
    assert ray_share.share_of(config, nodes) == expected


def test_a_trials_environment_follows_from_its_share(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=4 --xla_dump_to=x")
    on_cpu = ray_share.environment_of({"CPU": 2.0}, [{"CPU": 8.0}, {"CPU": 2.0}])
    assert (on_cpu["NPROC"], on_cpu["TAVAAL_JAX_SHARED_BY"]) == ("2", "4")
    assert on_cpu["XLA_FLAGS"] == "--xla_dump_to=x"
    assert on_cpu["JAX_PLATFORMS"] == "cpu"
    on_gpu = ray_share.environment_of({"GPU": 0.5}, [{"CPU": 8.0, "GPU": 1.0}])
    assert on_gpu["XLA_PYTHON_CLIENT_MEM_FRACTION"] == "0.45"
    assert "NPROC" not in on_gpu


@pytest.mark.parametrize("share", ["GPU", "GPU=many", "CPU=0", "=1"])
def test_a_share_that_is_none_is_refused(share, tmp_path, monkeypatch):
    monkeypatch.setattr(ray_pool, "check", lambda: None)
    with pytest.raises(UserError, match=r"ray.share is .*: give nothing, or amounts such as"):
        tavaal_jax.run_study(config_of(**{"ray.share": share}), tmp_path / "study")


def test_a_batch_is_divided_among_the_devices_of_a_share():
    assert pools.devices_of_trial(config_of()) == 1
    assert pools.devices_of_trial(config_of(**{"ray.share": "TPU=4"})) == 4
    assert pools.devices_of_trial(config_of(**{"ray.share": "GPU=0.5"})) == 1
    assert pools.devices_of_trial(config_of(parallel="trials")) == 1


def test_other_images_under_the_same_name_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(worker.data, "load", lambda config: features())
    job = worker.Job(config_of(), tmp_path, None, {}, {}, {}, fingerprint="of others")
    with pytest.raises(UserError, match="has other images or labels here: put the same"):
        worker.open_runner(job, None)


# What travels


def written(folder, content):
    for name, text in content.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def test_only_what_has_changed_is_sent_and_arrives_whole(tmp_path):
    here, there, marks = tmp_path / "here", tmp_path / "there", {}
    assert trial_files.changed(here, marks) == {}
    written(here, {
        "picks.csv": "a", "diagnostics/cycle_0.npz": "b", ".results.csv.tmp": "cut sho",
        "checkpoints/3/arrays/d": "3", "checkpoints/4/arrays/d": "4", "checkpoints/5/x": "5",
        "checkpoints/6.orbax-checkpoint-tmp/x": "cut sho", "unreadable_checkpoints/2_1/x": "2",
    })  # fmt: skip
    first = trial_files.changed(here, marks, checkpoints=2)
    assert sorted(first) == [
        "checkpoints/4/arrays/d", "checkpoints/5/x", "diagnostics/cycle_0.npz", "picks.csv",
    ]  # fmt: skip
    trial_files.write(there, first)
    written(here, {"picks.csv": "more", "checkpoints/7/arrays/d": "7"})
    assert sorted(trial_files.changed(here, dict(marks), checkpoints=0)) == ["picks.csv"]
    trial_files.write(there, trial_files.changed(here, marks))
    assert trial_files.changed(here, marks) == {}
    found = {p.relative_to(there).as_posix(): p.read_text() for p in there.glob("**/*.*")}
    assert found == {"picks.csv": "more", "diagnostics/cycle_0.npz": "b"}
    kept = {p.name: p.is_dir() for p in (there / "checkpoints").iterdir()}
    assert kept == {"5": True, "7": True}
    trial_files.write(there, {"checkpoints/7/arrays/e": b"again"})
    assert [p.name for p in (there / "checkpoints/7/arrays").iterdir()] == ["e"]


def test_folders_of_killed_processes_are_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for number in (gone.pid, os.getpid()):
        (tmp_path / f"tavaal_jax_ray_{number}_x").mkdir()
    (tmp_path / "tavaal_jax_ray_mine_x").mkdir()
    ray_trial._remove_left()
    left = {f"tavaal_jax_ray_{os.getpid()}_x", "tavaal_jax_ray_mine_x"}
    assert {path.name for path in tmp_path.iterdir()} == left


def test_who_delivers_waits_until_the_message_was_handled():
    async def talk():
        box = Mailbox()
        await box.post(b"first")
        delivered = asyncio.create_task(box.deliver(b"second"))
        await asyncio.sleep(0)
        assert await box.take(1) == [b"first", b"second"]
        assert not delivered.done()
        assert await box.take(0.01) == []
        await asyncio.wait_for(delivered, 1)
        asked = asyncio.create_task(box.stop_signal())
        await asyncio.sleep(0)
        assert not asked.done()
        await box.stop(15)
        assert await asyncio.wait_for(asked, 1) == 15

    asyncio.run(talk())


# A node, without Ray


class FakeMailbox:
    """A mailbox whose calls happen at once, in this process."""

    def __init__(self):
        self.messages, self.number = [], None

    def __getattr__(self, name):
        return Call(self, name)


class Call:
    def __init__(self, box, name):
        self._box, self._name = box, name

    def remote(self, message=None):
        if message is not None:
            self._box.messages.append(pickle.loads(message))
        return self

    def future(self):
        return self

    def done(self):
        return self._name != "stop_signal" or self._box.number is not None

    def result(self):
        return self._box.number


@pytest.fixture
def node(tmp_path, monkeypatch):
    """`(mailbox, attempt, saved) -> last message` of a node's process."""
    monkeypatch.setattr(ray_trial, "_NODES", {})
    job = pools.job(config_of(), tmp_path, ["random"], features(), True, None)
    content = np.frombuffer(pickle.dumps(job), np.uint8)

    def run(mailbox, attempt=("random", 0, 1), saved=None):
        study = str(id(mailbox))
        text = ray_trial.run(study, {}, content, attempt, saved or {}, mailbox)
        return pickle.loads(text)

    return run


def arrived(mailbox, number):
    """Files that an attempt has sent, the last ones of each name, and its lines."""
    content, lines = {}, []
    for attempt, message in mailbox.messages:
        if attempt == ("random", 0, number):
            content |= message.content if isinstance(message, Files) else {}
            lines += [message.arguments[0]] if isinstance(message, TrackerCall) else []
    return content, [line.partition(":")[0] for line in lines if line]


def test_a_node_sends_what_it_writes_and_a_stopped_trial_goes_on_from_that(
    node, tmp_path, monkeypatch
):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    mailbox = FakeMailbox()
    assert node(mailbox) == Ended()
    assert mailbox.messages.count((Attempt("random", 0, 1), Ready())) == 1
    content, lines = arrived(mailbox, 1)
    assert lines == ["random trial 0 cycle 0", "random trial 0 cycle 1"]
    assert {"results.csv", "picks.csv", "metrics.jsonl", "model/model.json"} <= set(content)
    mailbox.number = signal.SIGTERM
    assert node(mailbox, ("random", 0, 2)) == worker.Stopped()
    saved, _ = arrived(mailbox, 2)
    assert any(name.startswith("checkpoints/") for name in saved)
    mailbox.number = None
    assert node(mailbox, ("random", 0, 3), saved) == Ended()
    again, lines = arrived(mailbox, 3)
    assert lines[0].startswith("random trial 0 continues in cycle 0")
    for name in ("picks.csv", "results.csv"):
        assert again[name] == content[name]
    assert not any(name.startswith("checkpoints/") and name in saved for name in again)
    assert list(tmp_path.iterdir()) == []  # Nothing stays on the node.


def test_an_error_of_a_trial_names_the_studys_folder(node, tmp_path, monkeypatch):
    def run(self, method, trial):
        raise Diverged(f"nan in {self._folder}/random", "lower it")

    monkeypatch.setattr("tavaal_jax.study.parallel.runner.Runner.run", run)
    message = node(FakeMailbox())
    assert isinstance(message.error, Diverged)
    assert str(message.error) == f"nan in {tmp_path}/random: lower it"


def test_a_full_disk_of_a_node_is_named_and_concerns_all_trials(node, tmp_path, monkeypatch):
    def run(self, method, trial):
        with files.named(self._folder / method / "picks.csv"):
            raise OSError(errno.ENOSPC, "it is full")

    monkeypatch.setattr("tavaal_jax.study.parallel.runner.Runner.run", run)
    message = node(FakeMailbox())
    assert isinstance(message, Failed)
    assert re.fullmatch(
        rf"on {socket.gethostname()}: cannot write {tempfile.gettempdir()}/tavaal_jax_ray_.*/random"
        r"/picks.csv \(it is full\): free some space; the same command continues",
        str(message.error),
    )


# The study's side, with a cluster that is none


PLACES = [("random", 0), ("coreset", 0), ("random", 1)]
STOPPED = worker.Stopped()


class Lost(Exception):
    """What Ray raises where a task's process or machine is gone."""


class FakeRay:
    """Ray of this process: `behave(attempt) -> messages`, the last of which the task returns."""

    exceptions = SimpleNamespace(RayError=Lost, RayTaskError=type("RayTaskError", (Lost,), {}))
    util = SimpleNamespace(
        scheduling_strategies=SimpleNamespace(NodeAffinitySchedulingStrategy=lambda *_, **__: None)
    )

    def __init__(self, behave, at_stop):
        """`at_stop` is what a task that waits does when it is ordered to stop."""
        self._behave, self._at_stop, self._is_killed = behave, at_stop, False
        self.tasks, self.posted, self.cancelled, self.orders = {}, [], [], []

    def get_runtime_context(self):
        return SimpleNamespace(get_node_id=lambda: "here")

    def nodes(self):
        return [{"Alive": True, "Resources": {"CPU": 2.0}}]

    def remote(self, **_):
        box = {"take": lambda seconds: self._take(), "stop": self._stop}
        remotes = {name: SimpleNamespace(remote=call) for name, call in box.items()}
        task = SimpleNamespace(remote=self._start)
        return lambda what: SimpleNamespace(
            remote=lambda: SimpleNamespace(**remotes), options=lambda **_: task
        )

    def put(self, value):
        return value

    def _start(self, study, versions, job, attempt, saved, mailbox):
        *messages, last = self._behave(Attempt(*attempt), saved)
        self.posted += [pickle.dumps((Attempt(*attempt), message)) for message in messages]
        self.tasks[len(self.tasks)] = last
        return len(self.tasks) - 1

    def _take(self):
        taken, self.posted = self.posted, []
        return taken

    def _stop(self, number):
        if self._is_killed:
            raise Lost("the mailbox")
        self.orders.append(number)
        waiting = {task for task, last in self.tasks.items() if last is None}
        self.tasks.update(dict.fromkeys(waiting, self._at_stop))

    def wait(self, tasks, **_):
        return [task for task in tasks if self.tasks[task] is not None], []

    def get(self, value):
        if not isinstance(value, int):
            return value
        last = self.tasks[value]
        if isinstance(last, Exception):
            raise last
        return last if isinstance(last, str) else pickle.dumps(last)

    def cancel(self, task, force):
        self.cancelled.append(task)
        self.tasks[task] = Lost("cancelled")

    def kill(self, mailbox):
        self._is_killed = True


@pytest.fixture
def pool(monkeypatch, tmp_path):
    """`(behave, todo, stop, **changes) -> outcomes, ray, calls of track` of a study."""

    def run(behave, todo, stop=lambda: None, at_stop=STOPPED, may_grow=True, **changes):
        ray, calls = FakeRay(behave, at_stop), []
        connected = contextlib.nullcontext((ray, may_grow))
        monkeypatch.setattr(ray_pool, "_connected", lambda config: connected)
        monkeypatch.setattr(ray_pool.worker_pool, "pickled_job", lambda job: b"job")
        job = worker.Job(config_of(**changes), tmp_path, None, {}, {}, {})
        track = lambda *text, **place: calls.append((text, place))
        hooks = TrialHooks(track, lambda: calls.append("results"), stop)
        return ray_pool.run(job, todo, hooks), ray, calls

    return run


def finish(attempt, saved):
    line = TrackerCall((f"{attempt.method} {attempt.trial}",), {"units": 3})
    return [Ready(), line, Files({"results.csv": b"a"}), Ended()]


def test_every_trial_is_run_and_its_files_are_written(pool, tmp_path):
    outcomes, _, calls = pool(finish, PLACES)
    assert list(outcomes) == [None] * 3
    assert calls.count("results") == 3
    lines = [call[0] for call in calls if call != "results"]
    assert lines == [(f"{method} {trial}",) for method, trial in PLACES]
    assert (tmp_path / "coreset" / "trial_0" / "results.csv").read_bytes() == b"a"


def test_a_lost_trial_goes_on_from_what_has_come_and_its_work_is_not_counted_twice(pool):
    seen = {}

    def behave(attempt, saved):
        seen[attempt] = saved
        messages = finish(attempt, saved)
        is_lost = attempt == ("coreset", 0, 1)
        return [*messages[:-1], Lost("its node")] if is_lost else messages

    outcomes, _, calls = pool(behave, PLACES)
    assert list(outcomes) == [None] * 3
    assert seen["coreset", 0, 1] == {}
    assert seen["coreset", 0, 2] == {"results.csv": b"a"}
    ((text, place),) = [call for call in calls if "lost" in str(call)]
    assert text == ("coreset trial 0 was lost with its process or machine (Lost): it runs again",)
    assert place == {"method": "coreset", "trial": 0, "units": -3, "skipped": 0}


def test_what_comes_of_an_attempt_thought_lost_is_ignored(pool, tmp_path):
    def behave(attempt, saved):
        if attempt.number == 1:
            return [Ready(), Lost("its node")]
        late = pickle.dumps((attempt._replace(number=1), Files({"results.csv": b"late"})))
        ray.posted.append(late)
        return finish(attempt, saved)

    outcomes, ray, _ = pool(behave, PLACES[:1])
    assert list(outcomes) == [None]
    assert (tmp_path / "random" / "trial_0" / "results.csv").read_bytes() == b"a"


def test_a_trial_that_is_always_lost_fails_and_the_others_finish(pool, tmp_path):
    behave = lambda attempt, saved: (
        [Lost("oom")] if attempt.method == "coreset" else finish(attempt, saved)
    )
    faults = [outcome for outcome in pool(behave, PLACES)[0] if outcome is not None]
    assert len(faults) == 1
    assert str(faults[0]).startswith("coreset trial 0 was lost 5 times with its process or mach")
    # All its results may have come without its model: it is not finished.
    assert (tmp_path / "coreset" / "trial_0" / "checkpoints").exists()


@pytest.mark.parametrize(
    ("last", "kind", "text"),
    [
        ("on host1 there is no tavaal_jax of", UserError, "on host1 there is no tavaal_jax"),
        (Failed(UserError("on host1: no files")), UserError, "on host1: no files"),
        (worker.Bug("Traceback: ours"), RuntimeError, "in a worker process:\nTraceback: ours"),
        (FakeRay.exceptions.RayTaskError("x"), RuntimeError, "in a task of Ray:\nx"),
    ],
)
def test_what_no_trial_can_do_ends_the_study_and_the_others_save(pool, last, kind, text):
    behave = lambda attempt, saved: [last] if attempt.trial else [Ready(), None]
    outcomes, ray, _ = pool(behave, PLACES)
    with pytest.raises(kind, match=text):
        list(outcomes)
    assert ray.orders == [signal.SIGTERM]


def test_a_signal_stops_what_has_begun_and_cancels_the_rest(pool):
    begun = []

    def behave(attempt, saved):
        begun.append(attempt)
        return [Ready(), None] if attempt.trial == 0 else [None]

    asked = iter([None, signal.SIGINT])
    outcomes, ray, _ = pool(behave, PLACES, lambda: next(asked))
    with pytest.raises(Interrupted) as error:
        list(outcomes)
    assert error.value.number == signal.SIGINT
    assert ray.cancelled == [2]
    assert begun == [(*place, 1) for place in PLACES]


@pytest.mark.parametrize(
    ("at_stop", "text"),
    [
        (Lost("its node"), "random trial 0 was lost with its process or machine .Lost. before it"),
        (None, "random trial 0 did not save within 0 s"),
    ],
)
def test_a_trial_that_is_lost_or_stuck_instead_of_saving_is_named_after_one_wait(
    pool, monkeypatch, at_stop, text
):
    monkeypatch.setattr(ray_pool, "_PATIENCE", 0.01)
    asked = iter([None, signal.SIGINT])
    behave = lambda *_: [Ready(), None]
    outcomes, ray, _ = pool(behave, PLACES[:1], lambda: next(asked), at_stop)
    with pytest.raises(UserError, match=text):
        list(outcomes)
    assert ray.orders == [signal.SIGINT]


def test_where_the_study_fails_meanwhile_the_others_save(pool):
    behave = lambda attempt, saved: [Ready(), None] if attempt.trial else finish(attempt, saved)
    outcomes, ray, _ = pool(behave, PLACES)
    next(outcomes)
    outcomes.close()  # By an error of who takes them.
    assert ray.orders == [signal.SIGTERM]


def test_no_more_trials_at_the_same_time_than_workers(pool):
    asked = iter([None, signal.SIGINT])
    outcomes, ray, _ = pool(lambda *_: [Ready(), None], PLACES, lambda: next(asked), workers=2)
    with pytest.raises(Interrupted):
        list(outcomes)
    assert len(ray.tasks) == 2


def test_a_share_that_no_machine_has_is_waited_for(pool):
    outcomes, _, calls = pool(finish, PLACES, **{"ray.share": "CPU=8,fast=1"})
    list(outcomes)
    text = "waits for a machine with CPU 8, fast 1: none in the cluster has that now"
    assert ((text,), {}) in calls


def test_a_share_that_the_only_machine_has_not_is_refused(pool):
    outcomes, ray, _ = pool(finish, PLACES, may_grow=False, **{"ray.share": "CPU=8"})
    with pytest.raises(UserError, match=r"ray.share is CPU 8, more than this machine has, and the"):
        list(outcomes)
    assert ray.tasks == {}


# A study on nodes of this machine


CLUSTER = """
import sys
from ray.cluster_utils import Cluster

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
nodes = [cluster.add_node(num_cpus=1, node_ip_address=f"127.0.0.{n}") for n in (2, 3)]
print("at", cluster.address, flush=True)
for line in sys.stdin:
    cluster.remove_node(nodes.pop(0), allow_graceful=False)
cluster.shutdown()
"""
"""Two nodes with a core each, and a head without; for each line one of them is lost.

With addresses of their own: a command joins the head, with older Ray the last one.
"""
SHORT = ("--config.epochs=60", "--config.methods=mine,coreset")
"""Two trials: one of a method that only the config file has."""


@contextlib.contextmanager
def cluster(folder):
    """`-> address, lose a node` of a cluster, in a process without JAX; a failing test shows it."""
    # Its processes import what this one does.
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "RAY_USAGE_STATS_ENABLED": "0"}
    with (
        (folder / "cluster").open("w+") as errors,
        subprocess.Popen(
            [sys.executable, "-c", CLUSTER], env=environment, text=True, stderr=errors,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        ) as process,
    ):  # fmt: skip
        try:
            words = next(line.split() for line in process.stdout if line.startswith("at "))
            yield words[1], lambda: print("lose", file=process.stdin, flush=True)
        except BaseException:
            errors.seek(0)
            print("the cluster:", errors.read())
            raise
        finally:
            process.communicate(timeout=120)


def start(command, path, folder, address):
    """Starts the study, its lines in a file beside `folder`, as a script would that goes on."""
    # Many calls: it is still at its first trials when something happens.
    given = (
        "--config.parallel=ray",
        f"--config.ray.address={address}",
        "--config.steps_per_call=1",
    )
    argv, environment = command(path, folder, *SHORT, *given)
    with folder.with_suffix(".txt").open("w") as lines:
        return subprocess.Popen(
            ["sh", "-c", 'trap : INT; "$@"', "sh", *argv], env=environment, cwd=ROOT,
            stdout=lines, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip


def wait_for(run, folder, text):
    """Waits until a line has `text`."""
    until = time.monotonic() + 300
    while text not in folder.with_suffix(".txt").read_text():
        assert run.poll() is None, folder.with_suffix(".txt").read_text()
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.mark.slow
def test_stopped_moved_lost_and_killed_a_study_is_what_one_process_writes(
    command, run_main, tmp_path
):
    pytest.importorskip("ray", minversion="2.50")
    path, folder, whole = tmp_path / "mine.py", tmp_path / "study", tmp_path / "whole"
    path.write_text(METHOD.format(body="return view.image.sum() + 1"))
    assert run_main(path, whole, *SHORT).returncode == 0
    # Stopped from its terminal, with a cluster that is started here.
    run = start(command, path, folder, "local")
    wait_for(run, folder, " cycle 0: ")
    os.killpg(run.pid, signal.SIGINT)
    assert run.wait(300) == 128 + signal.SIGINT
    last = folder.with_suffix(".txt").read_text().splitlines()[-1]
    assert last == "stopped by SIGINT; everything is saved, the same command continues"
    assert len(list(folder.glob("*/trial_0/checkpoints/*"))) >= 2
    with cluster(tmp_path) as (address, lose_a_node):
        # Continued on other nodes, one of which is lost; then it is killed itself.
        run = start(command, path, folder, address)
        wait_for(run, folder, " continues in cycle ")
        lose_a_node()
        wait_for(run, folder, " was lost with its process or machine (")
        os.killpg(run.pid, signal.SIGKILL)
        run.wait(300)
        given = ("--config.parallel=ray", f"--config.ray.address={address}")
        done = run_main(path, folder, *SHORT, *given)
    assert (done.returncode, done.stderr) == (0, "")
    for name in ("results.csv", *(f"{m}/trial_0/{n}.csv" for m in ("mine", "coreset")
                                  for n in ("picks", "results"))):  # fmt: skip
        assert (folder / name).read_bytes() == (whole / name).read_bytes()
    assert len(list(folder.glob("*/trial_0/model/model.json"))) == 2
    assert not list(folder.glob("*/trial_0/checkpoints"))
    assert (folder / "accuracy.png").exists()
