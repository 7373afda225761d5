"""The order of stages, schedules step by step, pairing of methods, going on from anywhere."""

import functools

import jax
import numpy as np
import pytest
from tavaal_jax.methods import METHODS
from tavaal_jax.state import derive

from configs import cifar10, cifar10_released, moons
from tavaal_jax import loop, parallel, programs, vaal
from tavaal_jax.data import load, plans

KEY = derive(jax.random.key(0), 1)


@functools.cache
def prepared(method, schedule="joint", unlabelled="all"):
    config = moons.get_config()
    config.cycles, config.epochs, config.schedule = 2, 4, schedule
    config.vae.unlabelled = unlabelled
    dataset = load(config)
    data = parallel.place(dataset.on_device())
    config.batch_size = 16
    return programs.prepare(config, METHODS[method], dataset, data)


def test_stages_of_each_method_and_schedule():
    config = cifar10.get_config()
    random, tavaal = METHODS["random"], METHODS["tavaal"]
    assert loop.stages(config, random, 0) == ("task", "evaluate", "select", "diagnose")
    assert loop.stages(config, tavaal, 0) == ("joint", "evaluate", "select", "diagnose")
    assert loop.stages(config, tavaal, 9) == ("task", "evaluate")
    config.schedule, config.diagnostics = "two_phase", False
    assert loop.stages(config, tavaal, 0) == ("task", "evaluate", "adversary", "select")


def test_steps_of_each_stage():
    config = cifar10.get_config()
    assert loop.stage_steps(config, 50_000, 0, "joint") == 200 * 7  # 1000 // 128
    assert loop.stage_steps(config, 50_000, 4, "task") == 200 * 39  # 5000 // 128
    # The released code: (labels + M) * 100 / B.
    assert loop.stage_steps(config, 50_000, 4, "adversary") == (5000 + 10_000) * 100 // 128
    assert loop.stage_steps(config, 5500, 4, "adversary") == (5000 + 500) * 100 // 128
    assert loop.stage_steps(config, 50_000, 0, "evaluate") == 0


@pytest.mark.parametrize(
    ("config", "last_active", "decayed_from"), [(cifar10, 160, 160), (cifar10_released, 120, 160)]
)
def test_schedules_change_at_the_papers_epochs(config, last_active, decayed_from):
    per_epoch = 7
    rows = loop._shared_rows(config.get_config(), 0, 200 * per_epoch, per_epoch)
    assert rows["first_epoch"].sum() == per_epoch
    assert rows["first_epoch"][:per_epoch].all()
    assert rows["ranker_active"].sum() == last_active * per_epoch
    assert rows["ranker_active"][: last_active * per_epoch].all()
    np.testing.assert_allclose(rows["learning_rate"][: decayed_from * per_epoch], 0.1, rtol=1e-6)
    np.testing.assert_allclose(rows["learning_rate"][decayed_from * per_epoch :], 0.01, rtol=1e-6)


def test_rows_do_not_depend_on_where_a_call_starts():
    config = cifar10.get_config()
    whole = loop._shared_rows(config, 0, 50, 7)
    part = loop._shared_rows(config, 13, 20, 7)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[13:33], b), whole, part)


def test_ranks_are_uniform_in_the_first_epoch_and_then_the_rankers():
    run = prepared("tavaal")
    state = loop.start(run, KEY)
    train = run.train
    batch = {
        "labelled": np.arange(16, dtype=np.int32),
        "unlabelled": np.arange(16, 32, dtype=np.int32),
        "positions": np.arange(16, dtype=np.int32),
    }
    ranks = lambda first: programs._joint_ranks(
        run,
        state.task,
        train,
        KEY,
        {"first_epoch": np.bool_(first), "adversary": np.True_, "step": 3},
        batch,
    )
    first = np.concatenate([r.decoder for r in ranks(True)])
    assert len(np.unique(first)) == 32
    assert first.min() >= 0
    assert first.max() < 1
    assert abs(first.mean() - 0.5) < 0.2
    for half, name in zip(ranks(False), ("labelled", "unlabelled"), strict=True):
        predicted = programs.task.predict_loss(run, state.task, train.plain(batch[name]))
        expected = vaal.rank_of(run, predicted)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), half, expected)


def finish(generator):
    """The value a generator returns."""
    while True:
        try:
            next(generator)
        except StopIteration as stop:
            return stop.value


@pytest.mark.parametrize("pool", ["all", "subset"])
def test_ranks_of_the_second_phase_are_the_rankers_where_they_are_used(pool):
    run = prepared("tavaal", "two_phase", pool)
    state = loop.start(run, KEY)
    inspected = finish(loop._inspect(run, KEY, state, "adversary"))
    predicted = np.asarray(inspected.predicted)
    images = run.train.plain(np.arange(run.size))
    expected = np.asarray(programs.task.predict_loss(run, state.task, images))
    used = np.ones(run.size, bool)
    if pool == "subset":
        used = state.labelled.copy()
        used[plans.subset(KEY, 0, state.labelled, 100)] = True
        assert used.sum() == 120
    np.testing.assert_allclose(predicted[used], expected[used], rtol=1e-4, atol=1e-6)
    assert not predicted[~used].any()
    logits = programs.task.predict(run, state.task, images).logits
    losses = np.asarray(run.problem.image_losses(logits, run.train.labels))
    np.testing.assert_allclose(inspected.losses[used], losses[used], rtol=1e-4, atol=1e-6)
    assert np.isnan(inspected.losses[~used]).all()


def cycle_of(run, cycles=1):
    """Every state of a run's first cycles, copied before it is given up, with its report."""
    state = loop.start(run, KEY)
    seen = [(jax.tree.map(np.array, state), None)]
    for after, report in loop.advance(run, KEY, state, lambda stage: 5):
        seen.append((jax.tree.map(np.array, after), report))
        if after.cycle == cycles:
            return seen
    return seen


@functools.cache
def first_cycle(method):
    return cycle_of(prepared(method))


@pytest.mark.parametrize("name", METHODS)
def test_methods_share_initial_images_weights_and_subset(name):
    (first, _), (end, _) = first_cycle("random")[0], first_cycle(name)[-1]
    mine = first_cycle(name)[0][0]
    np.testing.assert_array_equal(first.labelled_in, mine.labelled_in)
    jax.tree.map(np.testing.assert_array_equal, first.task.learner_params, mine.task.learner_params)
    picks = np.flatnonzero(end.labelled_in == 1)
    assert len(picks) == 10
    assert set(picks) <= set(plans.subset(KEY, 0, first.labelled, 100))
    assert sorted(end.pick_rank[picks]) == list(range(10))
    np.testing.assert_array_equal(end.labelled_in == 0, first.labelled_in == 0)
    assert (mine.task.ranker_params is None) == (METHODS[name].ranking_loss is None)
    assert (mine.vaal is None) == (METHODS[name].adversary is None)


def task_losses(seen):
    reports = [r for _, r in seen if r and r.count and r.stage in ("task", "joint")]
    return np.concatenate([r.values()["task_loss"] for r in reports])


@pytest.mark.parametrize("name", ["coreset", "mc_dropout", "vaal"])
def test_methods_without_a_ranking_loss_train_the_same_learner(name):
    run = prepared(name)
    if name == "mc_dropout":
        run = without_dropout()
    seen, random = cycle_of(run), first_cycle("random")
    losses = task_losses(random)
    assert len(losses) == loop.stage_steps(run.config, run.size, 0, "task")
    # Another program around the same steps may round differently: XLA fuses them as it sees fit.
    np.testing.assert_allclose(task_losses(seen), losses, rtol=1e-5, atol=1e-6)
    trained = [
        next(s for s, r in states if r and r.stage_ended).task.learner_params
        for states in (seen, random)
    ]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), *trained)


@functools.cache
def without_dropout():
    config = prepared("mc_dropout").config.copy_and_resolve_references()
    config.mc_dropout.rate = 0.0
    dataset = load(config)
    data = parallel.place(dataset.on_device())
    return programs.prepare(config, METHODS["mc_dropout"], dataset, data)


def test_dropout_is_on_in_training_for_mc_dropout_alone():
    dropped, kept = task_losses(first_cycle("mc_dropout")), task_losses(cycle_of(without_dropout()))
    assert np.abs(dropped - kept).min() > 1e-4


def test_vaal_is_tavaal_without_the_rank():
    """The same VAE, discriminator and picks: the rank is the only difference."""
    tavaal = METHODS["tavaal"]
    unranked = tavaal._replace(adversary="plain")
    config = prepared("tavaal").config
    dataset = load(config)
    run = programs.prepare(config, unranked, dataset, parallel.place(dataset.on_device()))
    assert run.method.ranking_loss is not None
    mine, theirs = (seen[-1][0] for seen in (cycle_of(run), first_cycle("vaal")))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
                 mine.vaal, theirs.vaal)  # fmt: skip
    np.testing.assert_array_equal(mine.pick_rank, theirs.pick_rank)
    with_rank = first_cycle("tavaal")[-1][0]
    assert (with_rank.pick_rank != theirs.pick_rank).any()


@pytest.mark.parametrize("name", METHODS)
def test_a_choice_is_diagnosed(name):
    (report,) = [r for _, r in first_cycle(name) if r and r.stage == "diagnose" and r.stage_ended]
    method, found, arrays = METHODS[name], report.metrics, report.details
    assert np.isfinite(list(found.values())).all()
    assert ("spearman" in found) == (method.ranking_loss is not None)
    assert ("discriminator_auc" in found) == (method.adversary is not None)
    assert found["overlap_random"] == 1.0 if name == "random" else found["overlap_random"] < 1.0
    if "learning_loss" in name and method.adversary is None:
        assert found["overlap_highest_predicted"] == 1.0
    assert sorted(arrays["rank"][arrays["rank"] >= 0]) == list(range(10))
    assert len(arrays["index"]) == len(arrays["loss"]) == 100
    assert len(arrays["labelled"]) == 20
    assert arrays["classes"].shape == (100, 100)


@pytest.mark.parametrize("schedule", ["joint", "two_phase"])
def test_going_on_from_any_yielded_state_gives_the_same_end(schedule):
    run = prepared("tavaal", schedule)
    seen = cycle_of(run, cycles=2)
    end = seen[-1][0]
    assert end.cycle == 2
    assert np.isfinite(end.results).all()
    endings = [i for i, (_, report) in enumerate(seen) if report and report.stage_ended]
    # The moments around the end of each stage are the delicate ones.
    for index in {i + offset for i in endings for offset in (-1, 0)}:
        state = seen[index][0]
        state = state.replace(
            cycle=int(state.cycle), stage=int(state.stage), step=int(state.step),
            task=parallel.place(state.task), vaal=parallel.place(state.vaal),
        )  # fmt: skip
        last, _ = [(state, None), *loop.advance(run, KEY, state, lambda stage: 3)][-1]
        jax.tree.map(np.testing.assert_array_equal, jax.tree.map(np.array, last), end)


def test_reports_name_the_cycle_and_stage_they_come_from():
    reports = [report for _, report in cycle_of(prepared("tavaal"), 2) if report]
    ended = [(r.cycle, r.stage) for r in reports if r.stage_ended]
    assert ended == [
        (0, "joint"), (0, "evaluate"), (0, "select"), (0, "diagnose"),
        (1, "task"), (1, "evaluate"),
    ]  # fmt: skip
    values = [r.metrics for r in reports if r.stage == "evaluate" and r.metrics]
    assert len(values) == 2
    assert all(0 < v["accuracy"] <= 1 for v in values)


def test_the_last_cycle_of_the_joint_schedule_trains_t_alone():
    run = prepared("tavaal")
    last = [(s, r) for s, r in cycle_of(run, 2) if r and (r.cycle, r.stage) == (1, "task")]
    assert {name for _, r in last for name in r.metrics} == {"task_loss", "ranking_loss"}
    fresh, end = run.programs["init"](run.train, KEY, 1), last[-1][0]
    jax.tree.map(np.testing.assert_array_equal, fresh["vaal"], end.vaal)
    changed = jax.tree.map(
        lambda a, b: bool((a != b).any()), fresh["task"].learner_params, end.task.learner_params
    )
    assert all(jax.tree.leaves(changed))


def test_the_joint_program_without_the_adversary_is_the_step_of_t():
    """T trains the same in the joint program's last cycle as in the program of T and R alone."""
    run = prepared("learning_loss_v2")
    state = loop.start(run, KEY)
    alone = task_losses(advance_last(run, state))
    joint = prepared("tavaal")
    with_joint = task_losses(advance_last(joint, loop.start(joint, KEY)))
    np.testing.assert_allclose(with_joint, alone, rtol=1e-5, atol=1e-6)


def advance_last(run, state):
    """Reports of the last cycle, begun with the initial pool."""
    state = state.replace(cycle=1)
    return [
        (None, r) for _, r in loop.advance(run, KEY, state, lambda stage: 5) if r.stage == "task"
    ]
