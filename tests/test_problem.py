"""Votes and uncertainties against values computed by hand."""

import jax.numpy as jnp
import numpy as np
import pytest
from tavaal_jax.problem import Classification


def votes_of(probabilities):
    votes = [Classification().vote(jnp.log(jnp.array(p))) for p in probabilities]
    return {name: np.mean([v[name] for v in votes], axis=0) for name in votes[0]}


@pytest.mark.parametrize(
    ("probabilities", "max_entropy", "bald", "variation_ratios"),
    [
        # Certain and agreed; undecided and agreed; certain and contradicting itself.
        ([[0.999999, 0.000001]] * 4, 0.0, 0.0, 0.0),
        ([[0.5, 0.5]] * 4, np.log(2), 0.0, 0.0),
        ([[0.999999, 0.000001]] * 2 + [[0.000001, 0.999999]] * 2, np.log(2), np.log(2), 0.5),
        # Mean (0.6, 0.4): H = 0.673012; mean of the entropies 0.500402 and 0.673012.
        ([[0.8, 0.2], [0.4, 0.6]], 0.673012, 0.673012 - (0.500402 + 0.673012) / 2, 0.5),
    ],
)
def test_uncertainties(probabilities, max_entropy, bald, variation_ratios):
    votes, of = votes_of(probabilities), Classification().uncertainty
    np.testing.assert_allclose(of("max_entropy", votes), max_entropy, atol=3e-5)
    np.testing.assert_allclose(of("bald", votes), bald, atol=3e-5)
    np.testing.assert_allclose(of("variation_ratios", votes), variation_ratios, atol=1e-6)
