"""The rooms and their one-way doors; what importing the package does not do."""

import ast
import graphlib
import subprocess
import sys

import pytest
from conftest import ROOT

import tavaal_jax
from tavaal_jax.algorithm.methods import METHODS

PACKAGE = ROOT / "tavaal_jax"
FILES = sorted(PACKAGE.rglob("*.py"))
ROOMS = (
    "algorithm", "config", "config_file", "config_keys", "data", "engine", "environment",
    "errors", "jax_settings", "limits", "models", "ops", "renamed_keys", "report", "study",
)  # fmt: skip
ALL = (*ROOMS, "command_line", "labelling", "run")

# room -> what its files may import, as rooms or modules; a room may always import itself.
ALLOWED = {
    "errors": (),
    "environment": ("errors",),
    "jax_settings": ("errors",),
    "limits": (),
    "renamed_keys": (),
    "config_keys": ("limits",),
    "config": ("config_keys", "errors", "renamed_keys"),
    "config_file": ("config", "environment", "errors"),
    "command_line": ("config_file", "environment", "errors", "renamed_keys"),
    "ops": (),
    "models": ("ops", "environment", "errors"),
    "algorithm": ("models", "ops"),
    "data": ("config", "environment", "errors"),
    "engine": ("algorithm", "data", "models", "environment", "errors", "jax_settings"),
    "report": (
        "data",
        "config",
        "environment",
        "errors",
        "jax_settings",
        "renamed_keys",
        "algorithm.methods",
        "algorithm.state",
    ),
    "study": (
        "algorithm",
        "config",
        "data",
        "engine",
        "environment",
        "errors",
        "jax_settings",
        "models",
        "renamed_keys",
        "report",
    ),
    "labelling": ROOMS,
    "examples": ("__init__",),
    "run": ALL,
    "main": ALL,
    "label": (*ALL, "main"),
    "predict": ALL,
    "__init__": ALL,
}


def name_of(path):
    """A file's place below the package, `report.plots.style`; that of a package is its folder."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


NAMES = {name_of(path) for path in FILES}


def imported(path):
    """What a file imports of ours, below the package, and in which line."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            found = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in found:
            if name.split(".")[0] == "tavaal_jax":
                yield module(name.partition(".")[2]), node.lineno


def module(name):
    """The module that `name` is, or is defined in."""
    while name and name not in NAMES:
        name = name.rpartition(".")[0]
    return name or "__init__"


def allowed(room, name):
    """Whether a file of `room` may import the module `name`."""
    doors = (room, *ALLOWED[room])
    return any(name == door or name.startswith(f"{door}.") for door in doors)


ARROWS = [(path, name, line) for path in FILES for name, line in imported(path)]


def test_a_file_imports_only_what_its_room_may():
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path, name, line in ARROWS
        if not allowed(name_of(path).split(".")[0], name)
    ]
    assert wrong == []
    # The walk meets every room, and sees arrows that are not allowed.
    assert {name_of(path).split(".")[0] for path in FILES} == set(ALLOWED)
    rooms = {(name_of(path).split(".")[0], name.split(".")[0]) for path, name, _ in ARROWS}
    assert {("study", "engine"), ("algorithm", "models"), ("report", "algorithm")} <= rooms
    assert not allowed("algorithm", "engine.devices")
    assert not allowed("report", "algorithm.losses")
    assert not allowed("data", "algorithm.state")
    assert not allowed("study", "labelling.loop")
    assert not allowed("study", "main")
    assert not allowed("study", "__init__")


def circle(below):
    """Files that import each other, one after another; none where there is no circle."""
    try:
        graphlib.TopologicalSorter(below).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return []


def test_no_files_import_each_other_in_a_circle():
    """Imports of types and imports within functions count as well; the package's face does not."""
    below = {}
    for path, name, _ in ARROWS:
        if name not in ("__init__", name_of(path)):
            below.setdefault(name_of(path), set()).add(name)
    assert circle(below) == []
    assert set(circle({**below, "errors": {"study.study"}})) >= {"errors", "study.study"}


# Where methods may be known by name, and words that happen to be one's name as well.
KNOW_METHODS = {"algorithm/methods.py", "report/plots/style.py", "config_keys.py"}
OTHERWISE = {
    ("algorithm/problems.py", "entropy"),  # a key of what one pass with dropout says
    ("algorithm/problems.py", "bald"),  # a measure of what passes with dropout say
    ("algorithm/values.py", "bald"),
    ("study/notebook/query.py", "tavaal"),  # the default of what a notebook asks
    ("study/notebook/estimator.py", "coreset"),
}


def test_no_method_is_known_by_name():
    named = set()
    for path in FILES:
        place = path.relative_to(PACKAGE).as_posix()
        words = {
            node.value
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        if place not in KNOW_METHODS:
            named |= {(place, name) for name in words & set(METHODS)}
    assert named <= OTHERWISE


# Importing


def run(script):
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_package_imports_nothing_heavy():
    heavy = "{'jax', 'jaxlib', 'flax', 'matplotlib', 'tensorflow', 'orbax', 'sklearn', 'scipy'}"
    assert run(f"import sys, tavaal_jax; print({heavy} & set(sys.modules))") == "set()\n"


CHANGES_NOTHING = """
import os, signal, sys, threading, warnings
def now():
    handlers = [signal.getsignal(number) for number in signal.valid_signals()]
    return handlers, dict(os.environ), os.getcwd(), sys.excepthook, threading.active_count()
filters, before = list(warnings.filters), now()
import tavaal_jax
assert now() == before
assert warnings.filters == filters
for name in tavaal_jax.__all__:
    getattr(tavaal_jax, name)
changed = {k for k in {*os.environ, *before[1]} if os.environ.get(k) != before[1].get(k)}
assert not changed & {"XLA_FLAGS", "GLIBC_TUNABLES", "MPLBACKEND"}, changed
assert now()[0] == before[0]
assert "tensorflow" not in sys.modules
assert "matplotlib.pyplot" not in sys.modules
import jax
assert jax.config.values["jax_compilation_cache_dir"] == os.environ.get("JAX_COMPILATION_CACHE_DIR")
"""


def test_importing_the_package_and_all_it_offers_changes_nothing():
    assert run(CHANGES_NOTHING) == ""


def test_all_that_is_offered_can_be_had():
    assert set(tavaal_jax.__all__) == set(tavaal_jax._PLACES)
    assert sorted(tavaal_jax.__all__) == sorted(set(tavaal_jax.__all__))
    for name in tavaal_jax.__all__:
        assert getattr(tavaal_jax, name) is not None
    assert set(tavaal_jax.__all__) <= set(dir(tavaal_jax))
    with pytest.raises(AttributeError, match="has no attribute 'quarry'"):
        tavaal_jax.quarry  # noqa: B018
