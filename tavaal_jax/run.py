"""Runs a study: a simulation, or the loop in which people label their own images."""

import pathlib
from collections.abc import Callable

from ml_collections import ConfigDict

from tavaal_jax import config as configs
from tavaal_jax import jax_settings
from tavaal_jax.data import Dataset
from tavaal_jax.engine import processes
from tavaal_jax.environment import user_path
from tavaal_jax.errors import UserError
from tavaal_jax.report.progress import Callback, silent
from tavaal_jax.report.result import StudyResult
from tavaal_jax.study import study


def run_study(
    config: ConfigDict,
    workdir: str | pathlib.Path,
    dataset: Dataset | None = None,
    *,
    progress: Callback = silent,
    stop: Callable[[], int | None] = lambda: None,
) -> StudyResult:
    """Runs what the study in `workdir` still lacks, writes its files and returns them to be read.

    The data set is the config's, or `dataset`, all of whose labels must be known: a simulation
    answers for people. With `config.dataset` "people" they answer themselves, and WaitingForLabels
    is raised whenever they have been asked. `progress` gets an `Event` after each piece of work.
    `stop()` is called often; when it returns a signal's number, everything is saved and Interrupted
    is raised. Raises UserError for a fault the user can mend; one that concerns a trial only is
    raised when the other trials are finished.

    Of several processes, all of which must call it alike, only the first reads and writes `workdir`
    and reports progress.
    """
    jax_settings.check()
    folder = user_path(workdir, "workdir")
    if dataset is None and is_labelled_by_people(config):
        if processes.several():
            raise UserError("people's images need --distributed=False: one process asks them")
        from tavaal_jax.labelling import loop

        loop.run(config, folder, progress, stop)
    else:
        study.run(config, folder, dataset, progress, stop)
    return StudyResult(folder)


def is_labelled_by_people(config: ConfigDict) -> bool:
    """Whether people give the labels; else a simulation knows them all."""
    return bool(config.dataset == configs.PEOPLE)
