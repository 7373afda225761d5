"""The simulation's oracle."""

import numpy as np
import pytest

from tavaal_jax.data.labels import Known


def test_known_answers_at_once_and_reveals_the_same():
    oracle, asked = Known([3, 1, 2, 0]), np.array([2, 0, 2])
    for answers in (oracle.answer(asked), oracle.reveal(asked)):
        np.testing.assert_array_equal(answers, [2, 3, 2])
        assert answers.dtype == np.int32
    assert oracle.answer(np.array([], int)).shape == (0,)


def test_an_unknown_label_is_not_known():
    with pytest.raises(ValueError, match="-1 is not one"):
        Known(np.array([0, 1, -1]))
