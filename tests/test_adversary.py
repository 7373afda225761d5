"""The step of VAE and D: what is updated by what, what the ranks do, and scores."""

import dataclasses
import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import moons, smoke
from tavaal_jax.algorithm import adversary as adversaries
from tavaal_jax.algorithm import losses
from tavaal_jax.algorithm.adversary import Rank, rank_of, tavaal, vaal
from tavaal_jax.algorithm.learner import LearnerOutput
from tavaal_jax.algorithm.problems import Classification
from tavaal_jax.algorithm.state import PoolBatch, Schedule, derive, example_keys
from tavaal_jax.data.plans import Examples, IndexPlan
from tavaal_jax.data.pool import Normaliser
from tavaal_jax.engine import steps

KEY = derive(jax.random.key(0), 0)
SHAPE, CLASSES = (8, 8, 1), 10
IMAGES = jax.random.normal(jax.random.key(1), (16, *SHAPE))
PREDICTED = (jnp.linspace(-2, 2, 8), jnp.linspace(3, -3, 8))


def said(predicted):
    """What T and R say, as far as ranks need it."""
    return LearnerOutput(jnp.zeros((1, 2)), jnp.zeros((1, 2)), predicted)


def built(make=tavaal, **changes):
    config = smoke.get_config()
    config.update_from_flattened_dict(changes)
    return make(config, Classification.of(config, CLASSES), SHAPE)


def halves(adversary):
    condition = [
        None if adversary.condition_of is None else adversary.condition_of(said(p))
        for p in PREDICTED
    ]
    keys = [example_keys(jax.random.key(number), jnp.arange(8)) for number in range(2)]
    return tuple(map(PoolBatch, (IMAGES[:8], IMAGES[8:]), condition, keys))


@functools.cache
def stepped(make=tavaal):
    """Adversary, state before, halves, state after, metrics."""
    adversary = built(make)
    state = jax.jit(lambda key: adversary.init(key, IMAGES[:1]))(KEY)
    both = halves(adversary)
    return adversary, state, both, *jax.jit(adversary.step)(state, *both)


def differs(a, b):
    leaves = map(jax.tree.leaves, jax.device_get((a, b)))
    return any((x != y).any() for x, y in zip(*leaves, strict=True))


def test_metrics_are_equations_4_to_6():
    adversary, state, (labelled, unlabelled), after, metrics = stepped()
    d_params = {"params": state.discriminator_params}

    @jax.jit
    def outputs(half, params, stats):
        variables = {"params": params, "batch_stats": stats}
        noise = jnp.stack([jax.random.normal(key, (4,)) for key in half.keys])
        return adversary.vae.apply(
            variables,
            half.images,
            noise,
            half.condition.decoder,
            train=True,
            mutable=["batch_stats"],
        )[0]

    decoded, mean, log_variance = outputs(labelled, state.vae_params, state.vae_stats)
    decoded_u, mean_u, log_variance_u = outputs(unlabelled, state.vae_params, state.vae_stats)
    reconstruction = (
        losses.reconstruction(labelled.images, decoded)
        + losses.reconstruction(unlabelled.images, decoded_u)
    ) / 2
    kl = (
        losses.kl_divergence(mean, log_variance) + losses.kl_divergence(mean_u, log_variance_u)
    ) / 2
    judge = jax.jit(
        lambda m, half: adversary.discriminator.apply(d_params, m, half.condition.discriminator)
    )
    adversarial = losses.adversarial(judge(mean, labelled), judge(mean_u, unlabelled))
    np.testing.assert_allclose(metrics["reconstruction"], reconstruction, rtol=1e-5)
    np.testing.assert_allclose(metrics["kl"], kl, rtol=1e-5)
    np.testing.assert_allclose(metrics["adversarial_loss"], adversarial, rtol=1e-5)

    # D learns on latents of the VAE after its update.
    _, mean, _ = outputs(labelled, after.vae_params, after.vae_stats)
    _, mean_u, _ = outputs(unlabelled, after.vae_params, after.vae_stats)
    of_l, of_u = judge(mean, labelled), judge(mean_u, unlabelled)
    expected = losses.discriminator(of_l, of_u)
    np.testing.assert_allclose(metrics["discriminator_loss"], expected, rtol=1e-4)
    accuracy = np.concatenate([of_l > 0, of_u < 0]).mean()
    np.testing.assert_allclose(metrics["discriminator_accuracy"], accuracy)


@pytest.mark.parametrize("make", [tavaal, pytest.param(vaal, marks=pytest.mark.slow)])
def test_a_step_updates_both_networks(make):
    _, state, _, after, metrics = stepped(make)
    assert differs(after.vae_params, state.vae_params)
    assert differs(after.discriminator_params, state.discriminator_params)
    assert all(np.isfinite(value) for value in metrics.values())


def test_weights_of_kl_and_of_the_adversarial_loss():
    """From the gradient of the VAE's total loss on its parts: equation (4) + lambda (5)."""
    adversary, state, both, _, metrics = stepped()
    plain, weighted = (
        dataclasses.replace(
            adversary,
            settings=adversary.settings._replace(beta=beta, adversarial_weight=weight),
        )
        for beta, weight in ((0.0, 0.0), (3.0, 5.0))
    )
    loss = lambda made: jax.jit(lambda s: made.vae_loss(s.vae_params, s, *both)[0])(state)
    expected = 2 * metrics["reconstruction"]
    np.testing.assert_allclose(loss(plain), expected, rtol=1e-5)
    expected += 3 * 2 * metrics["kl"] + 5 * metrics["adversarial_loss"]
    np.testing.assert_allclose(loss(weighted), expected, rtol=1e-5)


def test_both_pools_have_their_own_batch_statistics():
    _, state, (labelled, unlabelled), after, _ = stepped()
    old = state.vae_stats["down_norm_0"]["mean"]
    new = after.vae_stats["down_norm_0"]["mean"]
    assert jnp.any(old != new)
    # Two updates of a running mean that starts at zero: 0.09 of L's and 0.1 of U's.
    kernel = state.vae_params["down_0"]["kernel"]
    means = [
        jax.lax.conv_general_dilated(
            half.images,
            kernel,
            (2, 2),
            ((1, 1), (1, 1)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        ).mean((0, 1, 2))
        for half in (labelled, unlabelled)
    ]
    np.testing.assert_allclose(new, 0.09 * means[0] + 0.1 * means[1], rtol=1e-4, atol=1e-6)


def test_noise_depends_on_the_position_and_differs_between_pools():
    positions = jnp.array([0, 1, 6, 7])
    plan = IndexPlan(None, None, positions)
    schedule = Schedule(jnp.int32(5), None, None, None)
    labels = jnp.arange(4)
    made = SimpleNamespace(learner=SimpleNamespace(problem=Classification(4)))

    def halves(first, count, plan):
        given = lambda begin: Examples(IMAGES[begin : begin + count], labels[:count], None)
        examples = steps.Gathered(given(first), given(4 + first))
        normalise = Normaliser(np.float32(0), np.float32(1))
        return steps.pool_batches(made, examples, (None, None), normalise, KEY, schedule, plan)

    both = halves(0, 4, plan)
    np.testing.assert_array_equal(both[1].images, IMAGES[4:8])
    np.testing.assert_array_equal(both[0].labels, labels)
    np.testing.assert_array_equal(both[1].labels, -1)
    bits = [np.asarray(jax.random.key_data(half.keys)) for half in both]
    assert len(np.unique(np.concatenate(bits), axis=0)) == 8
    again = halves(0, 2, plan._replace(positions=positions[2:]))
    for whole, half in zip(bits, again, strict=True):
        np.testing.assert_array_equal(whole[2:], jax.random.key_data(half.keys))


@pytest.mark.slow
def test_what_devices_must_agree_on_passes_through_mean():
    adversary, state, both, _, _ = stepped()
    seen = []

    def mean(tree):
        seen.append(jax.tree.structure(tree[0]))
        return jax.tree.map(lambda x: x * 0, tree)

    after, metrics = jax.jit(functools.partial(adversary.step, mean=mean))(state, *both)
    assert not differs(after.vae_params, state.vae_params)
    assert not differs(after.discriminator_params, state.discriminator_params)
    assert not any(metrics.values())
    trees = state.vae_params, state.discriminator_params
    assert seen == [jax.tree.structure(tree) for tree in trees]


def test_ranks_are_normalised_for_both_or_raw_for_the_discriminator():
    predicted = said(jnp.array([0.0, 5.0]))
    rank = built().condition_of(predicted)
    np.testing.assert_allclose(rank.decoder[:, 0], jax.nn.sigmoid(jnp.array([0.0, 5.0])))
    np.testing.assert_array_equal(rank.decoder, rank.discriminator)
    raw = built(rank_to_discriminator="raw").condition_of(predicted)
    np.testing.assert_array_equal(raw.discriminator[:, 0], [0.0, 5.0])
    np.testing.assert_array_equal(raw.decoder, rank.decoder)


@pytest.mark.parametrize("raw", [True, False])
def test_no_gradient_reaches_the_ranker_through_a_rank(raw):
    total = lambda p: sum(x.sum() for x in jax.tree.leaves(rank_of(said(p), raw)))
    assert (jax.grad(total)(jnp.array([0.5, -1.0])) == 0).all()


def test_ranks_need_a_ranker():
    with pytest.raises(AttributeError, match="give the method a ranking_loss"):
        rank_of(said(None))


def test_first_ranks_are_uniform_alike_for_both_and_each_examples_own():
    keys = example_keys(KEY, jnp.arange(1000))
    rank = built().initial_condition(keys)
    assert rank.decoder.shape == (1000, 1)
    np.testing.assert_array_equal(rank.decoder, rank.discriminator)
    assert ((rank.decoder >= 0) & (rank.decoder < 1)).all()
    deciles = np.histogram(rank.decoder, 10, (0, 1))[0]
    assert (abs(deciles - 100) < 40).all()
    part = built().initial_condition(keys[300:305])
    np.testing.assert_array_equal(part.decoder, rank.decoder[300:305])


def test_without_ranks_networks_see_latents_alone():
    adversary, state = stepped(vaal)[:2]
    ranked = stepped()[1]
    latent = adversary.vae.latent
    assert adversary.condition_of is None
    assert state.discriminator_params["Dense_0"]["kernel"].shape[0] == latent
    assert ranked.discriminator_params["Dense_0"]["kernel"].shape[0] == latent + 1
    assert state.vae_params["expand"]["kernel"].shape[0] == latent
    assert ranked.vae_params["expand"]["kernel"].shape[0] == latent + 1


def test_every_cycle_has_its_own_first_weights():
    adversary, first = stepped()[:2]
    init = jax.jit(lambda cycle: adversary.init(KEY, IMAGES[:1], cycle))
    again, second = init(0), init(1)
    for name in ("vae_params", "discriminator_params"):
        assert not differs(getattr(first, name), getattr(again, name))
        assert differs(getattr(first, name), getattr(second, name))


def test_a_score_does_not_depend_on_its_neighbours():
    adversary, _, _, state, _ = stepped()
    predicted = jnp.linspace(-1, 1, 12)
    score = jax.jit(lambda x, p: adversary.score(state, x, adversary.condition_of(said(p))))
    together = score(IMAGES[:12], predicted)
    alone = [score(IMAGES[i : i + 1], predicted[i : i + 1]) for i in range(12)]
    np.testing.assert_allclose(together, np.concatenate(alone), rtol=1e-4, atol=1e-6)


def test_a_score_is_the_logit_of_d():
    adversary, _, _, state, _ = stepped()
    images, predicted = IMAGES[:3], jnp.array([-1.0, 0.0, 1.0])
    variables = {"params": state.vae_params, "batch_stats": state.vae_stats}
    encode = functools.partial(adversary.vae.apply, train=False, method="encode")
    mean, _ = jax.jit(encode)(variables, images)
    rank = jax.nn.sigmoid(predicted)[:, None]
    d_params = {"params": state.discriminator_params}
    expected = adversary.discriminator.apply(d_params, mean, rank)
    score = jax.jit(lambda x, p: adversary.score(state, x, adversary.condition_of(said(p))))
    np.testing.assert_allclose(score(images, predicted), expected, rtol=1e-5)
    plain, _, _, state, _ = stepped(vaal)
    assert jax.eval_shape(plain.score, state, images).shape == (3,)


@pytest.mark.parametrize("size", [8, 16])
def test_images_are_resized_to_what_the_vae_sees(size):
    images = IMAGES[:2]
    seen = built(**{"vae.image_size": size}).seen(images)
    assert seen.shape == (2, size, size, 1)
    assert (seen is images) == (size == 8)


def test_features_are_seen_as_they_are():
    config = moons.get_config()
    adversary = tavaal(config, Classification(2), (3,))
    features = jax.random.normal(KEY, (8, 3))
    assert adversary.seen(features) is features
    state = jax.jit(lambda key: adversary.init(key, features[:1]))(KEY)
    keys = [example_keys(jax.random.key(number), jnp.arange(4)) for number in range(2)]
    condition = [adversary.initial_condition(k) for k in keys]
    pair = tuple(map(PoolBatch, (features[:4], features[4:]), condition, keys))
    _, metrics = jax.jit(adversary.step)(state, *pair)
    assert all(np.isfinite(value) for value in metrics.values())
    assert state.vae_stats == {}


def test_halves_of_different_shapes_are_refused():
    adversary, state, (labelled, unlabelled), _, _ = stepped()
    short = jax.tree.map(lambda x: x[:7], unlabelled)
    with pytest.raises(AssertionError):
        adversary.step(state, labelled, short)


def test_settings_are_read_from_a_config():
    config = smoke.get_config()
    config.vae.update(beta=2.0, adversarial_weight=0.5, learning_rate=0.25)
    settings = adversaries.Settings.of(config)
    assert (settings.beta, settings.adversarial_weight) == (2.0, 0.5)
    assert settings.vae == ("adam", 0.25, 0.9, 0.0)
    assert settings.discriminator == ("adam", 1e-3, 0.9, 0.0)


@pytest.mark.slow
@pytest.mark.parametrize("hidden", [(), ("decoder",), ("discriminator",)])
def test_a_rank_can_be_hidden_from_the_decoder_or_from_d(hidden):
    names = {"decoder": "rank_to_decoder", "discriminator": "rank_to_discriminator"}
    adversary = built(**{names[name]: "none" for name in hidden})
    condition = adversary.condition_of(said(PREDICTED[0]))
    rank = adversary.rank(condition)
    assert {name for name in names if getattr(rank, name) is None} == set(hidden)
    state = jax.jit(lambda key: adversary.init(key, IMAGES[:1]))(KEY)
    assert len(state.discriminator_params["Dense_0"]["kernel"]) == 5 - ("discriminator" in hidden)
    assert len(state.vae_params["expand"]["kernel"]) == 5 - ("decoder" in hidden)
    both = halves(adversary)
    _, metrics = jax.jit(adversary.step)(state, *both)
    lower = tuple(
        half._replace(condition=Rank(*(x - 0.4 for x in half.condition))) for half in both
    )
    _, other = jax.jit(adversary.step)(state, *lower)
    changed = {
        "decoder": metrics["reconstruction"] != other["reconstruction"],
        "discriminator": metrics["discriminator_loss"] != other["discriminator_loss"],
    }
    assert changed["decoder"] == ("decoder" not in hidden)
    if hidden == ("decoder",):
        assert changed["discriminator"]
