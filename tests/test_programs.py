"""What is compiled for a method: ranks of the joint schedule, gathering, one pass per image."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from trials import KEY, config_of, prepared, setup_of

from tavaal_jax.algorithm.adversary import rank_of
from tavaal_jax.algorithm.methods import METHODS
from tavaal_jax.algorithm.problems import Classification
from tavaal_jax.algorithm.state import Example, Schedule, Stream, derive
from tavaal_jax.data.plans import ExtraUpdates, IndexPlan
from tavaal_jax.engine import components, devices, programs, steps
from tavaal_jax.study import cycle

PROBLEM = Classification(2)


@pytest.fixture(scope="module")
def made():
    return components.build(config_of(), METHODS["tavaal"], (2,), PROBLEM)


def schedule(first_epoch):
    return Schedule(np.int32(3), np.float32(0.1), np.True_, np.bool_(first_epoch))


PLAN = IndexPlan(*(np.arange(16, dtype=np.int32) + start for start in (0, 16, 0)))


def test_ranks_are_uniform_in_the_first_epoch_and_then_the_rankers(made):
    setup = prepared("tavaal")
    state, train = cycle.start(setup, KEY).learner, setup.train
    images = tuple(train.plain(rows) for rows in (PLAN.labelled, PLAN.unlabelled))
    examples = steps.gather((train, None), PLAN)
    ranks = lambda first: steps.joint_conditions(
        made, state, examples, train.normalise, KEY, schedule(first), PLAN
    )
    first = np.concatenate([rank.decoder for rank in ranks(True)])
    assert first.shape == (32, 1)
    assert len(np.unique(first)) == 32
    assert first.min() >= 0
    assert first.max() < 1
    assert abs(first.mean() - 0.5) < 0.2
    for half, pool in zip(ranks(False), images, strict=True):
        expected = rank_of(made.learner.infer(state, pool))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), half, expected)


def test_first_ranks_are_those_of_the_examples_positions(made):
    """Whatever devices they are on: a device's part has the same as the whole batch there."""
    setup = prepared("tavaal")
    state = cycle.start(setup, KEY).learner

    def condition(plan):
        examples = steps.gather((setup.train, None), plan)
        return steps.joint_conditions(
            made, state, examples, setup.train.normalise, KEY, schedule(True), plan
        )

    whole, found = condition(PLAN), condition(IndexPlan(*(rows[4:8] for rows in PLAN[:3])))
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b[4:8]), found, whole)


@pytest.mark.slow
def test_further_updates_of_the_adversary_leave_the_learner_and_follow_their_own_plan(monkeypatch):
    """One step with two more updates is the step, and then the adversary's own twice."""
    monkeypatch.setattr(devices, "mean", lambda tree: tree)
    setup = prepared("tavaal")
    made = components.build(config_of(), METHODS["tavaal"], (2,), PROBLEM)
    begun = cycle.start(setup, KEY)
    state, data = steps.Networks(begun.learner, begun.adversary), (setup.train, None)
    data[0].labels.block_until_ready()
    rows = np.random.default_rng(0).permutation(96).astype(np.int32).reshape(2, 16, 3)
    more = ExtraUpdates(rows[0, :, :2], rows[1, :, :2])
    step = jax.jit(lambda s, plan: steps.joint_step(made, s, data, KEY, schedule(False), plan))
    (learner, adversary), metrics = step(state, PLAN._replace(more=more))
    (once, expected), first = step(state, PLAN)
    jax.tree.map(np.testing.assert_array_equal, learner, once)

    every = [first]
    for number in range(2):
        key = derive(KEY, Stream.UPDATES, number)
        plan = PLAN._replace(
            labelled=more.labelled[:, number], unlabelled=more.unlabelled[:, number]
        )
        examples, of_plan = (
            steps.gather(data, plan),
            (setup.train.normalise, key, schedule(False), plan),
        )
        # The ranks are of the Ranker before the step, as for the first update.
        condition = steps.joint_conditions(made, state[0], examples, *of_plan)
        halves = steps.pool_batches(made, examples, condition, *of_plan)
        expected, found = jax.jit(made.adversary.step)(expected, *halves)
        every.append(found)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    jax.tree.map(close, adversary, expected)
    for name in every[1]:
        close(metrics[name], np.mean([found[name] for found in every]))


def test_an_adversary_that_is_told_nothing_gets_no_ranks():
    made = components.build(config_of(), METHODS["vaal"], (2,), PROBLEM)
    assert steps.joint_conditions(made, None, None, None, KEY, schedule(True), PLAN) == (None, None)


@pytest.mark.parametrize("name", METHODS)
def test_what_a_method_is_made_of(name):
    method = METHODS[name]
    made = components.build(config_of(), method, (2,), PROBLEM)
    built = programs.build(config_of(), method, (2,), PROBLEM)
    assert (made.learner.ranker is None) == (method.ranking_loss is None)
    assert (made.adversary is None) == (method.adversary is None)
    condition = made.adversary is not None and made.adversary.condition_of is not None
    assert built.needs_inference == (method.ranking_loss is not None or condition)
    assert set(built.train) == {"task", "joint", "adversary"}


def test_a_step_gathers_image_label_and_what_is_told_of_it():
    setup = prepared("tavaal")
    train = setup.train.replace(labels=jnp.arange(setup.size, dtype=jnp.int32))
    condition = {"rank": jnp.arange(setup.size) * 2}
    rows = np.array([5, 0, 7], np.int32), np.array([100, 200, 300], np.int32)
    found = steps.gather((train, condition), IndexPlan(*rows, np.arange(3)))
    np.testing.assert_array_equal(found.labelled.label, rows[0])
    np.testing.assert_array_equal(found.labelled.image, train.images[rows[0]])
    np.testing.assert_array_equal(found.unlabelled.image, train.images[rows[1]])
    for given, wanted in zip(found, rows, strict=True):
        np.testing.assert_array_equal(given.condition["rank"], 2 * wanted)
    alone = steps.gather((train, None), IndexPlan(rows[0], None, np.arange(3)))
    assert alone.unlabelled is None
    assert alone.labelled.condition is None


def test_every_program_says_of_an_image_what_the_learner_says():
    setup = setup_of(config_of(), METHODS["tavaal"])  # Nobody else has traced its programs.
    state, train = cycle.start(setup, KEY).learner, setup.train
    learner = components.build(setup.config, setup.method, (2,), PROBLEM).learner
    variables, indices = (state, train.normalise), np.array([3, 500, 7, 41, 8])
    said = learner.infer(state, train.plain(indices))
    (inferred,) = setup.programs.infer(variables, train.images, indices)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    close(inferred.predicted, said.predicted)
    jax.tree.map(close, inferred.condition, rank_of(said))
    labels = devices.place(np.arange(setup.size, dtype=np.int32) % 2)
    examples = Example(train.images, labels)
    (losses,) = setup.programs.losses(variables, examples, indices)
    close(losses, learner.problem.image_losses(said.logits, labels[indices]))
    (counts,) = setup.programs.evaluate(variables, examples, indices)
    choice = np.argmax(said.logits, -1)
    np.testing.assert_array_equal(counts[:, 0], choice == np.asarray(labels[indices]))
    np.testing.assert_array_equal(counts[:, 1], 1)
    found = setup.programs.classify(state, train.normalise, train.images[indices])
    np.testing.assert_array_equal(found, choice)
