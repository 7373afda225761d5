"""A study: methods x trials on paired seeds; runs what is left, and puts the parts together."""

import contextlib
import functools
import pathlib
import time
from collections.abc import Callable, Iterator

from ml_collections import ConfigDict

from tavaal_jax import data
from tavaal_jax.algorithm.methods import METHODS
from tavaal_jax.data import SETS, Dataset
from tavaal_jax.engine import compilation, device_shares, devices, processes
from tavaal_jax.errors import Interrupted, TrialError, UserError, WorkdirLocked
from tavaal_jax.models.networks import NETWORKS
from tavaal_jax.report import files, page, plots, progress, records, summary
from tavaal_jax.report.records import Result
from tavaal_jax.study import checks, cycle, training
from tavaal_jax.study.parallel import runner, worker, worker_pool
from tavaal_jax.study.parallel.runner import Outcomes, TrialHooks
from tavaal_jax.study.recorder import UNITS
from tavaal_jax.study.trial import Stop


def run(
    config: ConfigDict,
    folder: pathlib.Path,
    dataset: Dataset | None,
    progress: progress.Callback,
    stop: Stop,
) -> None:
    """A simulation in `folder`, see `tavaal_jax.run_study`."""
    if dataset is None:
        fingerprint = data.fingerprint(config)
    else:
        config = _named_after(config, dataset)
        fingerprint = dataset.fingerprint()
    if processes.several():
        mine = files.running(config, fingerprint)
        mine["config"].pop("data_dir")  # Each may have a disk of its own.
        for what, value in mine.items():
            processes.check_alike(value, what)
    apart = config.parallel == "trials"
    if apart and processes.several():
        raise UserError(
            "parallel is 'trials' with --distributed: leave that out, and start the same command"
            " on each host with a --workdir that all of them see"
        )
    # What looks for devices takes their memory, which then belongs to the workers.
    seen = lambda: 1 if apart else devices.device_count()
    processes.by_first(lambda: checks.check(config, seen(), dataset))
    told = progress if processes.is_first() else lambda event: None
    with compilation.Count() as count:
        is_done = False
        while not is_done:
            with _claimed(folder, config, stop) as is_first:
                processes.by_first(lambda: files.check_config(folder, config, fingerprint))
                study = _Study(config, folder, told, dataset, is_first)
                study.run(stop)
            # The process that was helped may have gone before its end.
            is_done = is_first or not files.is_free(folder)
        if count.programs:
            study.say(f"{count}.")
    processes.by_first(study.raise_faults)


@contextlib.contextmanager
def _claimed(folder: pathlib.Path, config: ConfigDict, stop: Stop) -> Iterator[bool]:
    """The folder is this study's as long as the context lasts; whether it is so to this process.

    False is for one that helps another. Raises Taken where another one is there that takes no help.
    """
    with contextlib.ExitStack() as held:

        def claim() -> bool:
            while True:
                try:
                    held.enter_context(files.claim(folder))
                    files.tell_helpers(folder, None)
                    return True
                except WorkdirLocked:
                    how = files.how_it_runs(folder)
                    if config.parallel != "trials" or how not in ("trials", None):
                        raise
                    if how is not None:
                        return False
                _stop_if_asked(stop)
                time.sleep(0.5)  # The other one has just begun.

        yield processes.by_first(claim)


def _load(config: ConfigDict) -> Dataset:
    """The data set, on every process; where they share a disk, the first prepares it for all."""
    loaded: list[Dataset] = []
    processes.by_first(lambda: loaded.append(data.load(config)))
    dataset = processes.together(lambda: loaded[0] if loaded else data.load(config))
    if processes.several():
        processes.check_alike(dataset.fingerprint(), f"data of {dataset.name}")
    return dataset


def _stop_if_asked(stop: Stop) -> None:
    asked = processes.agree(stop())
    if asked is not None:
        raise Interrupted(asked)


def _forget_frames(error: BaseException | None) -> None:
    """Lets go of the frames that an error has passed, and with them of a trial's weights."""
    while error is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


def _named_after(config, dataset):
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.dataset = dataset.name
    return config


class Throttle:
    """Does something when it is called, unless it has lately taken a twentieth of the time."""

    def __init__(self, act: Callable[[], object]):
        self._act, self._next = act, 0.0

    def __call__(self) -> None:
        """Does it, or not."""
        begin = time.monotonic()
        if begin >= self._next:
            self._act()
            now = time.monotonic()
            self._next = now + 19 * (now - begin)


class _Study:
    """The trials of a folder, and what has become of them."""

    def __init__(
        self,
        config: ConfigDict,
        folder: pathlib.Path,
        callback: progress.Callback,
        given: Dataset | None,
        is_first: bool,
    ):
        """`given` is the data set where the config does not name it.

        One that is not the first helps another process: it writes its trials' files alone.
        """
        self.config, self.folder, self._callback = config, folder, callback
        self.names = checks.method_names(config)
        self.faults: list[UserError] = []
        self._given, self._is_first = given, is_first

    def run(self, stop: Stop) -> None:
        """Runs what is left, and writes the study's files."""
        config, dataset = self.config, self._given
        todo = processes.by_first(self.unfinished)
        if todo:
            dataset = _load(config) if dataset is None else dataset
            size = len(dataset.train_images)
            processes.by_first(lambda: checks.check_size(config, dataset.name, size))
            outcomes = self._prepare(todo, dataset, stop)
            _stop_if_asked(stop)
            if self._is_first:
                processes.by_first(self._begin)
            self._run_all(outcomes)
            _stop_if_asked(stop)
        else:
            self.say(f"All trials in {self.folder} are finished; nothing to do.")
        if self._is_first:
            processes.by_first(lambda: self._finish(dataset))
        else:
            self.say("Nothing is left that nobody is at.")

    def say(self, text: str) -> None:
        """A line about the whole study."""
        self._callback(progress.Event(text))

    def _begin(self):
        """Writes config.json, and that there is something to help with."""
        # Picks may have been brought here without the config.json they would be held to.
        brought = any(self.folder.glob("*/trial_*/picks.csv"))
        if brought and files.read_config(self.folder) is None:
            self.say(
                f"warning: picks are in {self.folder}, but no config.json shows how they were made:"
                " they are taken for this config's"
            )
        given = self._given
        fingerprint = data.fingerprint(self.config) if given is None else given.fingerprint()
        files.write_config(self.folder, self.config, fingerprint)
        files.tell_helpers(self.folder, self.config.parallel)

    def unfinished(self) -> list[tuple[str, int]]:
        """Trials to do, trial by trial."""
        trials = range(self.config.first_trial, self.config.trials)
        wanted = [(name, trial) for trial in trials for name in self.names]
        return [place for place in wanted if not self._is_finished(*place)]

    def _is_finished(self, name, trial):
        """Whether a trial is done, or damaged beyond what this can mend."""
        folder = files.trial_folder(self.folder, name, trial)
        try:
            return runner.is_finished(folder, self.config.cycles)
        except UserError:
            if (folder / "checkpoints").exists():
                return False  # It is written anew from them.
            text = f"{name} trial {trial}: {folder / 'results.csv'} is damaged, and there are no"
            self._fault(TrialError(f"{text} checkpoints: delete that folder to run it anew"))
            return True

    def _prepare(self, todo, dataset, stop) -> Outcomes:
        """What will run `todo`, and yield whenever a trial has ended, what ended it.

        In this process, which loads the data to its devices now, or in worker processes.
        """
        oracle = processes.together(lambda: runner.oracle(dataset))
        size = len(dataset.train_images)
        total = sum(self._units(name, size) for name, _ in todo)
        said = TrialHooks(
            progress.Tracker(self._callback, total), Throttle(self.write_results), stop
        )
        if self.config.parallel == "trials":
            methods = {name: METHODS[name] for name in self.names}
            network = self.config.task.network
            sets = {} if self._given is not None else {dataset.name: SETS[dataset.name]}
            networks = {network: NETWORKS[network]}
            job = worker.Job(self.config, self.folder, self._given, methods, networks, sets)
            return worker_pool.run(
                job, device_shares.divide_machine(self.config.workers), todo, said, self._is_first
            )
        return runner.Runner(self.config, self.folder, dataset, oracle, said).run_all(todo)

    def _run_all(self, outcomes: Outcomes) -> None:
        """Runs what was prepared."""
        update = Throttle(self.write)
        try:
            with contextlib.closing(outcomes):
                for error in outcomes:
                    if error is not None:
                        processes.by_first(functools.partial(self._attend, error))
                    processes.by_first(update)
        except Interrupted:
            processes.by_first(self.write)
            raise
        except BaseException:
            if not processes.several():  # The others may be anywhere.
                self.write()
            raise

    def _attend(self, error: UserError) -> None:
        if getattr(error.__cause__, "errno", None) in files.FULL:
            raise error  # It concerns all trials.
        self._fault(error)

    def _units(self, name, size):
        return sum(
            training.stage_steps(self.config, size, cycle.expected_labelled(self.config, n), stage)
            * UNITS.get(stage, 0)
            for n in range(self.config.cycles)
            for stage in cycle.stage_names(self.config, METHODS[name], n)
        )

    def _fault(self, error):
        _forget_frames(error)
        self.faults.append(error)
        self.say(f"warning: {error}; the other trials go on")

    def write_results(self) -> list[Result]:
        """The study's results.csv, from those of its trials; whenever one has new results."""
        if not self._is_first:
            return []
        rows, faults = records.all_results(self.folder)
        self._faults(faults)
        records.write_results(self.folder, rows)
        return rows

    def _faults(self, faults: list[UserError]) -> None:
        for fault in faults:
            if str(fault) not in map(str, self.faults):
                self._fault(fault)

    def write(self) -> list[Result]:
        """The study's files; as often as a trial ends."""
        rows = self.write_results()
        if not self._is_first:
            return []
        self._faults(records.all_diagnostics(self.folder)[1])
        if rows:
            summary.write(self.folder, rows, self.config.dataset)
        return rows

    def _finish(self, dataset: Dataset | None) -> None:
        """The files, figures and page of the whole study; `dataset` where it is loaded already."""
        if not self.write():
            return
        drawn: list[str] = []
        data_dir = self.config.data_dir
        try:
            drawn = plots.draw(self.folder, dataset, data_dir=data_dir)
        except UserError as error:
            self._fault(error)
        try:
            page.write(self.folder, dataset, data_dir)
        except UserError as error:  # What could be read stands in it all the same.
            self._faults([error])
        drawn.append(page.NAME)
        written = ", ".join(["results.csv, summary.csv, summary.md", *drawn])
        self.say(
            f"Written to {self.folder}: {written}, <method>/trial_<t>/results.csv, picks.csv,"
            " diagnostics.csv, model"
        )

    def raise_faults(self) -> None:
        """One UserError for all that went wrong."""
        if len(self.faults) == 1:
            raise self.faults[0]
        if self.faults:
            raise UserError(f"{len(self.faults)} faults: " + "; ".join(map(str, self.faults)))
