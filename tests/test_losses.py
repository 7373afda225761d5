"""The paper's equations against numbers computed by hand."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from tavaal_jax.algorithm import losses


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def test_cross_entropy():
    logits = jnp.array([[0.0, math.log(3.0)], [2.0, 2.0]])
    expected = [-math.log(3 / 4), math.log(2)]
    np.testing.assert_allclose(losses.cross_entropy(logits, jnp.array([1, 0])), expected, rtol=1e-6)


def test_ranking_pairs_first_with_last():
    # Pairs (0, 3) and (1, 2). l_0 < l_3: I = 0; l_1 > l_2: I = 1.
    predicted = jnp.array([1.0, 0.5, -0.5, 3.0])
    true = jnp.array([0.1, 0.9, 0.2, 0.7])
    expected = -(math.log(1 - sigmoid(1.0 - 3.0)) + math.log(sigmoid(0.5 + 0.5))) / 2
    np.testing.assert_allclose(losses.ranking(predicted, true), expected, rtol=1e-6)


def test_ranking_counts_equal_losses_as_not_larger():
    expected = -math.log(1 - sigmoid(2.0))
    value = losses.ranking(jnp.array([2.0, 0.0]), jnp.array([0.5, 0.5]))
    np.testing.assert_allclose(value, expected, rtol=1e-6)


def test_margin():
    # d_0 = 1 - 3 = -2 with I = -1: max(0, -2 + 1) = 0; d_1 = 1 with I = -1: 1 + 1 = 2.
    predicted = jnp.array([1.0, 0.5, -0.5, 3.0])
    true = jnp.array([0.1, 0.2, 0.9, 0.7])
    np.testing.assert_allclose(losses.margin(predicted, true), 1.0, rtol=1e-6)


@pytest.mark.parametrize("loss", [losses.ranking, losses.margin])
def test_no_gradient_reaches_the_true_losses(loss):
    predicted, true = jnp.array([1.0, 0.5, -0.5, 3.0]), jnp.array([0.1, 0.9, 0.2, 0.7])
    assert jnp.all(jax.grad(loss, argnums=1)(predicted, true) == 0)
    assert jnp.any(jax.grad(loss, argnums=0)(predicted, true) != 0)


@pytest.mark.parametrize("loss", [losses.ranking, losses.margin])
def test_odd_batch_is_refused(loss):
    with pytest.raises(AssertionError):
        loss(jnp.zeros(3), jnp.zeros(3))


def test_normalised_rank_has_no_gradient():
    value, gradient = jax.value_and_grad(losses.normalised_rank)(2.0)
    np.testing.assert_allclose(value, sigmoid(2.0), rtol=1e-6)
    assert gradient == 0


def test_reconstruction_is_the_mean_over_all_entries():
    images = jnp.zeros((2, 1, 2, 1)).at[0, 0, 1, 0].set(4.0)
    np.testing.assert_allclose(losses.reconstruction(images, jnp.zeros((2, 1, 2, 1))), 4.0)


def test_kl_of_two_gaussians():
    mean, log_variance = jnp.array([[1.0, 0.0]]), jnp.array([[0.0, math.log(4.0)]])
    expected = (0.5 + 0.5 * (4 - 1 - math.log(4))) / 2
    np.testing.assert_allclose(losses.kl_divergence(mean, log_variance), expected, rtol=1e-6)
    np.testing.assert_allclose(losses.kl_divergence(jnp.zeros((3, 2)), jnp.zeros((3, 2))), 0.0)


def test_adversarial_wants_both_pools_to_look_labelled():
    labelled, unlabelled = jnp.array([0.0, 2.0]), jnp.array([1.0, -1.0])
    expected = -(math.log(0.5) + math.log(sigmoid(2))) / 2
    expected -= (math.log(sigmoid(1)) + math.log(sigmoid(-1))) / 2
    np.testing.assert_allclose(losses.adversarial(labelled, unlabelled), expected, rtol=1e-6)


def test_discriminator_tells_the_pools_apart():
    labelled, unlabelled = jnp.array([0.0, 2.0]), jnp.array([1.0, -1.0])
    expected = -(math.log(0.5) + math.log(sigmoid(2))) / 2
    expected -= (math.log(1 - sigmoid(1)) + math.log(1 - sigmoid(-1))) / 2
    np.testing.assert_allclose(losses.discriminator(labelled, unlabelled), expected, rtol=1e-6)


def test_losses_stay_finite_where_a_sigmoid_saturates():
    far = jnp.array([200.0, -200.0])
    np.testing.assert_allclose(losses.discriminator(far, far), 200.0, rtol=1e-6)
    np.testing.assert_allclose(losses.adversarial(far, far), 200.0, rtol=1e-6)


def test_relabelled_states_are_soft_targets():
    # sigmoid(ln 3) = 3/4: -log D(L) = ln 4/3; U: u log 4 + (1 - u) log 4/3 with u = 1/4, then 1.
    logit = jnp.log(jnp.array([3.0, 3.0]))
    found = losses.relabelled_discriminator(logit, logit, jnp.array([0.25, 1.0]))
    log4, log43 = np.log(4.0), np.log(4 / 3)
    expected = log43 + (0.25 * log4 + 0.75 * log43 + log4) / 2
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    vaal = losses.discriminator(logit, logit)
    relabelled = losses.relabelled_discriminator(logit, logit, jnp.ones(2))
    np.testing.assert_allclose(relabelled, vaal, rtol=1e-6)
    gradient = jax.grad(losses.relabelled_discriminator, argnums=2)(logit, logit, jnp.ones(2))
    np.testing.assert_array_equal(gradient, 0)


def test_balanced_weights_are_scikit_learns():
    labels = np.array([2, 0, 2, 2, 0, 4])
    expected = compute_class_weight("balanced", classes=np.array([0, 2, 4]), y=labels)
    np.testing.assert_allclose(losses.balanced_weights(labels, 6)[[0, 2, 4]], expected, rtol=1e-6)
    np.testing.assert_array_equal(losses.balanced_weights(labels, 6)[[1, 3, 5]], 0)
