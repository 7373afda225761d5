"""What makes network input of stored images."""

import jax.numpy as jnp
import numpy as np
import pytest

from tavaal_jax.data import pool
from tavaal_jax.data.pool import LabelMaps, Normaliser, Resident, Streamed


def test_the_statistics_are_those_of_each_channel(rng):
    images = rng.integers(0, 256, (50, 4, 5, 3), np.uint8)
    normalise = Normaliser.of(images)
    assert normalise.mean.shape == normalise.std.shape == (1, 1, 3)
    assert normalise.mean.dtype == normalise.std.dtype == np.float32
    pixels = images.reshape(-1, 3).astype(np.float64)
    np.testing.assert_allclose(normalise.mean.ravel(), pixels.mean(0), rtol=1e-6)
    np.testing.assert_allclose(normalise.std.ravel(), pixels.std(0), rtol=1e-6)
    one = np.asarray(normalise(jnp.asarray(images[7])))
    assert one.dtype == np.float32
    np.testing.assert_allclose(one, (images[7] - pixels.mean(0)) / pixels.std(0), rtol=1e-4)


def test_nothing_is_seen_of_a_map_that_is_not_known(rng):
    maps, known = rng.integers(0, 4, (5, 3, 2)).astype(np.uint8), np.array([1, 0, 1, 0, 0], bool)
    pixels = rng.integers(1, 9, (5, 4)).astype(np.int32)
    none = Streamed(maps, LabelMaps(maps, pixels, np.zeros(5, bool)), None)
    labels = pool.with_labels(none, np.where(known, 0, -1)).labels
    seen, counts = labels.visible()
    np.testing.assert_array_equal(seen[known], maps[known])
    np.testing.assert_array_equal(counts[known], pixels[known])
    assert (np.asarray(seen)[~known] == 255).all()
    assert not np.asarray(counts)[~known].any()
    poisoned = labels.replace(maps=np.where(known[:, None, None], maps, 77).astype(np.uint8))
    np.testing.assert_array_equal(poisoned.visible()[0], seen)


def test_features_have_statistics_of_their_own(rng):
    features = (rng.normal(size=(200, 2)) * [1, 5] + [3, -1]).astype(np.float32)
    normalise = Normaliser.of(features)
    assert normalise.mean.shape == (2,)
    out = np.stack([normalise(jnp.asarray(x)) for x in features[:100]])
    np.testing.assert_allclose(
        out, (features[:100] - features.mean(0)) / features.std(0), atol=1e-5
    )


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_statistics_are_gathered_part_by_part(monkeypatch, rng, dtype):
    stored = rng.integers(0, 256, (23, 3)).astype(dtype)
    if dtype == np.uint8:
        stored = stored.reshape(23, 1, 1, 3)
    whole = Normaliser.of(stored)
    monkeypatch.setattr(pool, "_ROWS", 5)
    parts = Normaliser.of(stored)
    np.testing.assert_array_equal(parts.mean, whole.mean)
    np.testing.assert_array_equal(parts.std, whole.std)
    np.testing.assert_allclose(parts.mean.ravel(), stored.reshape(23, 3).mean(0), rtol=1e-6)


def test_a_constant_channel_is_not_divided_by_zero():
    images = np.zeros((3, 2, 2, 2), np.uint8)
    images[..., 1] = np.arange(3)[:, None, None]
    normalise = Normaliser.of(images)
    np.testing.assert_array_equal(normalise.std[..., 0], 1)
    np.testing.assert_array_equal(normalise(jnp.asarray(images[0]))[..., 0], 0)


@pytest.mark.parametrize("channels", [1, 3])
def test_constants_are_in_units_of_0_to_1(channels):
    mean, deviation = (0.5,) * channels, (0.25,) * channels
    normalise = Normaliser.constant(mean, deviation)
    assert normalise.mean.shape == (1, 1, channels)
    image = jnp.full((4, 4, 3), 255, jnp.uint8)
    np.testing.assert_allclose(normalise(image), np.full((4, 4, 3), 2.0), rtol=1e-6)


def test_plain_images_are_normalised_and_in_the_order_asked_for(rng):
    images = rng.integers(0, 256, (6, 2, 2, 1), np.uint8)
    pool = Resident(jnp.asarray(images), np.full(6, -1, np.int32), Normaliser.of(images))
    wanted = np.array([4, 0, 4])
    expected = [pool.normalise(jnp.asarray(images[i])) for i in wanted]
    np.testing.assert_allclose(pool.plain(wanted), np.stack(expected), rtol=1e-6)
