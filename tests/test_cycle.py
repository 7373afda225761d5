"""The order of stages, pairing of methods, going on from anywhere."""

import functools

import jax
import numpy as np
import pytest
from trials import (
    KEY,
    config_of,
    cycle_of,
    first_cycle,
    placed,
    prepared,
    setup_of,
    steps,
)

from configs import cifar10
from tavaal_jax.algorithm.adversary import vaal
from tavaal_jax.algorithm.methods import METHODS
from tavaal_jax.algorithm.state import Stream, derive
from tavaal_jax.data import plans
from tavaal_jax.report import diagnostics
from tavaal_jax.study import cycle, training


def test_stages_of_each_method_and_schedule():
    config = cifar10.get_config()
    random, tavaal = METHODS["random"], METHODS["tavaal"]
    last = ("select", "label", "diagnose")
    assert cycle.stage_names(config, random, 0) == ("task", "evaluate", *last)
    assert cycle.stage_names(config, tavaal, 0) == ("joint", "evaluate", *last)
    for method in (random, tavaal):
        assert cycle.stage_names(config, method, 9) == ("task", "evaluate")
    config.schedule, config.diagnostics = "two_phase", False
    assert cycle.stage_names(config, random, 0) == ("task", "evaluate", "select", "label")
    assert cycle.stage_names(config, tavaal, 0) == (
        "task",
        "evaluate",
        "adversary",
        "select",
        "label",
    )
    assert cycle.stage_names(config, tavaal, 9) == ("task", "evaluate")


def test_the_expected_size_of_l():
    config = cifar10.get_config()
    assert [cycle.expected_labelled(config, number) for number in (0, 1, 9)] == [1000, 2000, 10_000]


def test_a_template_has_the_shapes_of_a_state():
    made = prepared("tavaal")
    template, state = cycle.template(made), cycle.start(made, KEY)
    shape = lambda x: (x.shape, x.dtype) if hasattr(x, "shape") else type(x)
    assert jax.tree.map(shape, template) == jax.tree.map(shape, state)
    for one, other in zip(jax.tree.leaves(template), jax.tree.leaves(state), strict=True):
        if isinstance(one, jax.ShapeDtypeStruct):
            assert one.sharding == other.sharding


def test_a_trial_starts_with_the_initial_labels_alone():
    made = prepared("random")
    state = cycle.start(made, KEY)
    first = plans.initial(derive(KEY, Stream.INITIAL), made.size, 20)
    np.testing.assert_array_equal(np.flatnonzero(state.labelled), np.sort(first))
    np.testing.assert_array_equal(state.labels[first], made.oracle.answer(first))
    assert (np.delete(state.labels, first) == -1).all()
    assert (state.cycle, state.stage, state.step) == (0, "task", 0)
    assert (state.picked_in == -1).all()
    assert np.isnan(state.results).all()
    assert (state.counts == -1).all()


# Pairing


QUICK = ("random", "coreset", "tavaal")


@pytest.mark.parametrize(
    "name", [m if m in QUICK else pytest.param(m, marks=pytest.mark.slow) for m in METHODS]
)
def test_methods_share_initial_images_weights_and_subset(name):
    (first, _), (end, _) = first_cycle("random")[0], first_cycle(name)[-1]
    mine = first_cycle(name)[0][0]
    np.testing.assert_array_equal(first.labelled_in, mine.labelled_in)
    learners = first.learner.params["learner"], mine.learner.params["learner"]
    jax.tree.map(np.testing.assert_array_equal, *learners)
    picks = np.flatnonzero(end.labelled_in == 1)
    assert len(picks) == 10
    assert set(picks) <= set(plans.subset(derive(KEY, Stream.SUBSET, 0), ~first.labelled, 100))
    assert sorted(end.pick_rank[picks]) == list(range(10))
    np.testing.assert_array_equal(end.labelled_in == 0, first.labelled_in == 0)
    assert ("ranker" in mine.learner.params) == (METHODS[name].ranking_loss is not None)
    assert (mine.adversary is None) == (METHODS[name].adversary is None)


def task_losses(seen):
    reports = [r for _, r in seen if r and r.count and r.stage in ("task", "joint")]
    return np.concatenate([r.values()["task_loss"] for r in reports])


@pytest.mark.parametrize(
    "name", ["coreset", *(pytest.param(m, marks=pytest.mark.slow) for m in ("mc_dropout", "vaal"))]
)
def test_methods_without_a_ranking_loss_train_the_same_learner(name):
    made = without_dropout() if name == "mc_dropout" else prepared(name)
    seen, random = cycle_of(made), first_cycle("random")
    losses = task_losses(random)
    assert len(losses) == training.stage_steps(made.config, made.size, 20, "task")
    # Another program around the same steps may round differently: XLA fuses them as it sees fit.
    np.testing.assert_allclose(task_losses(seen), losses, rtol=1e-5, atol=1e-6)
    trained = [
        next(s for s, r in states if r and r.stage_ended).learner.params["learner"]
        for states in (seen, random)
    ]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), *trained)


@functools.cache
def without_dropout():
    return setup_of(config_of(**{"mc_dropout.rate": 0.0}), METHODS["mc_dropout"])


def test_dropout_is_on_in_training_for_mc_dropout_alone():
    dropped, kept = task_losses(first_cycle("mc_dropout")), task_losses(cycle_of(without_dropout()))
    assert np.abs(dropped - kept).min() > 1e-4


@pytest.mark.slow
def test_vaal_is_tavaal_without_the_rank():
    """The same VAE, discriminator and picks: the rank is the only difference."""
    made = setup_of(config_of(), METHODS["tavaal"]._replace(adversary=vaal))
    assert made.method.ranking_loss is not None
    mine, theirs = (seen[-1][0] for seen in (cycle_of(made), first_cycle("vaal")))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
                 mine.adversary, theirs.adversary)  # fmt: skip
    np.testing.assert_array_equal(mine.pick_rank, theirs.pick_rank)
    with_rank = first_cycle("tavaal")[-1][0]
    assert (with_rank.pick_rank != theirs.pick_rank).any()


def test_the_adversary_leaves_the_learner_alone():
    """T trains the same in the joint program as in the program of T and R alone."""
    alone, joint = (task_losses(first_cycle(name)) for name in ("learning_loss_v2", "tavaal"))
    np.testing.assert_allclose(joint, alone, rtol=1e-5, atol=1e-6)
    alone, joint = (last_losses(name) for name in ("learning_loss_v2", "tavaal"))
    np.testing.assert_allclose(joint, alone, rtol=1e-5, atol=1e-6)


def last_losses(name):
    """Losses of the last cycle, begun with the initial pool."""
    made = prepared(name)
    state = cycle.start(made, KEY).replace(cycle=1, stage="task")
    return task_losses(list(steps(made, state)))


# What is said of a choice


@pytest.mark.parametrize(
    "name", [m if m in QUICK else pytest.param(m, marks=pytest.mark.slow) for m in METHODS]
)
def test_a_choice_is_diagnosed(name):
    (report,) = [r for _, r in first_cycle(name) if r and r.stage == "diagnose" and r.stage_ended]
    method, found, arrays = METHODS[name], report.metrics, report.details
    assert np.isfinite(list(found.values())).all()
    assert set(found) - {"picks"} <= set(diagnostics.FIELDS)
    assert (found["labelled"], found["picks"]) == (20, 10)
    assert ("spearman" in found) == (method.ranking_loss is not None)
    assert ("discriminator_auc" in found) == (method.adversary is not None)
    assert found["overlap_random"] == 1.0 if name == "random" else found["overlap_random"] < 1.0
    if method.ranking_loss is not None and method.adversary is None:
        assert found["overlap_highest_predicted"] == 1.0
    assert sorted(arrays["rank"][arrays["rank"] >= 0]) == list(range(10))
    assert len(arrays["index"]) == len(arrays["loss"]) == 100
    assert len(arrays["labelled"]) == 20
    assert arrays["classes"].shape == (100, 100)


# Going on


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["joint", "two_phase"])
def test_going_on_from_any_yielded_state_gives_the_same_end(schedule):
    made = prepared("tavaal", schedule)
    seen = cycle_of(made, cycles=2)
    end = seen[-1][0]
    assert (end.cycle, end.stage) == (2, "")
    assert cycle.is_finished(made, end)
    assert np.isfinite(end.results).all()
    endings = [i for i, (_, report) in enumerate(seen) if report and report.stage_ended]
    # The moments around the end of each stage are the delicate ones.
    for index in {i + offset for i in endings for offset in (-1, 0)}:
        state = placed(seen[index][0])
        last, _ = [(state, None), *steps(made, state, steps_per_call=3)][-1]
        jax.tree.map(np.testing.assert_array_equal, jax.tree.map(np.array, last), end)


def test_reports_name_the_cycle_and_stage_they_come_from():
    reports = [report for _, report in cycle_of(prepared("tavaal"), 2) if report]
    ended = [(r.cycle, r.stage) for r in reports if r.stage_ended]
    assert ended == [
        (0, "joint"), (0, "evaluate"), (0, "select"), (0, "label"), (0, "diagnose"),
        (1, "task"), (1, "evaluate"),
    ]  # fmt: skip
    assert [r.labelled for r in reports if r.stage_ended] == [20] * 5 + [30] * 2
    values = [r.metrics for r in reports if r.stage == "evaluate" and r.metrics]
    assert len(values) == 2
    assert all(0 < v["accuracy"] <= 1 for v in values)


def test_results_and_sizes_of_l_are_kept_in_the_state():
    seen = cycle_of(prepared("tavaal"), 2)
    end = seen[-1][0]
    accuracies = [r.metrics["accuracy"] for _, r in seen if r and "accuracy" in r.metrics]
    np.testing.assert_allclose(end.results[:, 0], accuracies)
    np.testing.assert_array_equal(end.counts, [20, 30])


def test_every_cycle_starts_from_fresh_weights():
    made, seen = prepared("tavaal"), cycle_of(prepared("tavaal"), 1)
    learner, adversary = made.programs.init(KEY, 1)
    jax.tree.map(np.testing.assert_array_equal, (learner, adversary),
                 (seen[-1][0].learner, seen[-1][0].adversary))  # fmt: skip
    first = seen[0][0].learner.params["learner"]
    assert any(
        (a != b).any()
        for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(learner.params["learner"]),
                        strict=True)
    )  # fmt: skip


def test_the_last_cycle_of_the_joint_schedule_trains_t_alone():
    made = prepared("tavaal")
    last = [(s, r) for s, r in cycle_of(made, 2) if r and (r.cycle, r.stage) == (1, "task")]
    assert {name for _, r in last for name in r.metrics} == {"task_loss", "ranking_loss"}
    (learner, adversary), end = made.programs.init(KEY, 1), last[-1][0]
    jax.tree.map(np.testing.assert_array_equal, adversary, end.adversary)
    changed = jax.tree.map(
        lambda a, b: bool((a != b).any()), learner.params["learner"], end.learner.params["learner"]
    )
    assert all(jax.tree.leaves(changed))
