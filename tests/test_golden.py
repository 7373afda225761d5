"""Losses of three steps of every method, and its first picks: they change only on purpose.

Whoever means to change them runs `python tests/test_golden.py`, which writes `golden.json` anew,
and says so in the commit and in CHANGELOG.md.
"""

import json
import pathlib
import sys

import jax
import numpy as np
import pytest

GOLDEN = pathlib.Path(__file__).with_name("golden.json")
STEPS, PICKS = 3, 5


def recorded(method):
    """What a method does in the first steps, and at the first choice, of a shortened `smoke`."""
    from tavaal_jax import METHODS, config_file
    from tavaal_jax.algorithm.state import derive
    from tavaal_jax.data import load
    from tavaal_jax.data.oracle import SimulatedOracle
    from tavaal_jax.study import cycle, setup

    path = GOLDEN.parent.parent / "configs" / "smoke.py"
    config = config_file.load(
        path, cycles=2, epochs=1, diagnostics=False, **{"mc_dropout.passes": 4}
    )
    dataset = load(config)
    placed, oracle = setup.place(config, dataset), SimulatedOracle(dataset.train_labels)
    made = setup.prepare(config, METHODS[method], dataset, placed, oracle)
    key = derive(jax.random.key(0), 0)
    losses: dict[str, list[float]] = {}
    for state, report in cycle.advance(made, key, cycle.start(made, key), lambda stage: STEPS):
        if report.count and not losses:
            losses = {k: [float(x) for x in v] for k, v in report.values().items()}
        if report.stage == "select" and report.stage_ended:
            picks = np.argsort(np.where(state.pick_rank < 0, len(state.labels), state.pick_rank))
            return {"losses": losses, "picks": picks[:PICKS].tolist()}
    raise AssertionError("nothing was picked")


def methods():
    """Those of the table."""
    from tavaal_jax import METHODS

    return tuple(METHODS)


QUICK = ("random", "mc_dropout", "coreset", "learning_loss_v2", "tavaal", "margin", "badge")


@pytest.mark.parametrize(
    "method",
    [m if m in QUICK else pytest.param(m, marks=pytest.mark.slow) for m in methods()],
)
def test_first_steps_and_first_picks_are_those_on_record(method):
    golden, now = json.loads(GOLDEN.read_text())[method], recorded(method)
    advice = (
        f"{method} no longer computes what it did: if that is meant, run"
        " `python tests/test_golden.py` and say so in CHANGELOG.md"
    )
    assert now["losses"].keys() == golden["losses"].keys(), advice
    for name, values in golden["losses"].items():
        np.testing.assert_allclose(now["losses"][name], values, rtol=2e-4, err_msg=advice)
    assert now["picks"] == golden["picks"], advice


def test_every_method_is_on_record_and_no_other():
    assert set(json.loads(GOLDEN.read_text())) == set(methods())


if __name__ == "__main__":
    sys.path.insert(0, str(GOLDEN.parent.parent))
    found = {name: recorded(name) for name in methods()}
    GOLDEN.write_text(json.dumps(found, indent=1) + "\n")
