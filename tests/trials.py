"""Trials of two moons, shrunk: what the tests of the study room go through."""

import contextlib
import functools

import jax
import numpy as np
import pytest

from configs import moons
from tavaal_jax import config as configs
from tavaal_jax.algorithm.methods import METHODS
from tavaal_jax.algorithm.state import derive
from tavaal_jax.data import load
from tavaal_jax.data.oracle import SimulatedOracle
from tavaal_jax.engine import devices, programs
from tavaal_jax.report import progress
from tavaal_jax.study import cycle, setup
from tavaal_jax.study import model as fitted
from tavaal_jax.study.context import Cycle
from tavaal_jax.study.recorder import Recorder
from tavaal_jax.study.trial import Trial

KEY = derive(jax.random.key(0), 1)


def config_of(**changes):
    """Two cycles of a few steps; `changes` by their dotted names."""
    config = moons.get_config()
    config.update(cycles=2, epochs=4, batch_size=16)
    config.vae.epochs = 4
    config.update_from_flattened_dict(changes)
    return config


@functools.cache
def dataset():
    return load(config_of())


def setup_of(config, method):
    """A set-up whose oracle knows every label."""
    placed = setup.place(config, dataset())
    return setup.prepare(config, method, dataset(), placed, SimulatedOracle(dataset().train_labels))


@functools.cache
def prepared(method, schedule="joint", unlabelled="all"):
    """The set-up of a method by name; its programs are compiled once per process."""
    changes = {"schedule": schedule, "vae.unlabelled": unlabelled}
    return setup_of(config_of(**changes), METHODS[method])


def steps(made, state, steps_per_call=5):
    """`cycle.advance` from a state to the end of the trial."""
    return cycle.advance(made, KEY, state, lambda stage: steps_per_call)


def cycle_of(made, cycles=1):
    """Every state of a trial's first cycles, copied before it is given up, with its report."""
    state = cycle.start(made, KEY)
    seen = [(jax.tree.map(np.array, state), None)]
    for after, report in steps(made, state):
        seen.append((jax.tree.map(np.array, after), report))
        if after.cycle == cycles:
            return seen
    return seen


@functools.cache
def first_cycle(method):
    return cycle_of(prepared(method))


def placed(state):
    """A copied state, as it was."""
    return state.replace(
        cycle=int(state.cycle), stage=str(state.stage), step=int(state.step),
        learner=devices.place(state.learner), adversary=devices.place(state.adversary),
    )  # fmt: skip


def begun(made, state=None):
    """A cycle of a trial under way, and its state: `-> Cycle, LoopState`."""
    state = cycle.start(made, KEY) if state is None else state
    return Cycle(made, KEY, state, lambda stage: 5), state


def finish(generator):
    """The value that a generator returns."""
    while True:
        try:
            next(generator)
        except StopIteration as stop:
            return stop.value


# Keys that no program depends on.
_OF_THE_STUDY = (
    "seed", "methods", "trials", "first_trial", "cycles", "initial", "budget", "subset",
    "schedule", "diagnostics", "folder", "data_dir", "checkpoint_every_steps", "log_every_steps",
)  # fmt: skip


@contextlib.contextmanager
def compiled_once():
    """Within it, studies with the same networks and as many images share their programs.

    They go on as another process would, but that nothing is traced and compiled again.
    """
    built, build, prepare, sizes = {}, programs.build, setup.prepare, [()]

    def build_once(config, method, shape, classes):
        plain = configs.plain(config)
        key = str([value for name, value in plain.items() if name not in _OF_THE_STUDY])
        key = key, method, shape, classes, sizes[0]
        if key not in built:
            built[key] = build(config, method, shape, classes)
        return built[key]

    def prepare_once(config, method, dataset, *placed):
        sizes[0] = len(dataset.train_images), len(dataset.test_images)  # A program is of a shape.
        return prepare(config, method, dataset, *placed)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(programs, "build", build_once)
        patch.setattr(setup, "prepare", prepare_once)
        yield


@functools.cache
def _placed():
    return setup.place(config_of(), dataset())


def trial(folder, config, method=METHODS["random"], stop=lambda: None, callback=progress.silent):
    """A trial of moons in `folder`, as a study makes it."""
    data = dataset()
    made = setup.prepare(config, method, data, _placed(), SimulatedOracle(data.train_labels))
    info = fitted.DatasetInfo.from_dataset(data)
    tracker = progress.Tracker(callback, 100)
    recorder = functools.partial(Recorder, made, 0, folder, info, tracker, lambda: None)
    return Trial(made, 0, recorder, stop)
