"""Examples read ahead: those that the plan names, in its order, and a study that is the same."""

import threading

import jax
import numpy as np
import pytest
from conftest import read_csv
from trials import config_of, dataset

from tavaal_jax.algorithm.methods import METHODS
from tavaal_jax.data.feed import Ahead, feed
from tavaal_jax.data.plans import Given, More, Plan
from tavaal_jax.data.pool import Normaliser, Resident, Streamed
from tavaal_jax.engine import devices
from tavaal_jax.study import setup
from tavaal_jax.study.study import run_study

LAST, SIZE, BATCH = 23, 40, 4


@pytest.fixture
def pool(tmp_path, rng):
    """Images on a disk."""
    images = rng.integers(0, 256, (SIZE, 5, 5, 3), np.uint8)
    np.save(tmp_path / "images.npy", images)
    mapped = np.load(tmp_path / "images.npy", "r")
    return Streamed(mapped, np.arange(SIZE, dtype=np.int32), Normaliser.of(images))


def plan(first, count):
    """Rows that tell their step."""
    rows = lambda role: (
        (np.arange(first, first + count)[:, None] * 7 + np.arange(BATCH) + role) % 40
    )
    more = np.stack([rows(2), rows(3)], axis=-1)
    return Plan(rows(0), rows(1), np.tile(np.arange(BATCH), (count, 1)), More(more, more + 0))


@pytest.mark.parametrize("first", [0, 11])
def test_the_examples_of_a_plan_are_given_in_its_order(pool, first):
    told = {"rank": np.arange(SIZE)[:, None] * 2.0}
    ahead = Ahead(plan, pool, told, LAST, 5)
    at = first
    for count in (1, 2, 4, 3):  # As a pace changes.
        wanted, found = plan(at, count), ahead(at, count)
        pairs = [(wanted.labelled, found.labelled), (wanted.unlabelled, found.unlabelled)]
        pairs += zip(wanted.more, found.more, strict=True)
        for rows, given in pairs:
            assert isinstance(given, Given)
            np.testing.assert_array_equal(given.image, pool.images[rows])
            np.testing.assert_array_equal(given.label, rows)
            np.testing.assert_array_equal(given.told["rank"], told["rank"][rows])
        np.testing.assert_array_equal(found.positions, wanted.positions)
        at += count
    ahead.close()


def test_no_more_is_read_than_was_asked_for_ahead(pool):
    read = []

    def spied(first, count):
        read.append((first, first + count))
        return plan(first, count)

    ahead = Ahead(spied, pool, None, LAST, 5)
    ahead(0, 2)
    ahead(2, 2)
    ahead(4, 2)
    assert read == [(0, 7), (7, 9), (9, 11)]
    ahead(6, 10)
    ahead(16, 7)
    assert read[3:] == [(11, 21), (21, LAST)]
    ahead.close()


def test_waiting_is_counted_and_forgotten(pool):
    go = threading.Event()

    class Slow(np.ndarray):
        """Images that come when `go` is set."""

        def take(self, *args, **kwargs):
            go.wait(10)
            return np.asarray(self).take(*args, **kwargs)

    slow = pool.replace(images=np.asarray(pool.images).view(Slow))
    ahead = Ahead(plan, slow, None, LAST, 2)
    threading.Timer(0.2, go.set).start()
    ahead(0, 1)
    assert ahead.take_waited() > 0.1
    assert ahead.take_waited() == 0
    ahead.close()


def test_what_cannot_be_read_is_raised_where_it_is_needed(pool):
    beyond = lambda first, count: plan(first, count)._replace(labelled=np.full((count, 2), SIZE))
    ahead = Ahead(beyond, pool, None, LAST, 2)
    with pytest.raises(IndexError):
        ahead(0, 1)
    ahead.close()


def test_resident_data_keep_their_plan_and_streamed_ones_leave_the_pool_behind(pool):
    resident = Resident(pool.images, pool.labels, pool.normalise)
    with feed(resident, None, plan, (LAST, 5)) as (data, fed, waited):
        assert data[0] is resident
        assert fed is plan
        assert waited() == 0
    with feed(pool, None, plan, (LAST, 5)) as (data, fed, _):
        assert data[0].images is data[0].labels is None
        assert isinstance(fed(0, 3).labelled, Given)


@pytest.mark.parametrize("count", [1, 7, 40])
def test_a_pool_in_host_memory_is_mapped_like_one_on_the_devices(count):
    data = {"x": np.arange(40, dtype=np.float32) ** 2, "n": np.arange(40)}
    function = lambda scale, e: (e["x"] * scale, e["n"])
    program = devices.map_program(function, f"streamed{count}", 2)
    indices = np.random.default_rng(1).permutation(40)[:count]
    parts = {
        where: [np.concatenate(x) for x in zip(*program(np.float32(3), tree, indices), strict=True)]
        for where, tree in (("host", data), ("devices", devices.place(data)))
    }
    jax.tree.map(np.testing.assert_array_equal, parts["host"], parts["devices"])
    np.testing.assert_array_equal(parts["host"][1], indices)


@pytest.mark.parametrize(
    ("asked", "memory", "kind"),
    [("auto", 10**9, Resident), ("auto", 1000, Streamed), ("resident", 1000, Resident),
     ("streamed", 10**9, Streamed)],
)  # fmt: skip
def test_data_that_do_not_fit_stay_where_they_are(monkeypatch, asked, memory, kind):
    monkeypatch.setattr(devices, "memory", lambda: memory)
    placed = setup.place(config_of(feed=asked), dataset())
    assert [type(one) for one in placed] == [kind, kind]


def test_a_device_has_memory():
    assert devices.memory() > 10**8


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("tavaal", {}),
        ("tavaal", {"schedule": "two_phase", "vae.unlabelled": "subset"}),
        ("sraal", {"vae.updates": 3}),
        ("badge", {}),
        ("coreset", {}),
        ("mc_dropout", {"mc_dropout.passes": 3}),
    ],
)
def test_a_streamed_study_is_the_resident_one(tmp_path, method, changes):
    assert method in METHODS
    for how in ("resident", "streamed"):
        config = config_of(methods=method, trials=1, cycles=3, feed=how, **changes)
        run_study(config, tmp_path / how)
    for name in ("results.csv", "picks.csv"):
        one, other = (
            (tmp_path / how / method / "trial_0" / name).read_bytes()
            for how in ("resident", "streamed")
        )
        assert one == other
    rows = [read_csv(tmp_path / how / method / "trial_0" / "diagnostics.csv")
            for how in ("resident", "streamed")]  # fmt: skip
    timeless = [[{k: v for k, v in r.items() if "seconds" not in k} for r in t] for t in rows]
    assert timeless[0] == timeless[1]
