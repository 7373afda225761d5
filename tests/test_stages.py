"""What each stage does: steps, ranks of the second phase, picks, labels, diagnoses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from trials import KEY, begun, config_of, cycle_of, finish, first_cycle, prepared, setup_of

from configs import cifar10, cifar10_released
from tavaal_jax.algorithm import optim, values
from tavaal_jax.algorithm.adversary import rank_of
from tavaal_jax.algorithm.methods import METHODS
from tavaal_jax.algorithm.state import Stream, derive
from tavaal_jax.data import plans
from tavaal_jax.engine import components, programs
from tavaal_jax.study import training
from tavaal_jax.study.context import StageReport, ValueFault
from tavaal_jax.study.cycle import run_stage


def test_steps_of_each_stage():
    config = cifar10.get_config()
    steps = lambda size, labelled, stage: training.stage_steps(config, size, labelled, stage)
    assert steps(50_000, 1000, "joint") == 200 * 7  # 1000 // 128
    assert steps(50_000, 5000, "task") == 200 * 39  # 5000 // 128
    # The released code: (labels + M) * 100 / B.
    assert steps(50_000, 5000, "adversary") == (5000 + 10_000) * 100 // 128
    assert steps(5500, 5000, "adversary") == (5000 + 500) * 100 // 128
    for stage in ("evaluate", "select", "label", "diagnose"):
        assert steps(50_000, 1000, stage) == 0


def test_a_report_has_the_steps_that_were_run():
    buffer = jnp.arange(5.0)
    report = StageReport(0, "task", 3, {"loss": buffer}, count=3)
    np.testing.assert_array_equal(report.values()["loss"], [0, 1, 2])
    jax.block_until_ready(buffer)
    assert report.is_ready()
    single = StageReport(0, "evaluate", 0, {"accuracy": 0.5})
    assert single.values() == {"accuracy": np.array(0.5)}
    assert single.is_ready()


# Train


def calls(made, stage, steps_per_call, state=None):
    """Counts and places of the training calls of a stage."""
    cycle, state = begun(made, state)
    cycle.steps_per_call = lambda stage: steps_per_call
    return [(r.count, r.step) for _, r in run_stage(cycle, stage, state) if r.count]


def test_calls_end_where_something_is_logged_or_saved():
    config = config_of(steps_per_call=50, log_every_steps=3, checkpoint_every_steps=4, epochs=10)
    made = setup_of(config, METHODS["random"])  # one step an epoch
    assert calls(made, "task", 50) == [(3, 3), (1, 4), (2, 6), (2, 8), (1, 9), (1, 10)]
    assert calls(made, "task", 2) == [(2, 2), (1, 3), (1, 4), (2, 6), (2, 8), (1, 9), (1, 10)]


@pytest.mark.parametrize(
    ("make", "changes", "last_active", "decayed_from"),
    [
        (cifar10, {}, 120, 160),
        (cifar10_released, {}, 120, 160),
        (cifar10, {"ranker.when_inactive": "freeze", "ranker.active_fraction": 0.8}, 160, 160),
    ],
)
def test_schedules_change_at_the_papers_epochs(make, changes, last_active, decayed_from):
    per_epoch, config = 7, make.get_config()
    config.update_from_flattened_dict(changes)
    rows = optim.schedule(config, 0, 200 * per_epoch, per_epoch)
    assert rows.first_epoch.sum() == per_epoch
    assert rows.first_epoch[:per_epoch].all()
    assert rows.ranker_active.sum() == last_active * per_epoch
    assert rows.ranker_active[: last_active * per_epoch].all()
    np.testing.assert_allclose(rows.learning_rate[: decayed_from * per_epoch], 0.1, rtol=1e-6)
    np.testing.assert_allclose(rows.learning_rate[decayed_from * per_epoch :], 0.01, rtol=1e-6)


@pytest.mark.parametrize("unlabelled", ["all", "subset"])
def test_the_adversary_trains_on_the_pool_that_the_config_says(unlabelled):
    made = prepared("tavaal", "two_phase", unlabelled)
    cycle, _ = begun(made)
    labelled, other, more = training._streams(cycle, "adversary")
    assert more(0, 1) is None
    met = set(other.rows(0, 100).ravel())
    assert set(labelled.rows(0, 100).ravel()) == set(np.flatnonzero(cycle.labelled))
    if unlabelled == "subset":
        assert met == set(cycle.subset)
    else:
        assert met == set(np.flatnonzero(~cycle.labelled))
    assert training._streams(cycle, "task")[1] is None


def test_further_updates_see_other_batches_of_the_same_pools():
    made = setup_of(config_of(**{"vae.updates": 3}), METHODS["tavaal"])
    cycle, _ = begun(made)
    labelled, unlabelled, more = training._streams(cycle, "joint")
    found = more(2, 4)
    assert found.labelled.shape == found.unlabelled.shape == (4, 16, 2)
    assert set(more(0, 50).labelled.ravel()) == set(np.flatnonzero(cycle.labelled))
    assert set(found.unlabelled.ravel()) <= set(np.flatnonzero(~cycle.labelled))
    # Whichever call asks for them.
    np.testing.assert_array_equal(more(0, 6).unlabelled[2:], found.unlabelled)
    assert (unlabelled.rows(0, 6) != more(0, 6).unlabelled[..., 0]).any()
    assert (labelled.rows(0, 6) != more(0, 6).labelled[..., 0]).any()


def test_training_sees_the_labels_of_l_alone():
    cycle, state = begun(prepared("random"))
    labels = np.asarray(cycle.train.labels)
    np.testing.assert_array_equal(labels >= 0, state.labelled)
    np.testing.assert_array_equal(labels[state.labelled], state.labels[state.labelled])
    np.testing.assert_array_equal(prepared("random").train.labels, -1)


@pytest.mark.parametrize("pool", ["all", "subset"])
def test_ranks_of_the_second_phase_are_the_rankers_where_they_are_used(pool):
    made = prepared("tavaal", "two_phase", pool)
    cycle, state = begun(made)
    learner = components.build(made.config, made.method, (2,), made.problem).learner
    said = jax.jit(learner.infer)(state.learner, made.train.plain(np.arange(made.size)))
    for _, report in run_stage(cycle, "adversary", state):
        if report.count:
            break
    found = jax.tree.map(np.asarray, cycle.inferred)
    used = np.ones(made.size, bool)
    if pool == "subset":
        used = state.labelled.copy()
        key = derive(KEY, Stream.SUBSET, 0)
        used[plans.subset(key, ~state.labelled, 100)] = True
        assert used.sum() == 120
    expected = jax.tree.map(np.asarray, programs.Inference(said.predicted, rank_of(said)))
    close = lambda a, b: np.testing.assert_allclose(a[used], b[used], rtol=1e-4, atol=1e-6)
    jax.tree.map(close, found, expected)
    assert not any(x[~used].any() for x in jax.tree.leaves(found))


def test_each_image_is_inspected_once_per_cycle(monkeypatch):
    made = prepared("tavaal", "two_phase")
    asked = []

    def infer(variables, images, indices):
        asked.append(indices)
        yield from made.programs.infer(variables, images, indices)

    counting = made._replace(programs=made.programs._replace(infer=infer))
    cycle, state = begun(counting)
    for stage in ("adversary", "select", "label", "diagnose"):
        state = finish(run_stage(cycle, stage, state))[0].replace(step=0)
    assert len(np.concatenate(asked)) == len(set(np.concatenate(asked))) == made.size


# Select


def test_the_subset_is_drawn_once_a_cycle_from_the_trials_key(monkeypatch):
    drawn = []
    subset = plans.subset
    monkeypatch.setattr(plans, "subset", lambda *args: drawn.append(args) or subset(*args))
    seen = cycle_of(prepared("random"))
    ((key, unlabelled, count),) = drawn
    expected = derive(KEY, Stream.SUBSET, 0)
    np.testing.assert_array_equal(jax.random.key_data(key), jax.random.key_data(expected))
    np.testing.assert_array_equal(unlabelled, ~seen[0][0].labelled)
    assert count == 100


def chosen(method):
    """What the stage `select` makes of a changed `random`, without any training."""
    made = prepared("random")
    if method.value is not made.method.value:
        made = setup_of(made.config, method)
    cycle, state = begun(made._replace(method=method))
    return finish(run_stage(cycle, "select", state))


def test_picks_are_a_request_and_bring_no_label():
    state, metrics, _ = chosen(METHODS["random"])
    picks = np.flatnonzero(state.picked_in == 0)
    assert len(picks) == 10
    assert (state.labels[picks] == -1).all()
    assert (state.labelled_in[picks] == -1).all()
    scores = state.pick_score[picks][np.argsort(state.pick_rank[picks])]
    assert list(scores) == sorted(scores)
    assert metrics == {"first_score": scores[0], "last_score": scores[-1]}


def test_random_picks_the_smallest_of_the_uniform_values():
    state, _, _ = chosen(METHODS["random"])
    uniform = np.asarray(values.uniform_pool(derive(KEY, Stream.VALUES, 0), 550))
    picks = np.flatnonzero(state.picked_in == 0)
    np.testing.assert_allclose(state.pick_score[picks], uniform[picks])


def test_values_that_are_not_finite_are_named():
    def nan(view, key):
        return jnp.where(view.image[0] > 0, jnp.nan, jax.random.uniform(key))

    with pytest.raises(ValueFault) as error:
        chosen(METHODS["random"]._replace(value=nan))
    cycle, _ = begun(prepared("random"))
    bad = cycle.subset[np.asarray(prepared("random").train.plain(cycle.subset))[:, 0] > 0]
    assert 0 < len(bad) < 100
    assert str(error.value) == (
        f"value of {len(bad)} of 100 images is not finite, first of the image with index {bad[0]}"
    )


def test_the_part_of_a_value_that_is_not_finite_is_named():
    half = lambda view, key: {"good": jnp.ones(3), "bad": jnp.stack([view.image[0], jnp.inf])}
    with pytest.raises(ValueFault, match=r"value\['bad'\] of 100 of 100 images is not finite"):
        chosen(METHODS["random"]._replace(value=half))


FAULTY_PICKS = {
    "chose an image twice": lambda values, count: (np.zeros(count, int), np.zeros(count)),
    "chose a position outside of 0 to 99": lambda values, count: (
        np.arange(count) - 1,
        np.zeros(count),
    ),
    "gave (11,) positions and (10,) scores for a request of 10": lambda values, count: (
        np.arange(count + 1),
        np.zeros(count),
    ),
    "gave (10,) positions and (10, 1) scores": lambda values, count: (
        np.arange(count),
        np.zeros((count, 1)),
    ),
    "gave a score that is not finite": lambda values, count: (
        np.arange(count),
        np.full(count, np.nan),
    ),
}


@pytest.mark.parametrize("fault", FAULTY_PICKS)
def test_picks_that_are_not_what_was_asked_for_are_refused(fault):
    faulty = lambda values, count, key, labelled=None: FAULTY_PICKS[fault](values, count)
    with pytest.raises(ValueFault) as error:
        chosen(METHODS["random"]._replace(pick=faulty))
    assert fault in str(error.value)


def test_a_method_that_compares_gets_the_values_of_l():
    given = {}

    def remember(values, count, key, labelled=None):
        given.update(values=values, labelled=labelled)
        return np.arange(count), np.zeros(count)

    chosen(METHODS["random"]._replace(pick=remember))
    assert given["labelled"] is None
    chosen(METHODS["random"]._replace(pick=remember, compares=True))
    assert given["values"].shape == (100,)
    assert given["labelled"].shape == (20,)


def test_a_pick_that_is_not_in_the_subset_is_refused():
    beyond = lambda values, count, key, labelled=None: (np.arange(count) + 95, np.zeros(count))
    with pytest.raises(ValueFault):
        chosen(METHODS["random"]._replace(pick=beyond))


# Label


class Hesitant:
    """An oracle that has no answer for odd images, and reveals nothing."""

    def __init__(self, labels):
        self.labels, self.asked = np.asarray(labels, np.int32), []

    def answer(self, indices):
        self.asked.append(indices)
        return np.where(indices % 2, -1, self.labels[indices])

    def reveal(self, indices):
        return None


def hesitant():
    oracle = Hesitant(prepared("random").oracle.reveal(np.arange(550)))
    return prepared("random")._replace(oracle=oracle), oracle


def test_a_pick_is_labelled_by_the_label_stage_alone():
    for name in ("random", "tavaal"):
        for state, report in first_cycle(name):
            asked = state.labelled_in == 0
            picks = state.picked_in == 0
            over = state.cycle == 1 or state.stage == "diagnose"
            asked |= picks & over
            np.testing.assert_array_equal(state.labels >= 0, asked)
            if report and report.stage == "label":
                assert report.metrics == {"asked": 10, "answered": 10}
                truth = prepared(name).oracle.reveal(np.flatnonzero(asked))
                np.testing.assert_array_equal(state.labels[asked], truth)


def test_images_without_an_answer_stay_out_of_l():
    made, oracle = hesitant()
    seen = cycle_of(made, cycles=2)
    start, end = seen[0][0], seen[-1][0]
    for state, _ in seen:
        known = np.flatnonzero(state.labels >= 0)
        assert (known % 2 == 0).all()
        np.testing.assert_array_equal(state.labelled_in >= 0, state.labels >= 0)
    picks = np.flatnonzero(end.picked_in == 0)
    answered = picks[picks % 2 == 0]
    assert 0 < len(answered) < len(picks) == 10
    np.testing.assert_array_equal(np.flatnonzero(end.labelled_in == 1), answered)
    np.testing.assert_array_equal(end.counts, [start.labelled.sum(), end.labelled.sum()])
    np.testing.assert_array_equal(np.sort(oracle.asked[1]), picks)
    (report,) = [r for _, r in seen if r and r.stage == "label"]
    assert report.metrics == {"asked": 10, "answered": len(answered)}


# Diagnose


def test_without_true_labels_there_is_no_diagnosis():
    seen = cycle_of(hesitant()[0])
    (report,) = [r for _, r in seen if r and r.stage == "diagnose" and r.stage_ended]
    assert report.metrics == {}
    assert report.details is None


def test_losses_of_a_diagnosis_are_those_of_the_true_labels():
    made = prepared("learning_loss_v2")
    cycle, state = begun(made)
    for stage in ("select", "label"):
        state = finish(run_stage(cycle, stage, state))[0]
    _, _, arrays = finish(run_stage(cycle, "diagnose", state))
    learner = components.build(made.config, made.method, (2,), made.problem).learner
    said = jax.jit(learner.infer)(state.learner, made.train.plain(cycle.subset))
    truth = made.oracle.reveal(cycle.subset)
    losses = learner.problem.image_losses(said.logits, truth)
    np.testing.assert_allclose(arrays["loss"], losses, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(arrays["predicted"], said.predicted, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(arrays["index"], cycle.subset)
