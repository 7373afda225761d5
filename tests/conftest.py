"""Four CPU devices, strict JAX, and what several test files need.

`JAX_PLATFORMS=cuda pytest` runs on a GPU instead; what needs several devices is skipped there.
"""

import os

from jaxlib import version

# What is tested does not need optimised code, and compiling is most of the time, of which XLA's
# older emitter of fused loops (gone from newer ones) and one LLVM module per program take a third.
QUICK_COMPILATION = (
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    " --xla_cpu_parallel_codegen_split_count=1"
)
if version.__version_info__ < (0, 11):
    QUICK_COMPILATION += " --xla_cpu_use_fusion_emitters=false"
ON_CPU = os.environ.setdefault("JAX_PLATFORMS", "cpu") == "cpu"
os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count=4 {QUICK_COMPILATION}"
if not ON_CPU:
    # Products of float32, not of TF32; room for the other test processes.
    os.environ["XLA_FLAGS"] = ""
    os.environ["JAX_DEFAULT_MATMUL_PRECISION"] = "highest"
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"

import csv
import gc
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

import tavaal_jax
from tavaal_jax.engine import compilation

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")

# Traces make objects by the million, most of which stay: looking for garbage less often, and not
# among modules, saves a twentieth of the time.
gc.freeze()
gc.set_threshold(50_000, 20, 50)

ROOT = pathlib.Path(__file__).parent.parent


OWN_CODE = ("test_golden.py", "test_methods.py", "test_method_checks.py", "test_sklearn_suite.py")
"""Files in which each set of parameters runs code of its own: a method's, a check of others."""


def pytest_addoption(parser):
    parser.addoption(
        "--each-once", action="store_true", help="of each test the first set of parameters alone"
    )


@pytest.hookimpl(trylast=True)  # After -m.
def pytest_collection_modifyitems(config, items):
    if config.getoption("each_once"):
        kept = {item.nodeid.partition("[")[0]: item for item in reversed(items)}
        kept = {*kept.values(), *(item for item in items if item.path.name in OWN_CODE)}
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = [item for item in items if item in kept]


several_devices = pytest.mark.skipif(
    jax.device_count() == 1, reason="needs several devices, of the CPU for example"
)


def read_csv(path: pathlib.Path) -> list[dict[str, str]]:
    """Rows of a csv file with a header."""
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def assert_same_picks(picks, others):
    """The same images in each cycle, with the same scores to rounding.

    Neighbours whose scores are equal to rounding may stand in swapped places: sums over more
    devices are rounded otherwise.
    """
    assert images_by_cycle(picks) == images_by_cycle(others)
    for rows in zip(picks, others, strict=True):  # of one rank
        assert len({(row["cycle"], row["rank"]) for row in rows}) == 1
    by_rank = [[float(row["score"]) for row in rows] for rows in (picks, others)]
    np.testing.assert_allclose(*by_rank, rtol=1e-2, atol=1e-4)
    by_image = [
        [float(row["score"]) for row in sorted(rows, key=lambda row: int(row["index"]))]
        for rows in (picks, others)
    ]
    np.testing.assert_allclose(*by_image, rtol=1e-2, atol=1e-4)


def images_by_cycle(picks):
    """Indices of the picks of each cycle, a set."""
    cycles = {row["cycle"] for row in picks}
    return {cycle: {row["index"] for row in picks if row["cycle"] == cycle} for cycle in cycles}


def results_of(method, trial, values):
    """Rows of a trial's results.csv: 10 labels in the first cycle, 10 more in each."""
    return [
        {"method": method, "trial": trial, "cycle": c, "labelled": 10 * (c + 1),
         "metric": "accuracy", "value": value}
        for c, value in enumerate(values)
    ]  # fmt: skip


def results(**methods):
    """Rows of a study's results.csv: `method=[[value of each cycle] of each trial]`."""
    return [
        row
        for name, trials in methods.items()
        for number, values in enumerate(trials)
        for row in results_of(name, number, values)
    ]


METHOD = """
import jax.numpy as jnp
import tavaal_jax as tv
from configs import moons

def value(view, key):
    {body}

tv.METHODS["mine"] = tv.Method("mine", value, tv.picks.largest)

def get_config():
    config = moons.get_config()
    config.methods = "mine"
    config.update(trials=1, cycles=2, epochs=2)
    return config
"""
"""A config file that defines a method, `.format(body=...)`: what its value does."""


def features():
    """A data set of 200 points in 3 classes, 5 numbers each."""
    random = np.random.default_rng(0)
    labels = np.arange(200) % 3
    points = random.normal(size=(200, 5)) + labels[:, None]
    return tavaal_jax.Dataset.from_arrays(points[50:], labels[50:], points[:50], labels[:50])


@pytest.fixture(scope="session", autouse=True)
def compiled(tmp_path_factory, worker_id):
    """A cache of compiled programs that all processes of the session share.

    Sessions share the one that JAX_COMPILATION_CACHE_DIR names.
    """
    base = tmp_path_factory.getbasetemp()
    base = base if worker_id == "master" else base.parent
    folder = pathlib.Path(os.environ.get("JAX_COMPILATION_CACHE_DIR", base / "compiled"))
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    return folder


@pytest.fixture(autouse=True)
def _programs_have_room(request):
    """Tests that compile much would fill the process's memory maps together."""
    yield
    if request.node.get_closest_marker("slow"):
        compilation.make_room(0.3)


@pytest.fixture(scope="session")
def command(compiled):
    """`(config, workdir, *flags, devices, optimised) -> argv, environment`.

    The config by name or path. What trains long is faster with optimised code, its compilation
    included.
    """

    def build(config, workdir, *flags, devices=1, optimised=False):
        if devices > 1 and not ON_CPU:
            pytest.skip("several devices are the CPU's")
        file = config if isinstance(config, pathlib.Path) else f"configs/{config}.py"
        argv = [sys.executable, "-m", "tavaal_jax.main", f"--config={file}"]
        xla_flags = os.environ["XLA_FLAGS"].replace("count=4", f"count={devices}")
        environment = {
            **os.environ,
            "XLA_FLAGS": xla_flags.replace(QUICK_COMPILATION, "") if optimised else xla_flags,
            "JAX_COMPILATION_CACHE_DIR": str(compiled),
        }
        return [*argv, f"--workdir={workdir}", *flags], environment

    return build


@pytest.fixture(scope="session")
def run_main(command):
    """Runs the command line in a process of its own to its end."""

    def run(config, workdir, *flags, **how):
        argv, environment = command(config, workdir, *flags, **how)
        return subprocess.run(
            argv, env=environment, cwd=ROOT, capture_output=True, text=True, check=False
        )

    return run


@pytest.fixture
def rng():
    return np.random.default_rng(0)
