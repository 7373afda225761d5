"""Devices: the same result on any number of them, and a value that is not averaged is noticed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import several_devices

from tavaal_jax.algorithm import losses
from tavaal_jax.engine import devices


@pytest.mark.parametrize("number", [1, 2, 4])
def test_layout_deals_out_every_position_and_keeps_global_pairs(number):
    layout = devices.layout(16, number)
    assert sorted(layout.ravel()) == list(range(16))
    for part in layout:
        np.testing.assert_array_equal(part + part[::-1], 15)


@pytest.mark.parametrize("number", [2, 4])
def test_ranking_loss_over_devices_is_the_global_one(number, rng):
    predicted, true = rng.normal(size=(2, 16)).astype(np.float32)
    layout = devices.layout(16, number)
    local = [losses.ranking(predicted[part], true[part]) for part in layout]
    np.testing.assert_allclose(np.mean(local), losses.ranking(predicted, true), rtol=1e-6)
    naive = [losses.ranking(p, t) for p, t in
             zip(np.split(predicted, number), np.split(true, number), strict=True)]  # fmt: skip
    assert abs(np.mean(naive) - losses.ranking(predicted, true)) > 1e-3


def test_batch_that_cannot_be_dealt_out_is_refused():
    with pytest.raises(ValueError, match="12 is not a multiple of 8"):
        devices.layout(12, 4)


def test_batches_are_split_as_the_layout_says():
    rows = np.arange(48).reshape(3, 16)
    parts, number = devices.split(rows), jax.device_count()
    assert parts.shape == (number, 3, 16 // number)
    assert parts.flags.c_contiguous
    for device, positions in enumerate(devices.layout(16, number)):
        np.testing.assert_array_equal(parts[device], rows[:, positions])


def test_what_is_placed_lies_on_every_device_and_can_be_restored_there():
    tree = {"a": np.arange(3, dtype=np.float32), "b": (np.int32(7),)}
    placed = devices.place(tree)
    jax.tree.map(np.testing.assert_array_equal, placed, tree)
    shapes = devices.replicated_shapes(jax.eval_shape(lambda: jax.tree.map(jnp.asarray, tree)))
    for array, shape in zip(jax.tree.leaves(placed), jax.tree.leaves(shapes), strict=True):
        assert array.sharding.device_set == set(jax.local_devices())
        assert (array.shape, array.dtype) == (shape.shape, shape.dtype)
        assert array.sharding == shape.sharding


def step(state, data, key, shared, batch):
    """Moves the state by the mean of the batch's images and draws one number per position."""
    keys = jax.vmap(lambda p: jax.random.fold_in(key, p))(batch["positions"])
    noise = jax.vmap(jax.random.uniform)(keys)
    moved = jnp.mean(data[batch["rows"]] * noise) * shared["rate"]
    return state + devices.mean(moved), {"moved": devices.mean(moved)}


def arguments(count):
    rows = np.resize(np.arange(24, dtype=np.int32), (5, 8))
    batches = {"rows": rows, "positions": np.tile(np.arange(8, dtype=np.int32), (5, 1))}
    shared = {"rate": np.linspace(1, 2, 5, dtype=np.float32)}
    data = devices.place(np.arange(24, dtype=np.float32) ** 2)
    state = devices.place(np.float32(0))
    return state, data, jax.random.key(0), shared, batches, count


def test_train_program_runs_count_steps_and_is_traced_once():
    program = devices.train_program(step, "moving")
    state, metrics, agree = program(*arguments(5))
    assert agree
    keys = jax.vmap(lambda p: jax.random.fold_in(jax.random.key(0), p))(np.arange(8))
    noise = np.asarray(jax.vmap(jax.random.uniform)(keys))
    rows = np.resize(np.arange(24), (5, 8))
    expected = (rows**2 * noise).mean(1) * np.linspace(1, 2, 5)
    np.testing.assert_allclose(metrics["moved"], expected, rtol=1e-5)
    np.testing.assert_allclose(state, expected.sum(), rtol=1e-5)
    state, metrics, _ = program(*arguments(3))
    np.testing.assert_allclose(state, expected[:3].sum(), rtol=1e-5)
    np.testing.assert_array_equal(metrics["moved"][3:], 0)


def test_new_shapes_are_an_error_and_no_silent_compilation():
    program = devices.train_program(step, "reshaped")
    program(*arguments(2))
    state, data, key, shared, batches, count = arguments(2)
    shorter = jax.tree.map(lambda x: x[:4], (shared, batches))
    with pytest.raises(AssertionError, match="traced > 1 times"):
        program(state, data, key, *shorter, count)


@several_devices
@pytest.mark.parametrize("forgotten", ["state", "metric"])
def test_a_value_returned_without_pmean_is_noticed(forgotten):
    def careless(state, data, key, shared, batch):
        moved = jnp.mean(data[batch["rows"]])
        mean = devices.mean(moved)
        if forgotten == "state":
            return state + moved, {"moved": mean}
        return state + mean, {"moved": moved}

    program = devices.train_program(careless, f"careless_{forgotten}")
    _, _, agree = program(*arguments(2))
    with pytest.raises(RuntimeError, match="not averaged over devices"):
        devices.check_agreement(agree, "careless")


@pytest.mark.parametrize("count", [1, 7, 8, 21])
def test_map_program_gives_every_index_once_in_order(count):
    data = {"x": devices.place(np.arange(40, dtype=np.float32) ** 2)}
    program = devices.map_program(lambda scale, e: (e["x"] * scale, -e["x"]), f"map{count}", 2)
    indices = np.random.default_rng(1).permutation(40)[:count]
    parts = list(program(np.float32(3), data, indices))
    first, second = (np.concatenate(x) for x in zip(*parts, strict=True))
    np.testing.assert_allclose(first, 3.0 * indices**2)
    np.testing.assert_allclose(second, -1.0 * indices**2)


def test_results_are_put_in_order_whatever_device_answered_first():
    wanted = np.array([5, 3, 9])
    gathered = np.array([[9, 5], [3, 5]])  # The last 5 is padding.
    found = devices._in_order(wanted, (gathered, {"x": gathered * 10}))
    np.testing.assert_array_equal(found["x"], [50, 30, 90])
