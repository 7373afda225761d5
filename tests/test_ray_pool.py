"""Trials on a Ray cluster: the files of `parallel=devices`, whatever is lost meanwhile.

What needs Ray runs on two nodes of this machine, and is slow; the rest is tested without it.
"""

import asyncio
import importlib.metadata
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import METHOD, ROOT, features

import tavaal_jax
from configs import moons
from tavaal_jax.errors import Diverged, UserError
from tavaal_jax.study.parallel import pools, ray_pool, ray_share, ray_trial, trial_files, worker
from tavaal_jax.study.parallel.mailbox import Mailbox
from tavaal_jax.study.parallel.ray_trial import Attempt, Files
from tavaal_jax.study.parallel.worker import Ended, Failed, Ready, TrackerCall

METHODS = ("random", "coreset")
SHORT = ("--config.cycles=2", "--config.epochs=5", "--config.trials=2",
         f"--config.methods={','.join(METHODS)}")  # fmt: skip


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


def test_other_images_under_the_same_name_are_refused(tmp_path):
    config = config_of()
    dataset = tavaal_jax.data.load(config)
    job = pools.job(config, tmp_path, ["random"], dataset, False, None)
    with pytest.raises(UserError, match="moons has other images or labels here"):
        worker.open_runner(job._replace(fingerprint="of others"), None)


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

    def __init__(self, stop=None):
        self.messages, self._number = [], stop

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
        return self._name != "stop_signal" or self._box._number is not None

    def result(self):
        return self._box._number


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


def arrived(mailbox):
    """Files that a node has sent, the last ones of each name."""
    content = {}
    for _, message in mailbox.messages:
        content |= message.content if isinstance(message, Files) else {}
    return content


def test_a_node_sends_what_a_trial_writes_and_keeps_nothing(node, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    mailbox = FakeMailbox()
    assert node(mailbox) == Ended()
    assert {attempt for attempt, _ in mailbox.messages} == {Attempt("random", 0, 1)}
    assert mailbox.messages.count((Attempt("random", 0, 1), Ready())) == 1
    lines = [m.arguments[0] for _, m in mailbox.messages if isinstance(m, TrackerCall)]
    assert any(line and line.startswith("random trial 0 cycle 1: ") for line in lines)
    names = set(arrived(mailbox))
    assert {"results.csv", "picks.csv", "metrics.jsonl", "model/model.json"} <= names
    assert list(tmp_path.iterdir()) == []


def test_a_node_that_is_stopped_sends_a_checkpoint_from_which_another_goes_on(node):
    stopped = FakeMailbox(stop=signal.SIGTERM)
    assert node(stopped) == worker.Stopped()
    saved = arrived(stopped)
    assert any(name.startswith("checkpoints/") for name in saved)
    other = FakeMailbox()
    assert node(other, ("random", 0, 2), saved) == Ended()
    lines = [m.arguments[0] for _, m in other.messages if isinstance(m, TrackerCall)]
    assert any(line and line.startswith("random trial 0 continues in cycle 0") for line in lines)
    plain = FakeMailbox()
    node(plain)
    for name in ("picks.csv", "results.csv"):
        assert arrived(other)[name] == arrived(plain)[name]


def test_an_error_of_a_trial_names_the_studys_folder(node, tmp_path, monkeypatch):
    def run(self, method, trial):
        raise Diverged(f"nan in {self._folder}/random", "lower it")

    monkeypatch.setattr("tavaal_jax.study.parallel.runner.Runner.run", run)
    message = node(FakeMailbox())
    assert isinstance(message.error, Diverged)
    assert str(message.error) == f"nan in {tmp_path}/random: lower it"


# Studies on two nodes


CLUSTER = """
import sys
from ray.cluster_utils import Cluster

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
print("at", cluster.address, flush=True)
for line in sys.stdin:
    cluster.remove_node(nodes.pop(0), allow_graceful=False)
    nodes.append(cluster.add_node(num_cpus=1))
cluster.shutdown()
"""
"""Two nodes with a core each, and a head without; for each line one of them is lost, and another
one comes."""


class Cluster:
    """A cluster of this machine, in a process that has no JAX."""

    def __init__(self):
        # Its processes import what this one does.
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        self._process = subprocess.Popen(
            [sys.executable, "-c", CLUSTER], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True,
            env={**os.environ, "PYTHONPATH": path, "RAY_USAGE_STATS_ENABLED": "0"},
        )  # fmt: skip
        words = next(line.split() for line in self._process.stdout if line.startswith("at "))
        self.flags = ("--config.parallel=ray", f"--config.ray.address={words[1]}")

    def lose_a_node(self):
        self._process.stdin.write("lose\n")
        self._process.stdin.flush()

    def close(self):
        self._process.communicate(timeout=120)


@pytest.fixture(scope="module")
def cluster():
    pytest.importorskip("ray", minversion="2.50")
    made = Cluster()
    yield made
    made.close()


@pytest.fixture(scope="module")
def whole(run_main, tmp_path_factory):
    """The study in one process."""
    folder = tmp_path_factory.mktemp("whole")
    assert run_main("moons", folder, *SHORT).returncode == 0
    return folder


def assert_same(folder, whole):
    places = [Path(method, f"trial_{trial}") for method in METHODS for trial in range(2)]
    names = [place / name for place in places for name in ("picks.csv", "results.csv")]
    for name in ("results.csv", *names):
        assert (folder / name).read_bytes() == (whole / name).read_bytes()
    for place in places:
        assert (folder / place / "model" / "model.json").exists()
        assert not (folder / place / "checkpoints").exists()


def start(command, folder, *given):
    argv, environment = command("moons", folder, *SHORT, *given)
    return subprocess.Popen(
        argv, env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_for_results(folder, run):
    until = time.monotonic() + 300
    while not list(folder.glob("*/trial_*/results.csv")):
        assert run.poll() is None, run.communicate()
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.mark.slow
def test_two_nodes_write_what_one_process_writes(cluster, run_main, whole, tmp_path):
    done = run_main("moons", tmp_path, *SHORT, *cluster.flags)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert_same(tmp_path, whole)
    lines = [line for line in done.stdout.splitlines() if " cycle 1: " in line]
    assert len(lines) == 4
    assert (tmp_path / "accuracy.png").exists()
    again = run_main("moons", tmp_path, *SHORT, *cluster.flags)
    assert "are finished; nothing to do" in again.stdout


@pytest.mark.slow
def test_a_lost_nodes_trials_run_again(cluster, command, whole, tmp_path):
    run = start(command, tmp_path, *cluster.flags, "--config.seconds_per_call=0.01")
    wait_for_results(tmp_path, run)
    cluster.lose_a_node()
    out, errors = run.communicate(timeout=300)
    assert run.returncode == 0, errors
    assert " was lost with its process or machine (" in out
    assert_same(tmp_path, whole)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_command_is_stopped_or_killed_and_the_same_one_continues(
    cluster, command, run_main, whole, tmp_path, number
):
    run = start(command, tmp_path, *cluster.flags)
    wait_for_results(tmp_path, run)
    run.send_signal(number)
    _, errors = run.communicate(timeout=300)
    if number == signal.SIGKILL:
        assert run.returncode == -number
    else:
        assert run.returncode == 128 + number
        assert errors.splitlines()[-1].startswith(f"stopped by {signal.Signals(number).name}; ever")
        assert list(tmp_path.glob("*/trial_*/checkpoints/*"))
    done = run_main("moons", tmp_path, *SHORT, *cluster.flags)
    assert done.returncode == 0, done.stderr
    assert_same(tmp_path, whole)


@pytest.mark.slow
def test_a_method_of_a_config_file_and_its_faults_come_back(run_main, tmp_path):
    pytest.importorskip("ray", minversion="2.50")
    path = tmp_path / "mine.py"
    # On a cluster that is started here, with two cores of its own.
    path.write_text(METHOD.format(body="return view.image.sum() + 1"))
    done = run_main(path, tmp_path / "study", "--config.parallel=ray", "--config.ray.address=local")
    assert done.returncode == 0, done.stderr
    plain = run_main(path, tmp_path / "plain")
    assert plain.returncode == 0, plain.stderr
    for name in ("picks.csv", "results.csv"):
        place = Path("mine", "trial_0", name)
        assert (tmp_path / "study" / place).read_bytes() == (
            tmp_path / "plain" / place
        ).read_bytes()


@pytest.mark.slow
def test_where_no_cluster_answers_one_line_says_so(run_main, tmp_path):
    pytest.importorskip("ray", minversion="2.50")
    given = ("--config.parallel=ray", "--config.ray.address=127.0.0.1:9")
    done = run_main("moons", tmp_path, *SHORT, *given)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: no Ray cluster at 127.0.0.1:9 (")
