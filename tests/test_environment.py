"""A machine without a home directory, and one whose locale or terminal is not UTF-8."""

import ast
import os
import pwd
import subprocess
import sys

import jax
import locales
import pytest
from conftest import ROOT

from tavaal_jax import main
from tavaal_jax.engine import compilation
from tavaal_jax.environment import user_path
from tavaal_jax.errors import UserError

PACKAGE = ROOT / "tavaal_jax"


@pytest.fixture
def homeless(monkeypatch):
    """A user id that nobody has written down, and no HOME."""

    def unknown(uid):
        raise KeyError(uid)

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)


def test_a_home_that_is_not_there_is_named(homeless, tmp_path):
    assert user_path(tmp_path, "data_dir") == tmp_path
    with pytest.raises(UserError, match=r"^data_dir is ~/x, and there is no home directory: give"):
        user_path("~/x", "data_dir")
    with pytest.raises(UserError, match="no home directory of nosuchuser: give a path without ~"):
        user_path("~nosuchuser/x", "data_dir")


def test_a_command_with_such_a_path_is_one_line(capsys):
    assert main.main(["main", "--config=smoke", "--workdir=~nosuchuser/x"]) == 2
    assert capsys.readouterr().err == (
        "error: --workdir is ~nosuchuser/x, and there is no home directory of nosuchuser: give a"
        " path without ~\n"
    )


def test_without_a_home_compiled_programs_are_not_kept(homeless, compiled):
    assert compilation.keep_in_cache() is None
    jax.config.update("jax_compilation_cache_dir", None)
    try:
        assert "name a folder in JAX_COMPILATION_CACHE_DIR" in compilation.keep_in_cache()
        assert jax.config.jax_compilation_cache_dir is None
    finally:
        jax.config.update("jax_compilation_cache_dir", str(compiled))


def calls(path):
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else ""
            yield name, node, {keyword.arg for keyword in node.keywords}


def test_one_function_looks_for_homes_and_all_text_has_an_encoding():
    wrong = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for name, node, keywords in calls(path):
            places = {"read_text": 1, "write_text": 2}
            is_text = (
                name in places and len(node.args) < places[name] and "encoding" not in keywords
            )
            is_home = name == "expanduser" and path.name != "environment.py"
            if is_text or is_home or keywords & {"text", "universal_newlines"} >= {"text"}:
                wrong.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert wrong == []


# Locales

NAMES = ("größe", "käse", "猫")


@pytest.fixture(params=locales.NAMES)
def locale(request, tmp_path):
    """Environment variables of a locale."""
    return locales.settings(request.param, tmp_path / "locales")


def run(script, environment, *arguments):
    clean = {k: v for k, v in os.environ.items() if k not in ("LANG", "LC_ALL", "PYTHONUTF8")}
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        env={**clean, "PYTHONPATH": str(ROOT), **environment},
        cwd=ROOT, capture_output=True, check=False,
    )  # fmt: skip


WRITES = """
import pathlib, sys
import numpy as np
import tavaal_jax
from tavaal_jax import config as configs
from tavaal_jax.report import files, records
folder = pathlib.Path(sys.argv[1])
names = ("gr\\xf6\\xdfe", "k\\xe4se", "\\u732b")
config = configs.default()
config.task.pretrained = names[2]
files.write_config(folder, config)
assert files.read_config(folder)["config"]["task"]["pretrained"] == names[2]
files.write(folder / "a.csv", files.as_csv(["class"], [{"class": name} for name in names]))
assert [row["class"] for row in files.read_csv(folder / "a.csv")] == list(names)
log = records.Log(folder / "metrics.jsonl", lambda record: True)
log.write({"class": names[2]})
log.close()
records.Log(folder / "metrics.jsonl", lambda record: True).close()
assert records.read_log(folder) == [{"class": names[2]}]
"""


def test_what_is_written_is_utf_8_in_every_locale(locale, tmp_path):
    folder = tmp_path / "study"
    folder.mkdir()
    done = run(WRITES, locale, folder)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    assert (folder / "a.csv").read_text("utf-8").split() == ["class", *NAMES]


SAYS = """
import sys
from tavaal_jax import main
from tavaal_jax.report.progress import Display, Event, Terminal
from tavaal_jax.errors import UserError
def fails(command):
    with Display(Terminal()) as display:
        display(Event("new class \\u732b"))
    raise UserError("no class \\u732b")
main._run = fails
sys.exit(main.main(["main", "--config=smoke", "--workdir=/nowhere"]))
"""


def test_letters_that_a_terminal_lacks_are_replaced(locale):
    done = run(SAYS, locale)
    assert done.returncode == 2
    written = "猫".encode() if locale["LC_ALL"] == "C.UTF-8" else rb"\u732b"
    assert b"new class " + written in done.stdout
    assert done.stderr.splitlines() == [b"error: no class " + written]


def test_a_terminals_own_encoding_counts():
    done = run(SAYS, {"PYTHONIOENCODING": "latin-1"})
    assert done.returncode == 2
    assert done.stderr.splitlines() == [rb"error: no class \u732b"]


LABELS = """
import os, pathlib, sys
sys.path.append("tests")
import people
folder = pathlib.Path(sys.argv[1])
names = ("gr\\xf6\\xdfe", "k\\xe4se", "\\u732b")
place = os.fsencode(folder / "photos") + b"/"
truth = people.folder(folder / "photos", 30, names)
for name in list(truth):
    new = name.replace("photo", "f\\xfc\\xdfe")
    os.rename(place + name.encode(), place + new.encode())
    truth[new] = truth.pop(name)
one = people.config(folder / "photos", folder, epochs=1, methods="margin", cycles=1)
people.run(one, folder / "work")
people.answer(folder / "work", 0, truth)
line, log = people.run(one, folder / "work")
assert line is None
"""
WRITTEN = ("results.csv", "labels.csv", "images.csv", "predictions.csv", "classes.txt")


@pytest.mark.slow
def test_people_label_the_same_in_every_locale(compiled, tmp_path):
    cache = {"JAX_COMPILATION_CACHE_DIR": str(compiled), "JAX_NUM_CPU_DEVICES": "1"}
    written = {}
    for name in locales.NAMES:
        folder = tmp_path / name
        folder.mkdir()
        environment = {**cache, **locales.settings(name, tmp_path / "locales")}
        done = run(LABELS, environment, folder)
        assert done.returncode == 0, (name, done.stderr.decode(errors="replace"))
        written[name] = [(folder / "work" / file).read_bytes() for file in WRITTEN]
    assert written["C"] == written["Latin-1"] == written["C.UTF-8"]
    assert written["C"][-1].decode().split() == list(NAMES)


# How Python was started


@pytest.mark.parametrize("module", ["report", "data.sets.prepare"])
def test_commands_need_no_docstrings(module):
    done = subprocess.run(
        [sys.executable, "-OO", "-m", f"tavaal_jax.{module}", "--help"],
        cwd=ROOT, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()


def test_what_a_user_may_get_wrong_is_no_assertion():
    """`python -O` leaves assertions out; those of the package narrow types alone."""
    messages = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Assert) and node.msg is not None
    ]
    assert messages == []


@pytest.mark.slow
def test_an_optimised_interpreter_runs_the_same_study(command, tmp_path):
    written = []
    for flags in ([], ["-OO"]):
        workdir = tmp_path / f"work{''.join(flags)}"
        (python, *rest), environment = command(
            "smoke", workdir, "--config.methods=tavaal", "--config.cycles=2"
        )
        done = subprocess.run(
            [python, *flags, *rest], env=environment, cwd=ROOT, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr.decode()
        picks = sorted(workdir.glob("*/trial_*/picks.csv"))
        written.append([path.read_bytes() for path in (workdir / "results.csv", *picks)])
    assert written[0] == written[1]
    assert len(written[0]) == 2
