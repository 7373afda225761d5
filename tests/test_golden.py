"""Losses of the first steps of every method, and its first picks: they change only on purpose.

Two epochs in each of two cycles, for every way of training, reach what the first steps do not: a
learning rate that has dropped, a detached Ranker, fresh weights, more labels.

Whoever means to change them runs `python tests/test_golden.py`, which writes `golden.json` anew,
and says so in the commit and in CHANGELOG.md. With names of methods it writes only theirs.
"""

import json
import pathlib
import sys

import jax
import numpy as np
import pytest

GOLDEN = pathlib.Path(__file__).with_name("golden.json")
STEPS, PICKS = 3, 5
TRAINED = (
    "random", "mc_dropout", "learning_loss", "learning_loss_v2", "vaal", "vaal_learning_loss",
    "tavaal", "sraal",
)  # fmt: skip
LATE = {
    "epochs": 2, "cycles": 3, "task.decay_at": 0.5, "ranker.active_fraction": 0.5,
    "ranker.loss_weight": 10.0,  # Detached or not is to be seen in the losses.
}  # fmt: skip


def advanced(method, steps, **changes):
    """States and reports of a method on a shortened `smoke`."""
    from tavaal_jax import METHODS, config_file
    from tavaal_jax.algorithm.state import derive
    from tavaal_jax.data import load
    from tavaal_jax.data.oracle import SimulatedOracle
    from tavaal_jax.study import cycle, setup

    path = GOLDEN.parent.parent / "configs" / "smoke.py"
    changes = {"cycles": 2, "epochs": 1, "mc_dropout.passes": 4, **changes}
    config = config_file.load(path, diagnostics=False, **changes)
    dataset = load(config)
    placed, oracle = setup.place(config, dataset), SimulatedOracle(dataset.train_labels)
    made = setup.prepare(config, METHODS[method], dataset, placed, oracle)
    key = derive(jax.random.key(0), 0)
    yield from cycle.advance(made, key, cycle.start(made, key), lambda stage: steps)


def losses_of(report):
    return {k: [float(x) for x in v] for k, v in report.values().items()}


def recorded(method):
    """Losses of the first steps, and the first choice."""
    losses = {}
    for state, report in advanced(method, STEPS):
        if report.count and not losses:
            losses = losses_of(report)
        if report.stage == "select" and report.stage_ended:
            picks = np.argsort(np.where(state.pick_rank < 0, len(state.labels), state.pick_rank))
            return {"losses": losses, "picks": picks[:PICKS].tolist()}
    raise AssertionError("nothing was picked")


def recorded_late(method):
    """Losses of two epochs in each of two cycles; learning rate and Ranker change after the first.

    Only the second epoch of the first cycle is kept, in which both have changed.
    """
    found = []
    for _, report in advanced(method, 100, **LATE):
        if report.count:
            found.append(losses_of(report))
        if len(found) == 2:
            first, second = found
            half = {name: values[len(values) // 2 :] for name, values in first.items()}
            return {"second_epoch": half, "second_cycle": second}
    raise AssertionError("there was no second cycle")


def methods():
    """Those of the table."""
    from tavaal_jax import METHODS

    return tuple(METHODS)


QUICK = ("random", "coreset", "tavaal", "badge")


@pytest.mark.parametrize(
    "method",
    [m if m in QUICK else pytest.param(m, marks=pytest.mark.slow) for m in methods()],
)
def test_first_steps_and_first_picks_are_those_on_record(method):
    golden, now = json.loads(GOLDEN.read_text())[method], recorded(method)
    check_losses(method, now["losses"], golden["losses"], 2e-4)
    assert now["picks"] == golden["picks"], advice(method)


def advice(method):
    return (
        f"{method} no longer computes what it did: if that is meant, run"
        " `python tests/test_golden.py` and say so in CHANGELOG.md"
    )


def check_losses(method, now, golden, rtol):
    assert now.keys() == golden.keys(), advice(method)
    for name, values in golden.items():
        np.testing.assert_allclose(now[name], values, rtol=rtol, err_msg=advice(method))


@pytest.mark.parametrize(
    "method",
    [m if m == "tavaal" else pytest.param(m, marks=pytest.mark.slow) for m in TRAINED],
)
def test_later_epochs_and_cycles_are_those_on_record(method):
    golden, now = json.loads(GOLDEN.read_text())[method], recorded_late(method)
    for part in ("second_epoch", "second_cycle"):
        check_losses(method, now[part], golden[part], 1e-3)


def test_every_method_is_on_record_and_no_other():
    assert set(json.loads(GOLDEN.read_text())) == set(methods())


if __name__ == "__main__":
    sys.path.insert(0, str(GOLDEN.parent.parent))
    before = json.loads(GOLDEN.read_text()) if sys.argv[1:] else {}
    for name in sys.argv[1:] or methods():
        late = recorded_late(name) if name in TRAINED else {}
        before[name] = recorded(name) | late
    found = {name: before[name] for name in methods() if name in before}
    GOLDEN.write_text(json.dumps(found, indent=1) + "\n")
