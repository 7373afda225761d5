"""Memory of a device: how much there is, and one that is full for real."""

import errno
import gc
import os
import pickle
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ROOT, read_csv
from trials import config_of

import tavaal_jax
from tavaal_jax.engine import memory
from tavaal_jax.errors import OutOfMemory, TrialError, UserError

HUGE = (2_000_000, 2_000_000)
"""Units of two layers of D: 16 TB of weights."""


def test_a_device_has_memory():
    assert memory.device_bytes() > 10**8


def test_workers_share_the_machines_memory(monkeypatch):
    alone = memory.device_bytes()
    monkeypatch.setenv(memory.SHARED_BY, "2")
    if jax.default_backend() == "cpu":
        assert memory.device_bytes() == alone // 2


def test_a_large_array_lies_in_a_file(monkeypatch):
    monkeypatch.setattr(memory, "_host_bytes", lambda: 4 * 24)
    small, large = (memory.host_array((n, 2), np.dtype(np.float32)) for n in (2, 3))
    assert not isinstance(small, np.memmap)
    assert isinstance(large, np.memmap)
    large[:] = np.arange(6).reshape(3, 2)
    np.testing.assert_array_equal(large, [[0, 1], [2, 3], [4, 5]])


def test_where_no_disk_holds_a_large_array_memory_has_to(monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    monkeypatch.setattr(memory, "_host_bytes", lambda: 48)
    assert memory.host_array((4, 2), np.dtype(np.float32)).shape == (4, 2)
    monkeypatch.setattr(memory, "_host_bytes", lambda: 1)
    line = r"the pool takes 1\.5 GiB, .* file \(No space left on device\): give a folder with more"
    with pytest.raises(OutOfMemory, match=line), memory.explain_full("a trial", "another mend"):
        memory.host_array((2**20, 384), np.dtype(np.float32))


@pytest.mark.parametrize(("feed", "is_a_mend"), [("auto", True), ("streamed", False)])
def test_full_memory_is_one_line_with_its_mend(feed, is_a_mend):
    mend = memory.advice(config_of(data_placement=feed), " in a new --workdir")
    line = (
        r"^tavaal trial 3: a device's memory, \d+\.\d GiB, is full \(RESOURCE_EXHAUSTED: .*\):"
        r" lower batch_size \(16\), score_batch_size \(128\) or the networks' widths in a new"
        r" --workdir"
    )
    with (
        pytest.raises(OutOfMemory, match=line) as caught,
        memory.explain_full("tavaal trial 3", mend),
    ):
        jax.block_until_ready(jnp.zeros((2**44,), jnp.float32))
    assert str(caught.value).endswith("give --config.data_placement=streamed") == is_a_mend
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, TrialError)
    again = pickle.loads(pickle.dumps(caught.value))  # A worker sends it.
    assert (str(again), again.mend) == (str(caught.value), caught.value.mend)


@pytest.mark.parametrize(
    "error", [jax.errors.JaxRuntimeError("INTERNAL: no such kernel"), ValueError("ours")]
)
def test_any_other_fault_stays_what_it_is(error):
    with pytest.raises(type(error)) as caught, memory.explain_full("a trial", "mend"):
        raise error
    assert caught.value is error


def test_of_several_processes_one_alone_is_lost_by_the_others(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(jax.errors.JaxRuntimeError), memory.explain_full("a trial", "mend"):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")


def test_a_trial_that_does_not_fit_leaves_the_others_alone(tmp_path):
    config = config_of(**{"discriminator.hidden": HUGE})
    config.update(methods="random,vaal", trials=1)
    for _ in range(2):  # The second time only what is left is tried.
        with pytest.raises(UserError, match=r"^vaal trial 0: a device's memory, .* is full"):
            tavaal_jax.run_study(config, tmp_path)
    assert [row["method"] for row in read_csv(tmp_path / "results.csv")] == ["random"] * 2


ALONE = """
import sys, faulthandler
faulthandler.dump_traceback_later(300, exit=True)  # It waited for ever once.
import tavaal_jax as tv
from configs import moons

config = moons.get_config()
config.update(methods="vaal,random", trials=1, cycles=2, epochs=2)
config.discriminator.hidden = (2_000_000, 2_000_000)
config.parallel = sys.argv[2]
try:
    tv.run_study(config, sys.argv[1])
except tv.UserError as error:
    print(error)
"""


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["devices", "trials"])
def test_one_device_alone_says_it_too(parallel, tmp_path, compiled):
    flags = os.environ["XLA_FLAGS"].replace("count=4", "count=1")
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_COMPILATION_CACHE_DIR": str(compiled)}
    done = subprocess.run(
        [sys.executable, "-c", ALONE, tmp_path, parallel], cwd=ROOT, env=environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("vaal trial 0: a device's memory, ")
    assert "in a new --workdir, or give --config.data_placement=streamed" in done.stdout
    assert [row["method"] for row in read_csv(tmp_path / "results.csv")] == ["random"] * 2


@pytest.mark.slow
def test_a_trial_that_has_failed_leaves_nothing_on_the_devices(tmp_path):
    """Its error is kept to the end of the study, and must not keep the trial's weights."""
    config = config_of(**{"vae.learning_rate": 1e38, "discriminator.hidden": (700, 700)})
    config.update(methods="vaal", trials=2)
    held = []

    def watch(event):
        if "the other trials go on" in event.text:
            gc.collect()
            held.append(sum(x.nbytes for x in jax.live_arrays()))

    gc.collect()
    before = sum(x.nbytes for x in jax.live_arrays())
    with pytest.raises(UserError, match="2 faults"):
        tavaal_jax.run_study(config, tmp_path, progress=watch)
    assert len(held) == 2
    weights = 700 * 700 * 4
    assert max(held) - before < weights * jax.device_count()


def test_a_query_that_does_not_fit_says_so(rng):
    config = config_of(**{"discriminator.hidden": HUGE})
    images = rng.normal(size=(60, 2))
    labels = [0, 1] * 10 + [-1] * 40
    known = tavaal_jax.Dataset.from_arrays(images, labels)
    with pytest.raises(OutOfMemory, match=r"^training vaal: a device's memory, .* is full"):
        tavaal_jax.query(config, known, method="vaal", budget=3)
    picks = tavaal_jax.query(config, known, method="random", budget=3)
    assert len(picks.indices) == 3
