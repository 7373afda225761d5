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

import pytest
from conftest import ROOT

import tavaal_jax
from configs import moons

pytestmark = pytest.mark.slow

FLAGS = (
    "--config.methods=random,tavaal",
    "--config.trials=1",
    "--config.cycles=3",
    "--config.epochs=40",
    "--config.steps_per_call=2",
    "--config.checkpoint_every_steps=5",
)


@pytest.fixture(scope="module")
def whole(run_main, tmp_path_factory):
    """What a study writes on a good day."""
    folder = tmp_path_factory.mktemp("whole")
    assert run_main("moons", folder, *FLAGS).returncode == 0
    return content(folder)


def content(folder):
    names = ["results.csv"]
    names += [f"{m}/trial_0/{n}.csv" for m in ("random", "tavaal") for n in ("results", "picks")]
    return {name: (folder / name).read_bytes() for name in names}


@pytest.fixture
def disk(tmp_path):
    """A disk of its own, `remount(option)` changes it; skipped where nobody may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(option, *more):
        argv = ["mount", *more, "-t", "tmpfs", "-o", option, "tmpfs", str(folder)]
        return subprocess.run(argv, capture_output=True, check=False).returncode == 0

    if not mount("size=256m"):
        pytest.skip("only root can mount a disk")
    yield folder, lambda option: mount(f"remount,{option}")
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture
def start(command):
    """Starts a study: `(workdir) -> Popen`, which is ended in any case."""
    begun = []

    def begin(folder, **options):
        argv, environment = command("moons", folder, *FLAGS)
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        begun.append(subprocess.Popen(argv, env=environment, cwd=ROOT, **pipes | options))
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


def go_on(run_main, folder):
    done = run_main("moons", folder, *FLAGS)
    assert done.returncode == 0, done.stderr
    return content(folder)


def test_a_full_disk(disk, run_main, start, whole):
    folder, _ = disk
    process = start(folder)
    wait_for(process, folder / "random" / "trial_0" / "metrics.jsonl")
    with contextlib.suppress(OSError), (folder / "somebody_elses").open("wb", 0) as file:
        while True:
            file.write(bytes(2**12))
    assert "(No space left on device): free some space; the same command" in ends(process, 2)
    (folder / "somebody_elses").unlink()
    assert go_on(run_main, folder) == whole


def test_a_workdir_that_becomes_read_only(disk, run_main, start, whole):
    folder, remount = disk
    process = start(folder)
    wait_for(process, folder / "random" / "trial_0" / "metrics.jsonl")
    while not remount("ro"):  # Refused while a file is being written.
        time.sleep(0.001)
    line = ends(process, 2)
    assert "(Read-only file system): " in line
    assert "the same command continues" in line
    assert "cannot write to workdir" in last(run_main("moons", folder, *FLAGS).stderr)
    assert remount("rw")
    assert go_on(run_main, folder) == whole


def test_a_workdir_that_vanishes(tmp_path, run_main, start, whole):
    folder = tmp_path / "workdir"
    process = start(folder)
    wait_for(process, folder / "random" / "trial_0" / "metrics.jsonl")
    folder.rename(tmp_path / "elsewhere")
    line = ends(process, 2)
    assert f"{folder}" in line
    assert "(No such file or directory)" in line
    shutil.rmtree(folder, ignore_errors=True)
    (tmp_path / "elsewhere").rename(folder)
    assert go_on(run_main, folder) == whole


def test_checkpoints_that_were_cut(tmp_path, run_main, start, whole):
    process = start(tmp_path)
    wait_for(process, tmp_path / "random" / "trial_0" / "metrics.jsonl")
    process.kill()
    process.communicate()
    folder = tmp_path / "random" / "trial_0" / "checkpoints"
    newest = max((p for p in folder.iterdir() if p.name.isdecimal()), key=lambda p: int(p.name))
    for path in (p for p in newest.rglob("*") if p.is_file()):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    done = run_main("moons", tmp_path, *FLAGS)
    assert done.returncode == 0, done.stderr
    assert f"skipping unreadable checkpoint {newest}" in done.stderr
    assert content(tmp_path) == whole


@pytest.mark.parametrize("share", [0, 0.5])
def test_records_that_were_cut(share, tmp_path, run_main, start, whole):
    process = start(tmp_path)
    wait_for(process, tmp_path / "tavaal" / "trial_0" / "metrics.jsonl")
    process.kill()
    process.communicate()
    cut = [p for p in tmp_path.glob("tavaal/trial_0/*") if p.suffix in (".csv", ".jsonl")]
    assert len(cut) >= 3
    for path in cut:
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    assert go_on(run_main, tmp_path) == whole


def test_two_runs_on_one_folder(tmp_path, run_main, start, whole):
    process = start(tmp_path)
    wait_for(process, tmp_path / "random" / "trial_0" / "metrics.jsonl")
    second = run_main("moons", tmp_path, *FLAGS)
    assert second.returncode == 2
    assert f"another process is running in {tmp_path}: wait for it" in last(second.stderr)
    assert process.communicate()[1] == ""
    assert process.returncode == 0
    assert content(tmp_path) == whole


def test_a_terminal_that_is_closed(tmp_path, run_main, start, whole):
    process = start(tmp_path)
    wait_for(process, tmp_path / "random" / "trial_0" / "metrics.jsonl")
    process.send_signal(signal.SIGHUP)
    line = "stopped by SIGHUP; everything is saved, the same command continues"
    assert ends(process, 128 + signal.SIGHUP) == line
    assert go_on(run_main, tmp_path) == whole


def test_nohup_is_heeded(tmp_path, start, whole):
    process = start(tmp_path, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    wait_for(process, tmp_path / "random" / "trial_0" / "metrics.jsonl")
    process.send_signal(signal.SIGHUP)
    process.communicate(timeout=300)
    assert process.returncode == 0
    assert content(tmp_path) == whole


def test_nobody_listens_any_more(tmp_path, run_main, start, whole):
    """As with `| head -1`."""
    process = start(tmp_path)
    process.stdout.readline()
    process.stdout.close()
    process.stdout = None
    assert "the same command continues" in ends(process, 128 + signal.SIGPIPE)
    assert go_on(run_main, tmp_path) == whole


def test_a_cache_of_programs_that_cannot_be_written(tmp_path, command, whole):
    (tmp_path / "file").write_text("in the way")
    argv, environment = command("moons", tmp_path / "workdir", *FLAGS)
    environment["JAX_COMPILATION_CACHE_DIR"] = str(tmp_path / "file" / "cache")
    done = subprocess.run(
        argv, env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert content(tmp_path / "workdir") == whole


def test_a_clock_that_jumps(tmp_path, monkeypatch, whole):
    now, jumps = time.time, itertools.cycle([0, 86_400, -86_400, 3_600, -5])
    monkeypatch.setattr(time, "time", lambda: now() + next(jumps))
    monkeypatch.setattr(time, "time_ns", lambda: int(1e9 * time.time()))
    config = moons.get_config()
    config.update(methods="random,tavaal", trials=1, cycles=3, epochs=40, steps_per_call=2,
                  checkpoint_every_steps=5)  # fmt: skip
    tavaal_jax.run_study(config, tmp_path)
    assert content(tmp_path) == whole


def test_a_mount_that_is_gone_at_the_start(tmp_path, run_main):
    (tmp_path / "mnt").symlink_to(tmp_path / "not_mounted")
    done = run_main("moons", tmp_path / "mnt" / "workdir", *FLAGS)
    assert done.returncode == 2
    assert "cannot write to workdir" in last(done.stderr)
    assert not os.path.exists(tmp_path / "not_mounted")
