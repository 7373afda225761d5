"""Features of images by a frozen backbone: the same whatever is beside an image."""

import dataclasses

import jax
import numpy as np
import pytest
import tiny_backbone
from PIL import Image

import tavaal_jax
from tavaal_jax.engine.embedding import Embedder, check
from tavaal_jax.errors import OutOfMemory, UserError
from tavaal_jax.models.backbones import load_backbone


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(tavaal_jax.NETWORKS, tiny_backbone.NAME, tiny_backbone.row())
        yield tiny_backbone.write(tmp_path_factory.mktemp("weights") / "tiny.npz")


@pytest.fixture(scope="module")
def embedder(weights):
    return Embedder(load_backbone(tiny_backbone.NAME, weights))


def pictures(count, shape=(8, 8, 3)):
    return np.random.default_rng(count).integers(0, 256, (count, *shape), np.uint8)


def test_features_are_the_networks_of_normalised_images(embedder, weights):
    images = pictures(70)
    found = embedder.over(images)
    assert (found.shape, found.dtype) == ((70, tiny_backbone.FEATURES), np.float32)
    np.testing.assert_allclose(found, tiny_backbone.expected(images, weights), atol=1e-5)


def test_they_do_not_depend_on_the_other_images(embedder):
    images = pictures(40)
    every = embedder.over(images)
    order = np.random.default_rng(0).permutation(40)
    np.testing.assert_array_equal(embedder.over(images[order]), every[order])
    for row in (0, 17, 39):
        np.testing.assert_array_equal(embedder.over(images[row : row + 1])[0], every[row])


def test_other_sizes_are_resized_and_grey_has_three_channels(embedder):
    grey = pictures(3, (8, 8, 1))
    colours = np.repeat(grey, 3, -1)
    np.testing.assert_array_equal(embedder.over(grey), embedder.over(colours))
    large = pictures(3, (20, 33, 3))
    resized = [Image.fromarray(one).resize((8, 8), Image.Resampling.BILINEAR) for one in large]
    np.testing.assert_allclose(
        embedder.over(large), embedder.over(np.stack(list(map(np.asarray, resized)))), atol=0.02
    )
    flat = np.full((1, 3, 5, 3), 77, np.uint8)
    np.testing.assert_allclose(
        embedder.over(flat), embedder.over(np.full((1, 8, 8, 3), 77, np.uint8)), atol=1e-5
    )


def first(images):
    """The first values of each image, as many as there are features."""
    return images.reshape(len(images), -1)[:, : tiny_backbone.FEATURES].astype(np.float32)


def full(most, message="RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes"):
    """A program that has memory for so many images, and how many it was given each time."""
    seen = []

    def program(variables, images):
        seen.append(len(images))
        if len(images) > most:
            raise jax.errors.JaxRuntimeError(message)
        return first(images)

    return program, seen


def test_a_device_that_is_full_gets_half_as_many_images(embedder):
    images, one = pictures(21), Embedder(embedder.backbone)
    count = one._devices
    one.at_once, (one._program, seen) = 8 * count, full(2 * count)
    np.testing.assert_array_equal(one.over(images), first(images))
    assert (seen[0], seen[-1], one.at_once) == (8 * count, 2 * count, 2 * count)
    one._program, _ = full(0)
    with pytest.raises(OutOfMemory, match=r"features by tiny_backbone: .* give a smaller backbone"):
        one.over(images)
    assert one.at_once == count
    one._program, _ = full(0, "INTERNAL: a fault")
    with pytest.raises(jax.errors.JaxRuntimeError, match="a fault"):
        one.over(images)


def test_of_larger_images_fewer_are_at_a_time(embedder, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    count = len(jax.local_devices())
    for size, each in ((8, 64), (224, 64), (448, 16), (518, 11), (4096, 1)):
        larger = dataclasses.replace(embedder.backbone, image_size=size)
        assert Embedder(larger).at_once == each * count


def test_no_image_is_no_feature(embedder):
    assert embedder.over(pictures(1)[:0]).shape == (0, tiny_backbone.FEATURES)


@pytest.mark.parametrize("shape", [(4, 8), (4, 8, 8), (4, 8, 8, 4)])
def test_what_is_no_image_is_one_line(shape):
    with pytest.raises(UserError, match=r"a backbone takes \[n, H, W, C\]"):
        check(shape)
