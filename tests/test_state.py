"""Keys of places in a run, keys of examples, the labelled pool of a cycle."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tavaal_jax.algorithm.state import LoopState, Stream, derive, example_keys

KEY = jax.random.key(3)


def bits(keys):
    return np.asarray(jax.random.key_data(keys))


def test_derive_folds_in_one_number_after_the_other():
    expected = jax.random.fold_in(jax.random.fold_in(jax.random.fold_in(KEY, 2), 10), 7)
    np.testing.assert_array_equal(bits(derive(KEY, 2, 10, 7)), bits(expected))
    np.testing.assert_array_equal(bits(derive(derive(KEY, 2), 10, 7)), bits(expected))
    np.testing.assert_array_equal(bits(derive(KEY)), bits(KEY))
    assert (bits(derive(KEY, 10, 2, 7)) != bits(expected)).any()


@pytest.mark.parametrize("number", [10, Stream.AUGMENTATION, np.int32(10), jnp.int32(10)])
def test_derive_takes_any_kind_of_number_also_inside_a_program(number):
    expected = bits(jax.random.fold_in(KEY, 10))
    np.testing.assert_array_equal(bits(derive(KEY, number)), expected)
    np.testing.assert_array_equal(bits(jax.jit(derive)(KEY, number)), expected)


def test_every_stream_of_every_cycle_has_its_own_key():
    keys = [bits(derive(KEY, stream, cycle)) for stream in Stream for cycle in range(3)]
    assert len(np.unique(keys, axis=0)) == 3 * len(Stream)


def test_streams_keep_their_numbers():
    """With another number, the same config and seed would give other results."""
    assert {stream.name: stream.value for stream in Stream} == {
        "INITIAL": 0,
        "SUBSET": 1,
        "LEARNER": 2,
        "RANKER": 3,
        "VAE": 4,
        "DISCRIMINATOR": 5,
        "LABELLED_ORDER": 6,
        "UNLABELLED_ORDER": 7,
        "TRAINING": 8,
        "VALUES": 9,
        "AUGMENTATION": 10,
        "LATENT": 11,
        "FIRST_RANKS": 12,
        "DROPOUT": 13,
        "PICKS": 14,
        "UPDATES": 15,
        "WINDOWS": 16,
    }


def test_an_examples_key_depends_on_its_position_alone():
    positions = jnp.array([4, 0, 9, 2])
    keys = bits(example_keys(KEY, positions))
    for key, position in zip(keys, positions, strict=True):
        np.testing.assert_array_equal(key, bits(jax.random.fold_in(KEY, position)))
    # As two devices would have it.
    halves = [bits(example_keys(KEY, half)) for half in (positions[:2], positions[2:])]
    np.testing.assert_array_equal(np.concatenate(halves), keys)
    assert len(np.unique(keys, axis=0)) == 4


@pytest.mark.parametrize(
    ("cycle", "labelled"), [(0, [1, 0, 0, 0]), (1, [1, 1, 0, 0]), (2, [1, 1, 1, 0])]
)
def test_an_image_is_labelled_from_the_cycle_on_in_which_its_label_has_come(cycle, labelled):
    nothing = np.zeros(4, np.int32)
    state = LoopState(
        cycle=cycle, stage="joint", step=0, labels=nothing,
        labelled_in=np.array([0, 1, 2, -1], np.int32), picked_in=nothing, pick_rank=nothing,
        pick_score=nothing, results=nothing, counts=nothing, learner=None, adversary=None,
    )  # fmt: skip
    np.testing.assert_array_equal(state.labelled, labelled)
