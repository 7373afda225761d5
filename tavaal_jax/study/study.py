"""A study: methods x trials on paired seeds; runs what is left, and joins the results."""

import contextlib
import functools
import pathlib

from ml_collections import ConfigDict

from tavaal_jax import config as configs
from tavaal_jax import data
from tavaal_jax.algorithm.methods import METHODS
from tavaal_jax.data import Dataset
from tavaal_jax.engine import compilation, devices, processes
from tavaal_jax.errors import Interrupted, TrialError, UserError
from tavaal_jax.report import files, page, plots, progress, records, summary
from tavaal_jax.report.progress import Event
from tavaal_jax.report.records import Result
from tavaal_jax.study import cycle, features, training
from tavaal_jax.study.checks import config as checks
from tavaal_jax.study.parallel import pools, runner
from tavaal_jax.study.parallel.runner import Outcomes
from tavaal_jax.study.trial import Stop, TrialHooks


def run(
    config: ConfigDict,
    folder: pathlib.Path,
    dataset: Dataset | None,
    progress: progress.Callback,
    stop: Stop,
) -> None:
    """Runs a simulation in `folder`, see `tavaal_jax.run_study`."""
    adapted = features.adapted(config, dataset)
    replaced = list(configs.differences(configs.plain(config), configs.plain(adapted)))
    config = adapted
    if dataset is None:
        fingerprint = data.fingerprint(config)
    else:
        config = configs.changed(config, dataset=dataset.name)
        fingerprint = dataset.fingerprint()
    source, made_by = _source(config, folder)
    if processes.several():
        own = files.running(config, fingerprint, made_by)
        own["config"].pop("data_dir")  # Each may have a disk of its own.
        for what, value in own.items():
            processes.check_alike(value, what)
    apart = config.parallel in pools.POOLS
    if apart and processes.several():
        raise UserError(
            f"parallel is {config.parallel!r} with --distributed: leave that out; 'ray' runs trials"
            " on many hosts"
        )
    pools.check(config)
    # To count devices takes their memory, which the workers need.
    count_devices = lambda: pools.devices_of_trial(config) if apart else devices.device_count()
    if source is not None or not features.is_on(config):
        processes.by_first(lambda: checks.check(config, count_devices(), dataset))
    callback = progress if processes.is_first() else lambda event: None
    if replaced and features.is_on(config):
        line = f"On features instead of images: {', '.join(replaced)}."
        callback(Event(line))
    with compilation.Count() as count:
        with contextlib.ExitStack() as held:

            def claim() -> None:
                held.enter_context(files.claim(folder))

            processes.by_first(claim)
            processes.by_first(lambda: files.check_config(folder, config, fingerprint, made_by))
            study = _Study(config, folder, callback, dataset, source)
            study.run(stop)
        if count.programs:
            study.say(f"{count}.")
    processes.by_first(study.raise_faults)


def _source(config: ConfigDict, folder: pathlib.Path) -> tuple[features.Source | None, str | None]:
    """What makes the study's features, and its digest; None, None: it has images.

    A study that is finished needs no more than the digest in its folder.
    """
    try:
        # A process may lack what the others have.
        source = processes.together(lambda: features.source(config))
    except UserError:
        recorded = processes.by_first(lambda: _digest_if_finished(config, folder))
        if recorded is None:
            raise
        return None, recorded
    return source, features.digest(source)


def _digest_if_finished(config: ConfigDict, folder: pathlib.Path) -> str | None:
    """Digest of a finished study's features; None where trials are left."""
    places = [
        files.trial_folder(folder, name, trial)
        for name in checks.method_names(config)
        for trial in range(config.first_trial, config.trials)
    ]
    with contextlib.suppress(UserError):
        if all(runner.is_finished(place, config.cycles) for place in places):
            return (files.read_config(folder) or {}).get("features")
    return None


def _load(config: ConfigDict) -> Dataset:
    """Loads the data set on every process; the first prepares it for all on the same disk."""
    loaded: list[Dataset] = []
    processes.by_first(lambda: loaded.append(data.load(config)))
    dataset = processes.together(lambda: loaded[0] if loaded else data.load(config))
    if processes.several():
        processes.check_alike(dataset.fingerprint(), f"data of {dataset.name}")
    return dataset


def _stop_if_asked(stop: Stop) -> None:
    _interrupt(processes.agree(stop()))


def _interrupt(number: int | None) -> None:
    """Raises Interrupted where a signal has come."""
    if number is not None:
        raise Interrupted(number)


def _forget_frames(error: BaseException | None) -> None:
    """Drops the tracebacks of an error, whose frames keep a trial's weights."""
    while error is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


class _Study:
    """The trials of a workdir, and their errors."""

    def __init__(
        self,
        config: ConfigDict,
        folder: pathlib.Path,
        callback: progress.Callback,
        given: Dataset | None,
        source: features.Source | None,
    ):
        """`given` is the data set where the config does not name it."""
        self.config, self.folder, self._callback = config, folder, callback
        self.names = checks.method_names(config)
        self.faults: list[UserError] = []
        self._given, self._source = given, source

    def run(self, stop: Stop) -> None:
        """Runs what is left, and writes the study's files."""
        config, dataset = self.config, self._given
        todo = processes.by_first(self.unfinished)
        if todo:
            dataset = _load(config) if dataset is None else dataset
            size = len(dataset.train_images)
            processes.by_first(lambda: checks.check_size(config, dataset.name, size))
            outcomes = self._prepare(todo, self._with_features(dataset, stop), stop)
            _stop_if_asked(stop)
            processes.by_first(self._begin)
            self._run_all(outcomes)
            _stop_if_asked(stop)
        else:
            self.say(f"All trials in {self.folder} are finished; nothing to do.")
        processes.by_first(lambda: self._finish(dataset))

    def _with_features(self, dataset: Dataset, stop: Stop) -> Dataset:
        """The data set that trials are run on; with parallel trials workers make its features."""
        if self.config.parallel in pools.POOLS:
            return dataset
        # Each process has a cache of its own, or waits for the others at one.
        check_stop = lambda: _interrupt(stop())
        return processes.together(
            lambda: features.of_dataset(
                self.config,
                dataset,
                self._source or features.source(self.config),
                self._callback,
                check_stop,
            )
        )

    def say(self, text: str) -> None:
        """Reports a line about the whole study."""
        self._callback(progress.Event(text))

    def _begin(self) -> None:
        """Writes config.json."""
        # Picks may have been copied here without their config.json.
        brought = any(self.folder.glob("*/trial_*/picks.csv"))
        if brought and files.read_config(self.folder) is None:
            self.say(
                f"warning: picks are in {self.folder}, but no config.json shows how they were made:"
                " they are taken for this config's"
            )
        given = self._given
        fingerprint = data.fingerprint(self.config) if given is None else given.fingerprint()
        files.write_config(self.folder, self.config, fingerprint, features.digest(self._source))

    def unfinished(self) -> list[tuple[str, int]]:
        """Unfinished trials, `(method, trial)`, ordered by trial."""
        trials = range(self.config.first_trial, self.config.trials)
        wanted = [(name, trial) for trial in trials for name in self.names]
        return [place for place in wanted if not self._is_finished(*place)]

    def _is_finished(self, name: str, trial: int) -> bool:
        """Whether a trial is done, or damaged beyond repair."""
        folder = files.trial_folder(self.folder, name, trial)
        try:
            return runner.is_finished(folder, self.config.cycles)
        except UserError:
            if (folder / "checkpoints").exists():
                return False  # It is written anew from them.
            text = f"{name} trial {trial}: {folder / 'results.csv'} is damaged, and there are no"
            self._fault(TrialError(f"{text} checkpoints: delete that folder to run it anew"))
            return True

    def _prepare(self, todo: list[tuple[str, int]], dataset: Dataset, stop: Stop) -> Outcomes:
        """Prepares to run `todo` in worker processes, or in this one, which places its data now."""
        oracle = processes.together(lambda: runner.oracle(dataset))
        size = len(dataset.train_images)
        total = sum(self._cost(name, size) for name, _ in todo)
        hooks = TrialHooks(
            progress.Tracker(self._callback, total), progress.Throttle(self.write_results), stop
        )
        run_apart = pools.POOLS.get(self.config.parallel)
        if run_apart is not None:
            is_given, made_by = self._given is not None, features.digest(self._source)
            job = pools.job(self.config, self.folder, self.names, dataset, is_given, made_by)
            return run_apart(job, todo, hooks)
        return runner.Runner(self.config, self.folder, dataset, oracle, hooks).run_all(todo)

    def _run_all(self, outcomes: Outcomes) -> None:
        """Runs the prepared trials and keeps the study's files up to date."""
        update = progress.Throttle(self.write)
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

    def _cost(self, name: str, size: int) -> int:
        """Cost of a trial of `size` images, for the time left."""
        return sum(
            training.stage_cost(self.config, size, cycle.expected_labelled(self.config, n), stage)
            for n in range(self.config.cycles)
            for stage in cycle.stage_names(self.config, METHODS[name], n)
        )

    def _fault(self, error: UserError) -> None:
        """Keeps an error for the end of the study, and warns of it."""
        _forget_frames(error)
        self.faults.append(error)
        self.say(f"warning: {error}; the other trials go on")

    def write_results(self) -> list[Result]:
        """Writes the study's results.csv from those of its trials; whenever one has new results."""
        rows, faults = records.all_results(self.folder)
        self._faults(faults)
        records.write_results(self.folder, rows)
        return rows

    def _faults(self, faults: list[UserError]) -> None:
        for fault in faults:
            if str(fault) not in map(str, self.faults):
                self._fault(fault)

    def write(self) -> list[Result]:
        """Writes the study's files; whenever a trial ends."""
        rows = self.write_results()
        self._faults(records.all_diagnostics(self.folder)[1])
        if rows:
            summary.write(self.folder, rows, self.config.dataset)
        return rows

    def _finish(self, dataset: Dataset | None) -> None:
        """Writes files, figures and page of the whole study; `dataset` if it is loaded already."""
        if not self.write():
            return
        drawn: list[str] = []
        data_dir, again = self.config.data_dir, f"{self.folder} draws anew"
        try:
            with progress.attempt(
                "figures", self.say, f"python -m tavaal_jax.report.plots {again}"
            ):
                drawn = plots.draw(self.folder, dataset, data_dir=data_dir)
        except UserError as error:
            self._fault(error)
        try:
            with progress.attempt("page", self.say, f"python -m tavaal_jax.report {again}"):
                drawn.append(page.write(self.folder, dataset, data_dir))
        except UserError as error:  # The page holds all that could be read.
            self._faults([error])
            drawn.append(page.NAME)
        written = ", ".join(["results.csv, summary.csv, summary.md", *drawn])
        self.say(
            f"Written to {self.folder}: {written}, <method>/trial_<t>/results.csv, picks.csv,"
            " diagnostics.csv, model"
        )

    def raise_faults(self) -> None:
        """Raises one UserError for all errors of the study."""
        if len(self.faults) == 1:
            raise self.faults[0]
        if self.faults:
            raise UserError(f"{len(self.faults)} faults: " + "; ".join(map(str, self.faults)))
