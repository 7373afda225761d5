"""A study: methods x trials on paired seeds, one run each, with its files and its table."""

import functools
import pathlib

import numpy as np
from rich.console import Console

from tavaal_jax import (
    compilation,
    data,
    loop,
    metrics,
    parallel,
    plots,
    problem,
    programs,
    validation,
    workdir,
)  # fmt: skip
from tavaal_jax.checkpoints import read_progress
from tavaal_jax.methods import METHODS
from tavaal_jax.plots import curves
from tavaal_jax.runner import Runner
from tavaal_jax.signals import Signals

# Cost of a step of each stage, relative to a step of T: for the estimate of the time left only.
_UNITS = {"task": 1, "joint": 4, "adversary": 3}


def run(config, folder: pathlib.Path) -> None:
    """Runs what the study in `folder` still lacks and writes its files.

    Raises UserError for a fault the user can mend, Interrupted after SIGINT or SIGTERM.
    """
    validation.check(config, parallel.device_count())
    with workdir.claim(folder), compilation.Count() as count:
        workdir.check_config(folder, config)
        study = _Study(config, folder)
        todo, dataset = study.unfinished(), None
        if todo:
            dataset = data.load(config)
            validation.check_size(config, len(dataset.train_labels))
            workdir.write_config(folder, config)
            with Signals() as signals:
                study.run_all(todo, dataset, signals)
        else:
            study.say(f"All runs in {folder} are finished; nothing to do.")
        study.finish(dataset)
        if count.programs:
            study.say(f"{count}.")


class _Study:
    """Results so far, by (method, trial)."""

    def __init__(self, config, folder):
        self.config, self.folder = config, folder
        self.console = Console()
        if not self.console.is_terminal:
            self.console.width = 160  # In a log, tables are not broken.
        self.names = validation.method_names(config)
        self.rows: dict[tuple[str, int], list[dict]] = {}

    def say(self, text):
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def unfinished(self) -> list[tuple[str, int]]:
        """Runs to do, trial by trial; reads the results of all runs in the folder."""
        trials = range(self.config.first_trial, self.config.trials)
        wanted = [(name, trial) for trial in trials for name in self.names]
        todo = []
        for name, trial in dict.fromkeys(wanted + workdir.runs(self.folder)):
            progress = read_progress(workdir.run_folder(self.folder, name, trial) / "checkpoints")
            if progress is not None:
                self.record(name, trial, np.array(progress["results"], np.float32))
            if (name, trial) in wanted and (progress or {}).get("cycle") != self.config.cycles:
                todo.append((name, trial))
        return todo

    def run_all(self, todo, dataset, signals):
        """Runs `todo` one after the other; each method is compiled once for all its trials."""
        size = len(dataset.train_labels)
        device_data = parallel.place(dataset.on_device())
        runs: dict[str, programs.Run] = {}
        total = sum(self._units(name, size) for name, _ in todo)
        with metrics.Display(total, self.console) as display:
            for name, trial in todo:
                if name not in runs:
                    runs[name] = programs.prepare(self.config, METHODS[name], dataset, device_data)
                folder = workdir.run_folder(self.folder, name, trial)
                runner = Runner(
                    runs[name], trial, folder, dataset.train_ids, display, signals, _UNITS
                )
                runner.run(functools.partial(self.record_and_write, name, trial))
                self._write_summary()

    def _units(self, name, size):
        return sum(
            loop.stage_steps(self.config, size, cycle, stage) * _UNITS.get(stage, 0)
            for cycle in range(self.config.cycles)
            for stage in loop.stages(self.config, METHODS[name], cycle)
        )

    def record(self, name, trial, results):
        """Takes over the results `[cycles, metrics]` of a run."""
        names = problem.of(self.config).metrics
        self.rows[name, trial] = workdir.result_rows(self.config, name, trial, results, names)

    def record_and_write(self, name, trial, results):
        """The same, and results.csv."""
        self.record(name, trial, results)
        workdir.write_results(self.folder, self._all_rows())

    def _all_rows(self):
        order = list(METHODS)
        keys = sorted(self.rows, key=lambda key: (order.index(key[0]), key[1]))
        return [row for key in keys for row in self.rows[key]]

    def _write_summary(self):
        """After every run, so that a long study can be looked at while it goes on."""
        rows = self._all_rows()
        workdir.write_summary(self.folder, rows, self.config.dataset)
        curves.accuracy(rows, self.folder / "accuracy.png", self.config.dataset)

    def finish(self, dataset):
        """The files and the table of the whole study; `dataset` where it is loaded already."""
        rows = self._all_rows()
        workdir.write_results(self.folder, rows)
        workdir.write_summary(self.folder, rows, self.config.dataset)
        figures = plots.draw(self.folder, dataset, data_dir=self.config.data_dir)
        self.console.print(metrics.final_table(rows))
        self.say(
            f"Written to {self.folder}: results.csv, summary.csv, summary.md, {', '.join(figures)},"
            " <method>/trial_<t>/picks.csv, diagnostics.csv"
        )
