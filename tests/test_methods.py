"""What every row of METHODS must keep to, and how another method or adversary is added."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import moons, smoke
from tavaal_jax import models
from tavaal_jax.algorithm import learner as learners
from tavaal_jax.algorithm import methods, optim, picks, values
from tavaal_jax.algorithm.adversary import Adversary, Rank, Settings
from tavaal_jax.algorithm.learner import Learner
from tavaal_jax.algorithm.methods import METHODS, Method
from tavaal_jax.algorithm.problems import Classification
from tavaal_jax.algorithm.state import PoolBatch, Schedule
from tavaal_jax.algorithm.values import View
from tavaal_jax.data.plans import IndexPlan
from tavaal_jax.data.pool import Normaliser, Resident
from tavaal_jax.engine import devices, programs, steps

KEY = jax.random.key(0)
CLASSES, POOL, LABELLED = 3, 9, 5
SHAPES = {"features": (2,), "images": (8, 8, 1)}
DRAWS = {"random", "mc_dropout", "bald", "power_margin", "power_bald", "drop_query"}
SORTS = {picks.smallest, picks.largest, picks.core_set}

every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)


def config_of(kind):
    """Smaller than `moons` and `smoke`."""
    config = {"features": moons, "images": smoke}[kind].get_config()
    config.batch_size, config.mc_dropout.passes = 8, 3
    config.task.widths = (8, 4)
    config.ranker.features = 3
    config.vae.update(latent=2, widths=(4, 4))
    config.discriminator.hidden = (16,)
    return config


@functools.cache
def images_of(kind):
    images = jax.random.normal(jax.random.key(1), (POOL + LABELLED, *SHAPES[kind]))
    return np.asarray(images)


def problem_of(config):
    return Classification.of(config, CLASSES)


@functools.cache
def learner_of(ranking_loss, kind):
    """One with random weights."""
    config, shape = config_of(kind), SHAPES[kind]
    learner = Learner(
        models.build_learner(config, CLASSES, shape),
        None if ranking_loss is None else models.build_ranker(config),
        ranking_loss,
        problem_of(config),
        learners.Settings.of(config),
    )
    return learner, jax.jit(lambda key: learner.init(key, images_of(kind)[:1]))(KEY)


@functools.cache
def adversary_of(make, kind):
    """One with random weights, or none."""
    if make is None:
        return None, None
    config = config_of(kind)
    adversary = make(config, problem_of(config), SHAPES[kind])
    return adversary, jax.jit(lambda key: adversary.init(key, images_of(kind)[:1]))(KEY)


@functools.cache
def viewer(method, kind):
    """`image -> View` of networks with random weights."""
    config = config_of(kind)
    learner, state = learner_of(method.ranking_loss, kind)
    adversary, adversary_state = adversary_of(method.adversary, kind)

    def view(image):
        said = learner.infer(state, image[None])
        needs_inference = adversary is not None and adversary.condition_of is not None
        condition = adversary.condition_of(said) if needs_inference else None
        predicted, condition = jax.tree.map(lambda x: x[0], (said.predicted, condition))
        return View(
            image, learner, state, adversary, adversary_state, predicted, condition,
            config.mc_dropout.passes, config.mc_dropout.measure,
        )  # fmt: skip

    return view


@functools.cache
def program(method, kind):
    """Values `[n, ...]` of images `[n, ...]` with keys `[n]`."""
    view = viewer(method, kind)
    return jax.jit(jax.vmap(lambda image, key: method.value(view(image), key)))


@functools.cache
def keys(seed, count):
    return jax.random.split(jax.random.key(seed), count)


def close(a, b):
    return all(
        np.allclose(x, y, rtol=1e-4, atol=1e-6)
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


def check_values(method, kind):
    """Finite, each image's own, drawn or not."""
    images, value = images_of(kind), program(method, kind)
    count = len(images)
    found = jax.device_get(value(images, keys(0, count)))
    for leaf in jax.tree.leaves(found):
        assert leaf.shape[0] == count
        assert np.isfinite(leaf).all()
    order = np.random.default_rng(0).permutation(count)
    mixed = value(images[order], keys(0, count)[order])
    assert close(mixed, jax.tree.map(lambda x: x[order], found))
    others = np.full_like(images[1:], 7.5)
    crowd = value(np.concatenate([images[:1], others]), keys(0, count))
    assert close(*(jax.tree.map(lambda x: x[0], tree) for tree in (crowd, found)))
    assert close(value(images, keys(1, count)), found) == (method.name not in DRAWS)
    assert close(value(images[::-1], keys(0, count)), found) == (method.name == "random")
    return found


def check_picks(method, found):
    """As many as were asked for, each once, with finite scores."""
    subset, labelled = (
        jax.tree.map(lambda x, part=part: x[part], found)
        for part in (slice(POOL), slice(POOL, None))
    )
    alike = jax.tree.map(lambda x: np.repeat(x[:1], POOL, axis=0), subset)
    if method.sees_labels:
        labelled = picks.Labelled(labelled, np.arange(LABELLED, dtype=np.int32) % CLASSES)
    for count in (1, 4, POOL):
        for pool in (subset, alike):
            positions, scores = method.pick(pool, count, KEY, labelled if method.compares else None)
            assert positions.shape == scores.shape == (count,)
            assert len(set(positions.tolist())) == count
            assert positions.min() >= 0
            assert positions.max() < POOL
            assert np.isfinite(scores).all()
        if method.pick in SORTS:
            np.testing.assert_array_equal(positions, np.arange(count))


def test_a_method_is_called_what_its_key_says():
    assert all(METHODS[method.name] is method for method in METHODS.values())


@every_method
def test_values_are_finite_each_images_own_and_drawn_only_where_a_method_draws(method):
    found = check_values(method, "features")
    check_picks(method, found)


@pytest.mark.parametrize("name", ["mc_dropout", "badge", "tavaal", "alfa_mix"])
def test_the_same_holds_of_images(name):
    found = check_values(METHODS[name], "images")
    check_picks(METHODS[name], found)


@every_method
def test_a_method_has_what_it_picks_by(method):
    def look(image):
        view = viewer(method, "features")(image)
        assert (view.predicted is None) == (method.ranking_loss is None)
        assert (view.adversary is None) == (method.adversary is None)
        needs_inference = view.adversary is not None and view.adversary.condition_of is not None
        assert (view.condition is not None) == needs_inference

    jax.eval_shape(look, images_of("features")[0])


def test_names_used_elsewhere_are_methods():
    compared = {name for _, *pair in methods.CLAIMS for name in pair}
    assert {methods.BASELINE, *methods.ABLATION, *compared} <= set(METHODS)


@pytest.mark.parametrize("name", [n for n, m in METHODS.items() if not m.needs_labels])
def test_a_method_that_needs_no_label_picks_without_any(name):
    z = np.asarray(images_of("features"))
    positions, scores = METHODS[name].pick(z, 4, KEY, None)
    assert len(set(positions.tolist())) == 4
    assert np.isfinite(scores).all()


def test_a_view_has_no_label():
    view = viewer(METHODS["tavaal"], "features")(images_of("features")[0])
    names = (*dir(view), *programs.PoolExample._fields, *programs.Inference._fields)
    assert not [name for name in names if "label" in name or "target" in name]


def test_a_value_that_wants_labels_fails_when_it_is_mapped_over_a_pool():
    peeking = Method("peeking", lambda view, key: view.label, picks.largest)
    with pytest.raises(AttributeError, match="label"):
        program(peeking, "features")(images_of("features"), keys(0, POOL + LABELLED))
    made = programs.build(config_of("features"), peeking, (2,), Classification(CLASSES))
    pool = resident()
    state, _ = made.init(KEY, 0)
    variables = (*devices.place((state, None)), pool.normalise, KEY)
    nothing = programs.Inference(None, None)
    candidates = programs.PoolExample(pool.images, jnp.arange(len(pool.images)), nothing)
    with pytest.raises(AttributeError, match="label"):
        list(made.values(variables, candidates, np.arange(POOL)))


def test_a_method_can_be_added_from_outside_and_taken_away(monkeypatch):
    def largest_logit(view, key):
        del key
        return jnp.max(view.logits)

    mine, before = Method("mine", largest_logit, picks.smallest), dict(METHODS)
    with monkeypatch.context() as patch:
        patch.setitem(METHODS, "mine", mine)
        assert list(METHODS) == [*before, "mine"]
        check_picks(METHODS["mine"], check_values(METHODS["mine"], "features"))
    assert before == METHODS


# Another adversary


class Wary(Adversary):
    """One with a step of its own: it is told how uncertain T is, `[B]`, 0 to 1, and weighs by it.

    Neither network is given a rank.
    """

    def initial_condition(self, keys):
        return jnp.full(keys.shape[0], 0.5)

    def rank(self, condition):
        return Rank()

    def step(self, state, labelled, unlabelled, mean=optim.alone):
        uncertain = unlabelled.condition
        halves = labelled, unlabelled
        labelled, unlabelled = (half._replace(images=self.seen(half.images)) for half in halves)
        vae, discriminator = self.settings.vae, self.settings.discriminator
        params, optimiser, stats, metrics = optim.step(
            vae, vae.learning_rate,
            lambda params: self.vae_loss(params, state, labelled, unlabelled),
            state.vae_params, state.vae_optimiser, mean,
        )  # fmt: skip
        state = state.replace(vae_params=params, vae_stats=stats, vae_optimiser=optimiser)
        logits = lambda params, half: self.discriminator.apply(
            {"params": params}, self._latents(state, half), None
        )

        def relabelled(params):
            of_labelled = jax.nn.softplus(-logits(params, labelled))
            of_unlabelled = optax.sigmoid_binary_cross_entropy(
                logits(params, unlabelled), 1 - uncertain
            )
            loss = jnp.mean(of_labelled) + jnp.mean(of_unlabelled)
            return loss, (None, {"discriminator_loss": loss, "uncertain": jnp.mean(uncertain)})

        params, optimiser, _, more = optim.step(
            discriminator, discriminator.learning_rate, relabelled,
            state.discriminator_params, state.discriminator_optimiser, mean,
        )  # fmt: skip
        state = state.replace(discriminator_params=params, discriminator_optimiser=optimiser)
        return state, {**metrics, **more}

    def score(self, state, images, condition=None):
        """Among equals, the image of which T is less certain."""
        return super().score(state, images) - condition


def uncertainty(said):
    """T's entropy as a share of the largest one: `[B]`."""
    entropy = jnp.sum(jax.scipy.special.entr(jax.nn.softmax(said.logits)), -1)
    return entropy / np.log(said.logits.shape[-1]).astype(np.float32)


def wary(config, problem, shape, axis_name=None):
    return Wary(
        models.build_vae(config, shape, axis_name), models.build_discriminator(config), uncertainty,
        Settings.of(config),
    )  # fmt: skip


MINE = Method("mine", values.discriminator, picks.smallest, adversary=wary)


def resident():
    """A pool on the devices; the last are unlabelled."""
    images = np.asarray(images_of("features")).repeat(2, axis=0) + 0.5
    labels = np.arange(len(images), dtype=np.int32) % CLASSES
    labels[2 * LABELLED :] = -1
    return devices.place(Resident(images, labels, Normaliser.of(images)))


def rows(steps, batch, pool, first_epoch):
    """Schedule and plan of some steps."""
    random = np.random.default_rng(0)
    schedule = Schedule(
        np.arange(steps, dtype=np.int32),
        np.full(steps, 0.01, np.float32),
        np.full(steps, True),
        np.full(steps, first_epoch),
    )
    labelled = random.integers(0, 2 * LABELLED, (steps, batch)).astype(np.int32)
    unlabelled = random.integers(2 * LABELLED, pool, (steps, batch)).astype(np.int32)
    positions = np.tile(np.arange(batch, dtype=np.int32), (steps, 1))
    return schedule, IndexPlan(labelled, unlabelled, positions)


def test_another_adversary_goes_through_the_whole_template():
    check_picks(MINE, check_values(MINE, "features"))


@pytest.mark.slow
def test_another_adversary_steps_as_a_plain_function():
    adversary = wary(config_of("features"), None, (2,))
    images = images_of("features")
    state = adversary.init(KEY, images[:1])
    condition = jnp.array([0.0, 0.25, 0.5, 1.0])
    both = (PoolBatch(part, condition, keys(0, 4)) for part in (images[:4], images[4:8]))
    after, metrics = jax.jit(adversary.step)(state, *both)
    assert metrics["uncertain"] == np.float32(0.4375)
    assert not close(after.discriminator_params, state.discriminator_params)


@pytest.mark.slow
def test_another_adversary_needs_no_change_of_any_program():
    config, pool = config_of("features"), resident()
    size = len(pool.images)
    made = programs.build(config, MINE, (2,), Classification(CLASSES))
    assert made.needs_inference
    state = devices.place(made.init(KEY, 0))

    # The joint stage: what it is told first, then what T says.
    for first_epoch in (True, False):
        schedule, plan = rows(1, config.batch_size, size, first_epoch)
        before = jax.device_get(state)
        state, metrics, agree = made.train["joint"](state, (pool, None), KEY, schedule, plan, 1)
        devices.check_agreement(agree, "joint")
        assert {"task_loss", "kl", "discriminator_loss"} < metrics.keys()
        assert all(np.isfinite(value).all() for value in metrics.values())
        for old, new in zip(before, state, strict=True):
            assert not close(old, new)
        condition = metrics["uncertain"][0]
        assert (condition == 0.5) == first_epoch
        assert 0 < condition < 1

    # The adversary's own stage, with what it is told of each image once.
    learner_state, adversary_state = state
    variables = (learner_state, pool.normalise)
    inferred = jax.tree.map(
        lambda *parts: np.concatenate(parts),
        *made.infer(variables, pool.images, np.arange(size)),
    )
    assert inferred.predicted is None
    assert inferred.condition.shape == (size,)
    schedule, plan = rows(1, config.batch_size, size, False)
    before = jax.device_get(adversary_state)
    data = (pool, devices.place(inferred.condition))
    updated, metrics, agree = made.train["adversary"](
        steps.Networks(adversary=adversary_state), data, KEY, schedule, plan, 1
    )
    devices.check_agreement(agree, "adversary")
    adversary_state = updated.adversary
    assert not close(before, adversary_state)
    mean = inferred.condition[plan.unlabelled[0]].mean()
    np.testing.assert_allclose(metrics["uncertain"][0], mean, rtol=1e-5)

    # Values: what the adversary itself says.
    variables = (learner_state, adversary_state, pool.normalise, KEY)
    candidates = devices.place(programs.PoolExample(pool.images, np.arange(size), inferred))
    wanted = np.arange(2 * LABELLED, size)
    valued = jax.tree.map(
        lambda *parts: np.concatenate(parts), *made.values(variables, candidates, wanted)
    )
    assert valued.value.shape == (len(wanted),)
    np.testing.assert_array_equal(valued.value, valued.score)
    expected = wary(config, None, (2,)).score(
        adversary_state, pool.plain(wanted), jnp.asarray(inferred.condition[wanted])
    )
    np.testing.assert_allclose(valued.value, expected, rtol=1e-4, atol=1e-6)
    positions, scores = MINE.pick(valued.value, 3, KEY)
    assert (scores == np.sort(valued.value)[:3]).all()
    assert len(set(positions)) == 3
