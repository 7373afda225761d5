"""Claim: `vmap` over trials speeds up training where a step is dispatch; arithmetic stays as long.

    python benchmarks/vmapped.py --config=moons --stage=joint [--trials=8] [--rounds=7] [--json]

The same steps of trials with weights, keys and batches of their own: one after another, in the
programs of a study, and as one program. `ratio` is the time of the former over that of the latter.
The two agree to rounding after one step, which is checked. What else a trial takes, calls from the
host and files, is not measured here.
"""

import functools
import importlib

import harness
import jax
import numpy as np

from tavaal_jax import data
from tavaal_jax.algorithm import optim
from tavaal_jax.algorithm.methods import METHODS
from tavaal_jax.algorithm.state import derive
from tavaal_jax.data import plans
from tavaal_jax.engine import components, devices, steps

STEPS = {"task": steps.task_step, "joint": steps.joint_step}


def plans_of(programs, stage: str, trials: int) -> plans.IndexPlan:
    """Batches of all steps of a call and of all trials, `[steps, B, K]`."""
    random, config = np.random.default_rng(0), programs.config
    shape = (config.steps_per_call, config.batch_size, trials)
    rows = lambda: random.integers(0, programs.setup.size, shape).astype(np.int32)
    positions = np.arange(config.batch_size, dtype=np.int32)[None, :, None]
    unlabelled = None if stage == "task" else rows()
    return plans.IndexPlan(rows(), unlabelled, np.broadcast_to(positions, shape))


def main():
    """Command line."""
    flags = harness.parser(__doc__, rounds=7)
    flags.add_argument("--config", default="moons")
    flags.add_argument("--stage", choices=STEPS, default="joint")
    flags.add_argument("--trials", type=int, default=8)
    arguments = flags.parse_args()
    stage, trials = arguments.stage, arguments.trials
    config = importlib.import_module(f"configs.{arguments.config}").get_config()
    programs = harness.Programs(config, data.load(config))
    setup, method = programs.setup, METHODS["tavaal"]
    parts = components.build(config, method, setup.train.images.shape[1:], setup.problem)
    step = functools.partial(STEPS[stage], parts)
    vmapped = devices.train_program(
        jax.vmap(step, in_axes=(0, None, 0, None, 1)), f"train_{stage}_of_trials"
    )
    keys = [derive(programs.key, trial) for trial in range(trials)]
    stack = lambda trees: jax.tree.map(lambda *leaves: jax.numpy.stack(leaves), *trees)

    def start(key):
        networks = devices.place(setup.programs.init(key, 0))
        return networks._replace(adversary=None) if stage == "task" else networks

    states = {"single": [start(key) for key in keys]}
    states["vmapped"] = devices.place(stack(states["single"]))
    all_keys, plan = stack(keys), plans_of(programs, stage, trials)
    own_plans = [jax.tree.map(lambda rows, k=k: rows[..., k], plan) for k in range(trials)]
    given, per_pass = (programs.train_set, None), max(1, setup.size // config.batch_size)
    # The second epoch: in the first, the joint stage needs no ranks.
    schedule = optim.schedule(config, per_pass, config.steps_per_call, per_pass)
    train = setup.programs.train[stage]

    def one_after_another(count):
        states["single"] = [
            train(state, given, key, schedule, own, count)[0]
            for state, key, own in zip(states["single"], keys, own_plans, strict=True)
        ]
        return states["single"]

    def together(count):
        states["vmapped"] = vmapped(states["vmapped"], given, all_keys, schedule, plan, count)[0]
        return states["vmapped"]

    for ours, theirs in zip(
        jax.tree.leaves(together(1)), jax.tree.leaves(stack(one_after_another(1))), strict=True
    ):
        # A first step of Adam has the sign of a gradient that may be zero to rounding.
        differs = ~np.isclose(ours, theirs, rtol=1e-3, atol=1e-5)
        assert np.mean(differs) < 1e-2, f"{np.sum(differs)} of {ours.size} numbers differ"
    count = config.steps_per_call
    times = harness.interleave(
        {
            "vmapped": lambda: harness.turn(lambda: together(count)),
            "one after another": lambda: harness.turn(lambda: one_after_another(count)),
        },
        arguments.rounds,
    )
    title = f"{count} {stage} steps of each of {trials} trials, {arguments.config}"
    harness.report(title, times, None, arguments, trials=trials)


if __name__ == "__main__":
    main()
