"""Runs trials in this process; each method is compiled once for all of them."""

import contextlib
import functools
import pathlib
from collections.abc import Callable, Generator, Sequence
from typing import NamedTuple

from ml_collections import ConfigDict

from tavaal_jax.algorithm.losses import IGNORED
from tavaal_jax.algorithm.methods import METHODS
from tavaal_jax.data import Dataset
from tavaal_jax.data.oracle import SimulatedOracle
from tavaal_jax.engine import compilation, memory, processes
from tavaal_jax.errors import UserError
from tavaal_jax.report import checkpoints, files, records
from tavaal_jax.study import setup
from tavaal_jax.study.model import About
from tavaal_jax.study.recorder import Recorder
from tavaal_jax.study.trial import Stop, Trial

Outcomes = Generator[UserError | None, None, None]
"""Runs trials; yields whenever one has ended what ended it, None where that was its end.

Raises Interrupted when the study was asked to stop and all is saved.
"""


class TrialHooks(NamedTuple):
    """What trials tell their study, and ask of it."""

    tracker: Callable[..., None]
    """As in `report.progress`."""
    on_results: Callable[[], object]
    """Called when a trial's results.csv has changed."""
    stop: Stop


class Runner:
    """A study's data on the devices, and the programs of its methods."""

    def __init__(
        self,
        config: ConfigDict,
        folder: pathlib.Path,
        dataset: Dataset,
        oracle: SimulatedOracle,
        told: TrialHooks,
    ):
        self._config, self._folder, self._dataset = config, folder, dataset
        self._oracle, self._placed = oracle, setup.place(config, dataset)
        self._about = About(
            dataset.train_ids, dataset.class_names, dataset.shape, str(dataset.train_images.dtype)
        )
        self._told = told
        self._setups: dict[str, setup.Setup] = {}

    def run_all(self, todo: Sequence[tuple[str, int]]) -> Outcomes:
        """Runs `todo`, pairs of method and trial."""
        for place in todo:
            try:
                self.run(*place)
            except UserError as error:
                yield error
            else:
                yield None

    def run(self, name: str, trial: int) -> None:
        """One trial of the method `name`, from where it stands to its end; see `Trial.run`.

        Raises Taken where another process is at it.
        """
        compilation.make_room()
        prepared = self._setup(name)
        folder = files.trial_folder(self._folder, name, trial)
        recorder = functools.partial(
            Recorder, prepared, trial, folder, self._about, *self._told[:2]
        )
        with contextlib.ExitStack() as held:

            def claim() -> bool:
                """Whether there is something left to do."""
                held.enter_context(files.claim_trial(self._folder, name, trial))
                with contextlib.suppress(UserError):  # What is damaged is the trial's to say.
                    return not is_finished(folder, self._config.cycles)
                return True

            if processes.by_first(claim):
                mend = memory.advice(self._config, " in a new --workdir")
                with memory.explain_full(f"{name} trial {trial}", mend):
                    Trial(prepared, trial, recorder, self._told.stop).run()

    def _setup(self, name: str) -> setup.Setup:
        if name not in self._setups:
            config, dataset = self._config, self._dataset
            self._setups[name] = setup.prepare(
                config, METHODS[name], dataset, self._placed, self._oracle
            )
        return self._setups[name]


def is_finished(folder: pathlib.Path, cycles: int) -> bool:
    """Whether a trial has all its results, and nothing to go on from; UserError where damaged.

    Checkpoints that were left when it ended are removed.
    """
    left = folder / "checkpoints"
    done = {row["cycle"] for row in records.read_results(folder)} == set(range(cycles))
    if done and (folder / "model" / "model.json").exists():
        checkpoints.remove(left)
    return done and not left.exists()


def oracle(dataset: Dataset) -> SimulatedOracle:
    """Answers with the data set's labels; UserError where some are unknown, or none are for tests.

    A study simulates people. A map may be without a class in all its pixels, but not every map.
    """
    unknown = 0 if dataset.has_maps else int((dataset.train_labels < 0).sum())
    if unknown:
        raise UserError(
            f"{unknown} of {len(dataset.train_labels)} labels of {dataset.name} are -1: a study"
            " simulates people and needs them all; tavaal_jax.query picks without"
        )
    if not len(dataset.test_images):
        raise UserError(f"{dataset.name} has no test images: a study is measured on some")
    if dataset.has_maps:
        _check_maps(dataset)
    return SimulatedOracle.of(dataset)


def _check_maps(dataset):
    of_tests = (dataset.test_labels[row] for row in range(len(dataset.test_images)))
    for kind, is_any in (
        ("training", dataset.known.any()),
        ("test", any((one != IGNORED).any() for one in of_tests)),
    ):
        if not is_any:
            raise UserError(
                f"all {kind} maps of {dataset.name} are {IGNORED} in every pixel, which is none of"
                f" its {dataset.classes} classes: give some with classes"
            )
