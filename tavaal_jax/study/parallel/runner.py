"""Runs trials in this process; each method is compiled once for all of them."""

import pathlib
from collections.abc import Generator, Sequence

from ml_collections import ConfigDict

from tavaal_jax.algorithm.losses import IGNORED
from tavaal_jax.algorithm.methods import METHODS
from tavaal_jax.data import Dataset
from tavaal_jax.data.oracle import SimulatedOracle
from tavaal_jax.engine import compilation, memory
from tavaal_jax.errors import UserError
from tavaal_jax.report import checkpoints, files, records
from tavaal_jax.study import near_duplicates, setup
from tavaal_jax.study.model import DatasetInfo
from tavaal_jax.study.recorder import Observe, Recorder
from tavaal_jax.study.trial import Trial, TrialHooks

Outcomes = Generator[UserError | None, None, None]
"""Runs trials; yields for each the error that ended it, or None.

Raises Interrupted when the study was asked to stop and all is saved.
"""


class Runner:
    """Runner of trials, with a study's data on the devices and the programs of its methods."""

    def __init__(
        self,
        config: ConfigDict,
        folder: pathlib.Path,
        dataset: Dataset,
        oracle: SimulatedOracle,
        hooks: TrialHooks,
    ):
        near_duplicates.check_size(config, dataset)
        self._config, self._folder, self._dataset = config, folder, dataset
        self._oracle, self._placed = oracle, setup.place(config, dataset)
        self._info = DatasetInfo.from_dataset(dataset)
        self._hooks = hooks
        self._setups: dict[str, setup.Setup] = {}

    def run_all(self, todo: Sequence[tuple[str, int]]) -> Outcomes:
        """Runs trials one after the other: `todo` are pairs of method and trial."""
        for place in todo:
            try:
                self.run(*place)
            except UserError as error:
                yield error
            else:
                yield None

    def run(self, name: str, trial: int) -> None:
        """Runs one trial of the method `name` from where it stands; see `Trial.run`."""
        compilation.make_room()
        prepared = self._setup(name)
        folder = files.trial_folder(self._folder, name, trial)
        hooks = self._hooks

        def open_recorder(observe: Observe) -> Recorder:
            return Recorder(
                prepared, trial, folder, self._info, hooks.track, hooks.on_results, observe
            )

        mend = memory.advice(self._config, " in a new --workdir")
        with memory.explain_full(f"{name} trial {trial}", mend):
            Trial(prepared, trial, open_recorder, hooks.stop).run()

    def _setup(self, name: str) -> setup.Setup:
        if name not in self._setups:
            config, dataset = self._config, self._dataset
            self._setups[name] = setup.prepare(
                config, METHODS[name], dataset, self._placed, self._oracle
            )
        return self._setups[name]


def is_finished(folder: pathlib.Path, cycles: int) -> bool:
    """Whether a trial has all its results and no checkpoints; UserError where files are damaged.

    Checkpoints that were left behind when it ended are removed.
    """
    left = folder / "checkpoints"
    done = {row["cycle"] for row in records.read_results(folder)} == set(range(cycles))
    if done and (folder / "model" / "model.json").exists():
        checkpoints.remove(left)
    return done and not left.exists()


def oracle(dataset: Dataset) -> SimulatedOracle:
    """Builds the oracle of a simulation from the data set's labels, all of which must be known.

    Raises UserError where some are not, or there are no test images. A label map may be without a
    class in all its pixels, but not every map.
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


def _check_maps(dataset: Dataset) -> None:
    """Raises UserError where no training map, or no test map, has a pixel with a class."""
    test_maps = (dataset.test_labels[row] for row in range(len(dataset.test_images)))
    for kind, is_any in (
        ("training", dataset.known.any()),
        ("test", any((one != IGNORED).any() for one in test_maps)),
    ):
        if not is_any:
            raise UserError(
                f"all {kind} maps of {dataset.name} are {IGNORED} in every pixel, which is none of"
                f" its {dataset.classes} classes: give some with classes"
            )
