"""A study's results for a notebook: plain rows and arrays, read from its folder."""

import dataclasses
import pathlib

import numpy as np

from tavaal_jax.environment import user_path
from tavaal_jax.errors import UserError
from tavaal_jax.report import files, records, statistics


@dataclasses.dataclass(frozen=True)
class TrialPicks:
    """All picks of a trial in the order of picking: arrays `[n]`."""

    cycle: np.ndarray
    rank: np.ndarray
    """Position among the picks of its cycle."""
    index: np.ndarray
    """Index into the training images."""
    id: np.ndarray
    score: np.ndarray


class StudyResult:
    """Results of a study so far, read from its folder whenever they are asked for."""

    def __init__(self, folder: str | pathlib.Path):
        """`folder` is a study's workdir."""
        self.folder = user_path(folder, "folder")

    def rows(self) -> list[records.Result]:
        """Rows of results.csv: one per method, trial, cycle and metric."""
        return records.all_results(self.folder)[0]

    def table(self) -> list[statistics.SummaryRow]:
        """Rows of summary.csv: means, standard deviations, paired differences per method."""
        return statistics.summary(self.rows())

    def diagnostics(self) -> list[records.DiagnosticsRow]:
        """Rows of all diagnostics.csv, with `method` and `trial`."""
        return records.read_diagnostics(self.folder)

    def picks(self, method: str, trial: int = 0) -> TrialPicks:
        """Picks of a trial; UserError where there is no such trial."""
        return TrialPicks(**records.read_picks(self._trial(method, trial)))

    def model_folder(self, method: str, trial: int = 0) -> pathlib.Path:
        """Folder of a finished trial's model, for `load_model`."""
        return self._trial(method, trial) / "model"

    def _trial(self, method: str, trial: int) -> pathlib.Path:
        if (method, trial) not in files.trials(self.folder):
            there = ", ".join(f"{m} {t}" for m, t in files.trials(self.folder)) or "none"
            raise UserError(f"no trial {trial} of {method!r} in {self.folder}: there are {there}")
        return files.trial_folder(self.folder, method, trial)

    def __repr__(self) -> str:
        return f"StudyResult({str(self.folder)!r})"
