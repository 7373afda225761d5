"""A study's folder: the lock, config.json, and files that are written whole."""

import errno
import json
import os
import re
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import ROOT

from configs import moons, smoke
from tavaal_jax.errors import UserError
from tavaal_jax.report import files, records


def failing(number):
    """What a full or a broken disk does."""

    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    return fail


# Folders


def test_trials_are_found_whatever_else_lies_there(tmp_path):
    for name in ("random/trial_0", "tavaal/trial_10", "random/trial_0_old", "other/trial_1"):
        (tmp_path / name).mkdir(parents=True)
    found = files.trials(tmp_path)
    assert found == [("random", 0), ("tavaal", 10), ("other", 1)]
    assert files.trial_folder(tmp_path, *found[1]) == tmp_path / "tavaal" / "trial_10"


def test_unknown_methods_come_last_and_by_name():
    trials = [("b", 0), ("a", 1), ("tavaal", 2), ("random", 11), ("random", 2), ("a", 0)]
    assert sorted(trials, key=files.order) == [
        ("random", 2), ("random", 11), ("tavaal", 2), ("a", 0), ("a", 1), ("b", 0),
    ]  # fmt: skip


def test_a_folder_is_made_and_locked_until_it_is_let_go(tmp_path):
    folder = tmp_path / "deep" / "study"
    with (
        files.claim(folder),
        pytest.raises(UserError, match=r"another process is running in .*study"),
    ):
        files.claim(folder)
    with files.claim(folder):
        assert folder.is_dir()


def test_who_has_a_folder_is_named_and_what_to_do_if_it_is_gone(tmp_path):
    with files.claim(tmp_path), pytest.raises(UserError) as error:
        files.claim(tmp_path)
    assert re.fullmatch(
        rf"another process is running in {tmp_path} \(process {os.getpid()} on .*, since .*\): wait"
        r" for it, or give another --workdir",
        str(error.value),
    )
    assert not (tmp_path / ".lock.holder").exists()


NO_LOCKS = """
import errno, os, pathlib, sys
import filelock._native._unix as unix
def fails(fd, operation):
    raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
unix.fcntl.flock = fails
from tavaal_jax.errors import UserError
from tavaal_jax.report import files
try:
    with files.claim(pathlib.Path(sys.argv[1])):
        if len(sys.argv) > 2:
            os._exit(9)
except UserError as error:
    print(error)
"""


def test_a_lock_that_a_dead_host_has_left_on_a_disk_without_locks_is_named(tmp_path):
    def claim(*arguments):
        return subprocess.run(
            [sys.executable, "-c", NO_LOCKS, str(tmp_path), *arguments],
            cwd=ROOT, capture_output=True, encoding="utf-8", check=False,
        )  # fmt: skip

    done = claim()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    (tmp_path / ".lock").write_bytes(b"")  # From a disk with locks.
    (tmp_path / ".lock.holder").write_text("process 7 on elsewhere, since noon", "utf-8")
    done = claim()
    assert "(process 7 on elsewhere, since noon): wait for it, or" in done.stdout
    assert done.stdout.endswith(f"is gone, delete {tmp_path}/.lock\n")


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"cannot write to workdir .*study.*give another --workdir"):
        files.claim(tmp_path / "file" / "study")


# config.json


def test_config_json_remembers_what_ran_earlier(tmp_path):
    config = moons.get_config()
    files.write_config(tmp_path, config)
    files.write_config(tmp_path, config)
    record = json.loads((tmp_path / "config.json").read_text())
    assert record["earlier"] == []
    assert record["format"] == files.FORMAT
    assert set(record["versions"]) >= {"python", "jax", "flax", "numpy"}
    config.trials = 9
    files.check_config(tmp_path, config)
    files.write_config(tmp_path, config)
    record = json.loads((tmp_path / "config.json").read_text())
    assert record["config"]["trials"] == 9
    assert [old["config"]["trials"] for old in record["earlier"]] == [5]
    assert "earlier" not in record["earlier"][0]


def test_a_config_that_would_change_results_is_refused_by_its_keys(tmp_path):
    config = moons.get_config()
    files.check_config(tmp_path, config)  # Nothing there yet.
    files.write_config(tmp_path, config)
    config.epochs, config.vae.latent, config.steps_per_call = 7, 3, 9
    with pytest.raises(UserError) as error:
        files.check_config(tmp_path, config)
    assert str(error.value) == (
        f"{tmp_path} holds a study with another config: epochs (100 -> 7), vae.latent (2 -> 3);"
        " give the old values or another --workdir"
    )


@pytest.mark.parametrize(("before", "now"), [(None, "abc"), ("abc", None), ("abc", "abd")])
def test_other_arrays_are_refused(tmp_path, before, now):
    config = moons.get_config()
    files.write_config(tmp_path, config, before)
    files.check_config(tmp_path, config, before)
    with pytest.raises(UserError, match="another config: the images and labels of the data set"):
        files.check_config(tmp_path, config, now)


def test_other_pretrained_weights_are_refused_under_the_same_name(tmp_path):
    config = smoke.get_config()
    config.task.pretrained = str(tmp_path / "weights.npz")
    (tmp_path / "weights.npz").write_bytes(b"one")
    files.write_config(tmp_path, config)
    files.check_config(tmp_path, config)
    (tmp_path / "weights.npz").write_bytes(b"two")
    says = r"another config: the content of .*weights.npz \(task.pretrained\); give the old values"
    with pytest.raises(UserError, match=says):
        files.check_config(tmp_path, config)


@pytest.mark.parametrize(("given", "named"), [({}, 1), ({"format": 1}, 1), ({"format": 3}, 3)])
def test_a_folder_of_another_format_is_refused(tmp_path, given, named):
    config = moons.get_config()
    record = {"config": json.loads(config.to_json()), **given}
    (tmp_path / "config.json").write_text(json.dumps(record))
    with pytest.raises(UserError) as error:
        files.check_config(tmp_path, config)
    assert f"another version of tavaal_jax (format {named}, this one writes" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "7", '{"versions": {}}', '{"config": 3}', "\0"])
def test_an_unreadable_config_json_is_named(tmp_path, text):
    assert files.read_config(tmp_path) is None
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match=r"config\.json cannot be read, so this may be another"):
        files.read_config(tmp_path)


def test_the_revision_is_that_of_the_clone_or_unknown(monkeypatch):
    revision = files._git_revision()
    assert revision is None or len(revision.removesuffix("-dirty")) >= 40
    monkeypatch.setenv("PATH", "")
    assert files._git_revision() is None


# Writing


def test_a_file_is_the_old_one_or_the_whole_new_one(tmp_path, monkeypatch):
    path = tmp_path / "file.txt"
    files.write(path, "old")
    files.write(path, b"new")
    assert path.read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["file.txt"]
    monkeypatch.setattr(os, "replace", failing(errno.EIO))
    with pytest.raises(UserError):
        files.write(path, "third")
    assert path.read_text() == "new"


@pytest.mark.parametrize(
    ("number", "mend"),
    [(errno.ENOSPC, "free some space"), (errno.EDQUOT, "free some space"),
     (errno.EACCES, "see to its folder"), (errno.EIO, "see to its folder")],
)  # fmt: skip
def test_a_failed_writing_names_the_file_and_the_mend(tmp_path, monkeypatch, number, mend):
    monkeypatch.setattr(os, "replace", failing(number))
    path = tmp_path / "results.csv"
    with pytest.raises(UserError) as error:
        files.write(path, "text")
    expected = f"cannot write {path} ({os.strerror(number)}): {mend}; the same command continues"
    assert str(error.value) == expected


@pytest.mark.parametrize("what", ["results", "picks", "table", "arrays", "config", "log"])
def test_whatever_is_written_names_its_file_when_the_disk_is_full(tmp_path, monkeypatch, what):
    (tmp_path / "metrics.jsonl").write_text("torn")
    monkeypatch.setattr(os, "replace", failing(errno.ENOSPC))
    none = np.array([-1])
    state = SimpleNamespace(picked_in=none, pick_rank=none, pick_score=none)
    write, name = {
        "results": (lambda: records.write_results(tmp_path, []), "results.csv"),
        "picks": (lambda: records.write_picks(tmp_path, state, np.array(["a"])), "picks.csv"),
        "table": (lambda: records.write_table(tmp_path / "x.csv", ("a",), []), "x.csv"),
        "arrays": (lambda: files.write_arrays(tmp_path / "d" / "x.npz", {}), "d/x.npz"),
        "config": (lambda: files.write_config(tmp_path, moons.get_config()), "config.json"),
        "log": (lambda: records.Log(tmp_path / "metrics.jsonl", bool), "metrics.jsonl"),
    }[what]
    with pytest.raises(UserError, match=f"cannot write {tmp_path / name} .*: free some space"):
        write()


def test_arrays_come_back_from_a_folder_that_is_made(tmp_path):
    path = tmp_path / "deep" / "arrays.npz"
    files.write_arrays(path, {"a": np.arange(3), "b": np.float32(0.5)})
    with np.load(path) as arrays:
        assert list(arrays) == ["a", "b"]
        np.testing.assert_array_equal(arrays["a"], [0, 1, 2])


def test_a_csv_comes_back(tmp_path):
    path = tmp_path / "x.csv"
    assert files.read_csv(path) == []
    rows = [{"a": 1, "b": "x,y"}, {"b": 'q"'}, {"a": "two\r", "b": "lines\r\n"}]
    files.write(path, files.as_csv(("a", "b"), rows))
    assert path.read_bytes().startswith(b'a,b\n1,"x,y"\n')
    texts = [{"a": "1", "b": "x,y"}, {"a": "", "b": 'q"'}, {"a": "two\r", "b": "lines\r\n"}]
    assert files.read_csv(path) == texts
