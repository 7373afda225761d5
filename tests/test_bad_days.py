"""Faults of disk, clock, terminal and files, injected for real: each is named, nothing is lost.

Killed processes, lost hosts and workers, damaged caches and configs have tests elsewhere;
`configs/README.md` lists all faults.
"""

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import time

import jax
import numpy as np
import pytest
from conftest import ROOT
from trials import compiled_once

import tavaal_jax
from configs import moons
from tavaal_jax import main

pytestmark = pytest.mark.slow

# Networks that are quickly traced: test_resume.py kills studies with an adversary.
FLAGS = (
    "--config.methods=random,margin",
    "--config.trials=1",
    "--config.cycles=3",
    "--config.epochs=40",
    "--config.batch_size=16",
    "--config.seconds_per_call=0.001",
    "--config.checkpoint_every_steps=5",
)


@pytest.fixture(autouse=True, scope="module")
def _compiled_once():
    with compiled_once():
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What a study writes on a good day."""
    return go_on(tmp_path_factory.mktemp("whole"))


def go_on(folder):
    """The same command in this process, which has as many devices, to its end: what is there."""
    assert main.main(["main", "--config=moons", f"--workdir={folder}", *FLAGS]) == 0
    return content(folder)


def content(folder):
    names = ["results.csv"]
    names += [f"{m}/trial_0/{n}.csv" for m in ("random", "margin") for n in ("results", "picks")]
    return {name: (folder / name).read_bytes() for name in names}


def mount(*arguments):
    return subprocess.run(["mount", *arguments], capture_output=True, check=False).returncode == 0


@pytest.fixture
def disk(tmp_path):
    """A small disk of its own; skipped where nobody may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if not mount("-t", "tmpfs", "-o", "size=256m", "tmpfs", str(folder)):
        pytest.skip("only root can mount a disk")
    yield folder
    subprocess.run(["umount", "--lazy", "--recursive", folder], check=True)


@pytest.fixture
def start(command):
    """Starts a study: `(workdir) -> Popen`, which is ended in any case."""
    begun = []

    def begin(folder, under=(), **options):
        argv, environment = command("moons", folder, *FLAGS, devices=jax.device_count())
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        begun.append(
            subprocess.Popen([*under, *argv], env=environment, cwd=ROOT, **pipes | options)
        )
        return begun[-1]

    yield begin
    for process in begun:
        process.kill()
        process.wait()


def wait_for(process, path):
    """Until `path` exists and has some lines."""
    while not path.exists() or path.stat().st_size < 2000:
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)


def last(text):
    return text.strip().splitlines()[-1]


def ends(process, code):
    """The last line it has said on stderr."""
    out, err = process.communicate(timeout=300)
    assert process.returncode == code, (out, err)
    return last(err)


def test_a_full_disk(disk, start, whole):
    folder = disk
    process = start(folder)
    wait_for(process, folder / "random" / "trial_0" / "metrics.jsonl")
    with contextlib.suppress(OSError), (folder / "somebody_elses").open("wb", 0) as file:
        while True:
            file.write(bytes(2**12))
    assert "(No space left on device): free some space; the same command" in ends(process, 2)
    (folder / "somebody_elses").unlink()
    assert go_on(folder) == whole


def test_a_workdir_that_becomes_read_only(disk, run_main, start, whole):
    folder = disk
    process = start(folder)
    wait_for(process, folder / "random" / "trial_0" / "metrics.jsonl")
    # Over itself: what is open stays so, whatever is opened from now on is read-only.
    while not mount("-o", "bind,ro", folder, folder):  # A file was just being written.
        subprocess.run(["umount", folder], capture_output=True, check=False)
    line = ends(process, 2)
    assert "(Read-only file system): " in line
    assert "the same command continues" in line
    assert "cannot write to workdir" in last(run_main("moons", folder, *FLAGS).stderr)
    subprocess.run(["umount", folder], check=True)
    assert go_on(folder) == whole


def test_a_workdir_that_vanishes(tmp_path, start, whole):
    folder = tmp_path / "workdir"
    process = start(folder)
    wait_for(process, folder / "random" / "trial_0" / "metrics.jsonl")
    folder.rename(tmp_path / "elsewhere")
    line = ends(process, 2)
    assert f"{folder}" in line
    assert "No such file or directory)" in line
    shutil.rmtree(folder, ignore_errors=True)
    (tmp_path / "elsewhere").rename(folder)
    assert go_on(folder) == whole


def test_checkpoints_that_were_cut(tmp_path, start, whole):
    process = start(tmp_path)
    wait_for(process, tmp_path / "random" / "trial_0" / "metrics.jsonl")
    process.kill()
    process.communicate()
    folder = tmp_path / "random" / "trial_0" / "checkpoints"
    newest = max((p for p in folder.iterdir() if p.name.isdecimal()), key=lambda p: int(p.name))
    for path in (p for p in newest.rglob("*") if p.is_file()):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.warns(UserWarning, match=f"skipping unreadable checkpoint {newest}"):
        assert go_on(tmp_path) == whole


@pytest.mark.parametrize("share", [0, 0.5])
def test_records_that_were_cut(share, tmp_path, start, whole):
    process = start(tmp_path)
    wait_for(process, tmp_path / "margin" / "trial_0" / "metrics.jsonl")
    process.kill()
    process.communicate()
    cut = [p for p in tmp_path.glob("margin/trial_0/*") if p.suffix in (".csv", ".jsonl")]
    assert len(cut) >= 3
    for path in cut:
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    assert go_on(tmp_path) == whole


def test_two_runs_on_one_folder(tmp_path, run_main, start, whole):
    process = start(tmp_path)
    wait_for(process, tmp_path / "random" / "trial_0" / "metrics.jsonl")
    process.send_signal(signal.SIGSTOP)  # It must not have ended when the second one looks.
    second = run_main("moons", tmp_path, *FLAGS)
    process.send_signal(signal.SIGCONT)
    assert second.returncode == 2
    said = last(second.stderr)
    assert f"another process is running in {tmp_path} (process {process.pid} on" in said
    assert process.communicate()[1] == ""
    assert process.returncode == 0
    assert content(tmp_path) == whole


def test_a_terminal_that_is_closed(tmp_path, start, whole):
    # Whoever runs the tests may ignore it, and so would what he starts.
    process = start(tmp_path, under=("env", "--default-signal=HUP"))
    wait_for(process, tmp_path / "random" / "trial_0" / "metrics.jsonl")
    process.send_signal(signal.SIGHUP)
    line = "stopped by SIGHUP; everything is saved, the same command continues"
    assert ends(process, 128 + signal.SIGHUP) == line
    assert go_on(tmp_path) == whole


def test_nohup_is_heeded(tmp_path, start, whole):
    process = start(tmp_path, under=("nohup",), stdin=subprocess.DEVNULL)
    wait_for(process, tmp_path / "random" / "trial_0" / "metrics.jsonl")
    process.send_signal(signal.SIGHUP)
    process.communicate(timeout=300)
    assert process.returncode == 0
    assert content(tmp_path) == whole


def test_nobody_listens_any_more(tmp_path, start, whole):
    """As with `| head -1`."""
    process = start(tmp_path)
    process.stdout.readline()
    process.stdout.close()
    process.stdout = None
    assert "the same command continues" in ends(process, 128 + signal.SIGPIPE)
    assert go_on(tmp_path) == whole


def test_a_lost_line(tmp_path, start, whole):
    """A terminal that is gone, for stdout and stderr."""
    ours, theirs = os.openpty()
    process = start(tmp_path, stdout=theirs, stderr=theirs)
    os.close(theirs)
    wait_for(process, tmp_path / "random" / "trial_0" / "metrics.jsonl")
    os.close(ours)
    assert process.wait(timeout=300) == 128 + signal.SIGPIPE
    assert go_on(tmp_path) == whole


def test_a_cache_of_programs_that_cannot_be_written(tmp_path, command, whole):
    (tmp_path / "file").write_text("in the way")
    many = jax.device_count()
    argv, environment = command("moons", tmp_path / "workdir", *FLAGS, devices=many)
    environment["JAX_COMPILATION_CACHE_DIR"] = str(tmp_path / "file" / "cache")
    done = subprocess.run(
        argv, env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert content(tmp_path / "workdir") == whole


def test_a_clock_that_jumps(tmp_path, monkeypatch):
    now, calls = time.time, itertools.count()
    jumps = (0, 86_400, -86_400, 3_600, -5)
    monkeypatch.setattr(time, "time", lambda: now() + jumps[next(calls) // 500 % len(jumps)])
    monkeypatch.setattr(time, "time_ns", lambda: int(1e9 * time.time()))
    config = moons.get_config()
    config.update(methods="random,margin", trials=1, cycles=3, epochs=40, seconds_per_call=0.001,
                  checkpoint_every_steps=5, batch_size=16)  # fmt: skip
    jumping, ended = None, []
    while jumping is None and len(ended) < 20:
        try:
            jumping = tavaal_jax.run_study(config, tmp_path / "jumping")
        except tavaal_jax.UserError as error:  # The jump came in the midst of a save.
            ended.append(str(error))
    assert all("the same command continues" in text for text in ended)
    monkeypatch.undo()
    steady = tavaal_jax.run_study(config, tmp_path / "steady")
    assert jumping.rows() == steady.rows()
    mine, other = jumping.picks("margin").index, steady.picks("margin").index
    np.testing.assert_array_equal(mine, other)


def test_a_mount_that_is_gone_at_the_start(tmp_path, run_main):
    (tmp_path / "mnt").symlink_to(tmp_path / "not_mounted")
    done = run_main("moons", tmp_path / "mnt" / "workdir", *FLAGS)
    assert done.returncode == 2
    assert "cannot write to workdir" in last(done.stderr)
    assert not os.path.exists(tmp_path / "not_mounted")
