"""A linear T: solved in a stage of its own, while steps train Ranker and adversary alone."""

import json
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics as scikit_metrics
from trials import KEY, compiled_once, config_of, cycle_of, dataset, setup_of, steps, trial

import tavaal_jax
from tavaal_jax import models
from tavaal_jax.algorithm import logistic, losses
from tavaal_jax.algorithm.learner import Learner, Settings
from tavaal_jax.algorithm.methods import METHODS
from tavaal_jax.algorithm.problems import Classification
from tavaal_jax.algorithm.state import Batch, Schedule
from tavaal_jax.errors import Interrupted
from tavaal_jax.report import records
from tavaal_jax.study import cycle

LINEAR = {"task.network": "linear", "normalisation.features": "together"}


@pytest.fixture(autouse=True, scope="module")
def _compiled_once():
    with compiled_once():
        yield


def config(**changes):
    return config_of(**LINEAR, **changes)


def names(method, number=0, **changes):
    return cycle.stage_names(config(**changes), METHODS[method], number)[:3]


def test_solving_is_a_stage_before_what_is_left_to_train():
    assert names("random") == ("solve", "evaluate", "select")
    assert names("learning_loss") == ("solve", "task", "evaluate")
    assert names("tavaal") == names("vaal") == ("solve", "joint", "evaluate")
    assert names("vaal", schedule="two_phase") == ("solve", "evaluate", "adversary")
    assert names("tavaal", schedule="two_phase") == ("solve", "task", "evaluate")
    assert names("vaal", 1) == ("solve", "evaluate")
    assert names("tavaal", 1) == ("solve", "task", "evaluate")


def test_steps_train_the_ranker_and_the_adversary_alone():
    made = setup_of(config(), METHODS["tavaal"])
    states = {}
    for state, report in cycle_of(made):
        stage = (report.stage, report.stage_ended) if report else "start"
        states.setdefault(stage, state)
        states[stage, "last"] = state
    solved, trained = states["solve", True], states[("joint", True), "last"]
    same = jax.tree.map(np.array_equal, solved.learner.params, trained.learner.params)
    assert all(jax.tree.leaves(same["learner"]))
    assert not any(jax.tree.leaves(same["ranker"]))
    assert "learner" not in str(jax.tree.structure(trained.learner.optimiser))
    fresh = states["start"].learner.params["learner"]
    assert not np.array_equal(*(jax.tree.leaves(x)[-1] for x in (fresh, solved.learner.params)))


@pytest.mark.parametrize("loss", [losses.ranking, losses.margin])
def test_the_ranker_learns_on_many_features_at_the_learning_rate_of_images(loss):
    settings = config()
    learner = Learner(
        models.build_learner(settings, 3, (1024,)), models.build_ranker(settings), loss,
        Classification(3), Settings.of(settings), solved=True,
    )  # fmt: skip
    # Like those of photos, they differ the most along few directions.
    factors, noise = (jax.random.normal(jax.random.key(n), (64, n)) for n in (8, 1024))
    loadings = jax.random.normal(jax.random.key(1), (8, 1024))
    features = (factors @ loadings / 8**0.5 + noise) / 2**0.5
    labels = jnp.argmax(factors[:, :3], axis=1)
    state = learner.init(KEY, features[:1])
    step, found = jax.jit(learner.step), []
    for number in range(100):
        rows = jax.random.permutation(jax.random.key(number), 64)[:16]
        schedule = Schedule(jnp.int32(number), jnp.float32(0.1), jnp.array(True), jnp.array(False))
        state, metrics = step(state, Batch(features[rows], labels[rows]), schedule)
        found.append(float(metrics["ranking_loss"]))
    assert np.mean(found[-20:]) < found[0] / 2


@pytest.mark.parametrize("placement", ["resident", "streamed"])
def test_on_many_devices_it_is_solved_as_on_one(placement):
    made = setup_of(config(data_placement=placement, initial=21), METHODS["random"])
    state, report = next(steps(made, cycle.start(made, KEY)))
    labelled = np.flatnonzero(state.labelled)
    rows = np.resize(labelled, 32)
    images = jax.vmap(made.train.normalise)(np.asarray(dataset().train_images)[rows])
    examples = logistic.Examples(
        images, dataset().train_labels[rows], (np.arange(32) < 21).astype(np.float32)
    )
    head, choice = jax.jit(logistic.fit, static_argnums=1)(examples, 2)
    found = state.learner.params["learner"]["Dense_0"]
    np.testing.assert_allclose(found["kernel"], head.kernel, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(report.metrics["inverse_regularisation"], choice.strength)


def test_balanced_classes_weigh_alike():
    heads = []
    for weights in ("", "balanced"):
        settings = config(initial=120, **{"task.class_weights": weights})
        made = setup_of(settings, METHODS["random"])
        state, _ = next(steps(made, cycle.start(made, KEY)))
        heads.append(state.learner.params["learner"]["Dense_0"]["bias"])
    counts = np.bincount(dataset().train_labels[state.labelled])
    assert counts[0] != counts[1]
    gain = np.diff(np.asarray(heads), axis=0)[0]
    assert gain.argmax() == counts.argmin()


@pytest.mark.parametrize("stage", ["solve", "joint"])
def test_stopped_in_a_stage_it_goes_on_to_the_same_files(tmp_path, stage):
    def stop_at(number):
        seen = []

        def callback(event):
            seen.extend([event.stage] if event.stage == stage else [])

        return callback, lambda: signal.SIGTERM if len(seen) == number else None

    made, expected = config(checkpoint_every_steps=1), None
    for folder, number in ((tmp_path / "whole", -1), (tmp_path / "stopped", 1)):
        callback, stop = stop_at(number)
        run = lambda **hooks: trial(folder, made, METHODS["tavaal"], **hooks).run()  # noqa: B023
        if number > 0:
            with pytest.raises(Interrupted):
                run(stop=stop, callback=callback)
        run()
        files = [(folder / name).read_bytes() for name in ("picks.csv", "results.csv")]
        log = [
            {k: v for k, v in record.items() if k not in ("seconds", "waited")}
            for record in map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
            if record["stage"] == "solve"
        ]
        assert [record["cycle"] for record in log] == [0, 1]
        assert log[0]["inverse_regularisation"] in np.float32(logistic.STRENGTHS).tolist()
        expected = expected or (files, log)
        assert (files, log) == expected


def test_metrics_are_scikit_learns_and_the_first_is_in_front(tmp_path):
    settings = config(
        methods="random", trials=1, metrics="macro_f1,accuracy,balanced_accuracy",
        diagnostics=False,
    )  # fmt: skip
    result = tavaal_jax.run_study(settings, tmp_path)
    rows = [row for row in result.rows() if row["cycle"] == 1]
    model = tavaal_jax.load_model(tmp_path / "random" / "trial_0" / "model")
    predicted = model.predict_proba(dataset().test_images).argmax(1)
    true = dataset().test_labels
    assert [(row["metric"], pytest.approx(row["value"], abs=1e-6)) for row in rows] == [
        ("macro_f1", scikit_metrics.f1_score(true, predicted, average="macro")),
        ("accuracy", scikit_metrics.accuracy_score(true, predicted)),
        ("balanced_accuracy", scikit_metrics.balanced_accuracy_score(true, predicted)),
    ]
    assert records.read_results(tmp_path) == result.rows()
    assert "Test macro_f1" in (tmp_path / "summary.md").read_text()
