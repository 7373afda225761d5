"""People label: trains on what they have said, asks for more, and stops until they have answered.

The loop of a simulation, one cycle at a time. Between two cycles everything is in files; within
one, nothing that people do is looked at.
"""

import functools
import pathlib
import shutil
import tempfile
import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from tavaal_jax.algorithm.methods import METHODS
from tavaal_jax.algorithm.state import LoopState, Stream, derive
from tavaal_jax.data import Dataset, ledger, plans
from tavaal_jax.data import folder as folders
from tavaal_jax.data.folder import Frozen, Wish
from tavaal_jax.data.labels import Delivered
from tavaal_jax.data.ledger import Entry
from tavaal_jax.engine import devices
from tavaal_jax.errors import Interrupted, UserError, WaitingForLabels
from tavaal_jax.report import (
    checkpoints,
    files,
    predictions,
    progress,
    records,
    requests,
    statistics,
)
from tavaal_jax.report.desk import Desk, bare, differences
from tavaal_jax.report.plots import curves
from tavaal_jax.study import asking, checks, cycle, handout, outlook, setup, trained, training
from tavaal_jax.study.outlook import Outlook, look
from tavaal_jax.study.recorder import UNITS, Recorder
from tavaal_jax.study.trial import Stop, Trial

_TRIAL = 0
_AT_ONCE = 512  # images that predictions are made of together
_FEW = 30  # test images, with less of which nothing can be said
_FIXED = (
    "seed", "folder.image_size", "folder.channels", "folder.resize", "folder.low_high",
)  # fmt: skip
"""Keys that stay what they were in the first cycle."""


def run(config: Any, workdir: pathlib.Path, callback: progress.Callback, stop: Stop) -> None:
    """Goes on until people have to answer (WaitingForLabels), or nothing is left to ask.

    Raises UserError for what the user can mend, Interrupted where `stop()` says so.
    """
    checks.check(config, devices.device_count())
    if config.folder.label_studio_images == "local":
        requests.served(
            pathlib.Path(config.folder.images).expanduser(), config.folder.label_studio_root
        )
    with files.claim(workdir):
        desk = Desk(workdir)
        desk.begin()
        before = files.read_config(workdir)
        if before is not None:
            changed = differences(before, config, _FIXED)
            if changed:
                raise UserError(
                    f"{workdir} was begun with another config: {', '.join(changed)};"
                    " give the old values or another --workdir"
                )
        _People(config, desk, callback, stop).run()


class _People:
    """A workdir, its config, and who is told."""

    def __init__(self, config: Any, desk: Desk, callback: progress.Callback, stop: Stop):
        self._config, self._desk, self._callback, self._stop = config, desk, callback, stop
        self._method = METHODS[checks.method_names(config)[0]]
        self._key = derive(jax.random.key(config.seed), _TRIAL)
        self._trial = files.trial_folder(desk.folder, self._method.name, _TRIAL)

    def run(self) -> None:
        """Cycle after cycle."""
        desk = self._desk
        while True:
            number = max(desk.last(), 0)
            found = desk.frozen(number)
            if found is None:
                self._begin(number)
            elif not desk.is_trained(number):
                self._train(number, *found)
            elif self._is_last(number, found[0]):
                return self._finish(number)
            else:
                seen, is_skipped = self._look(), "skipped" in desk.trained(number)
                more = self._random(seen, self._config.budget) if is_skipped else None
                self._ask(number + 1, seen, more or self._picks(number))

    # Between two cycles

    def _look(self) -> Outlook:
        """What there is now, and what people have said of it."""
        return look(self._config, self._desk, self._say, self._stop_if_asked)

    def _begin(self, number: int) -> None:
        """Freezes what is known for a cycle; asks for what is missing, and waits for it."""
        seen = self._look()
        if self._desk.last() < number:
            return self._ask(number, seen, self._random(seen))
        asked = [wish.id for wish in self._desk.asked(number)]
        far = asking.progress(asked, seen.ledger.entries)
        frozen = seen.freeze(self._tested())
        lacks = asking.missing(frozen.counts, self._config.batch_size)
        self._status("WAITING", number, seen, far)
        if far["answered"] < self._config.folder.wait_for * len(asked):
            return self._wait(
                number,
                f"cycle {number}: {len(asked)} images to label ({far['answered']} answered), open"
                f" {self._request(number) / 'index.html'} or see HOWTO.txt there; then the same"
                " command continues",
            )
        if lacks is not None and not seen.candidates.any():
            return self._wait(
                number, f"cycle {number} needs {lacks}; then the same command continues"
            )
        self._tell_changes(number, frozen, seen.files)
        checkpoints.remove(self._trial / "checkpoints")  # Of the cycle before.
        self._desk.write_classes(frozen.classes)
        files.write_config(self._desk.folder, self._config)
        self._desk.freeze(number, frozen, self._config)
        self._desk.write_labels(number, frozen, seen.files)
        if lacks is not None:
            self._say(f"cycle {number} needs {lacks}: more images are asked for")
            self._desk.write_trained(number, {"skipped": lacks})
        return None

    def _wait(self, number: int, line: str) -> None:
        """Ends the program, or looks again later."""
        if not self._config.folder.poll_seconds:
            raise WaitingForLabels(line)
        if self._said != line:
            self._say(line)
        self._said = line
        until = time.monotonic() + self._config.folder.poll_seconds
        while time.monotonic() < until:
            self._stop_if_asked()
            time.sleep(min(0.2, self._config.folder.poll_seconds))

    _said = ""

    def _ask(self, number: int, seen: Outlook, picks: list[Wish]) -> None:
        """Writes the request for cycle `number`: picks, images of the test set among them."""
        config, entries = self._config, seen.ledger.entries
        before = [[w.id for w in self._desk.asked(n)] for n in range(number)]
        ties = asking.again(before[-1] if before else [], entries)
        wishes = [*ties, *picks]
        if config.folder.ask_again and not seen.candidates.any():
            earlier = [name for names in before for name in names]
            wishes += asking.unsure(entries, {name for name in earlier if earlier.count(name) > 1})
        wanted = self._wanted(number, seen)
        count = asking.share(wanted, config.folder.test_fraction, len(seen.kept_left))
        if not seen.candidates.any():
            count = min(wanted, len(seen.kept_left))
        others = asking.tests(seen.kept_left, count, config.seed)
        asked = asking.mixed(wishes, others, config.seed, number)
        if asked:
            self._write_request(number, seen, asked)
        self._desk.write_asked(number, asked)

    def _wanted(self, number: int, seen: Outlook) -> int:
        """How many images a request asks for."""
        if number:
            return int(self._config.budget)
        return max(0, self._config.initial - len(seen.labelled))

    def _random(self, seen: Outlook, least: int = 0) -> list[Wish]:
        """Random images in a simulation's order of the initial set, as many as `initial` lacks."""
        wanted = max(least, self._config.initial - len(seen.labelled))
        wanted -= asking.share(wanted, self._config.folder.test_fraction, len(seen.kept_left))
        order = plans.initial(derive(self._key, Stream.INITIAL), len(seen.images), len(seen.images))
        names = [seen.images[i].id for i in order if seen.candidates[i]]
        return [Wish(name, "pick", float("nan")) for name in names[:wanted]]

    def _write_request(self, number: int, seen: Outlook, asked: list[Wish]) -> None:
        config, options = self._config, self._config.folder
        guesses = self._guesses() if options.suggest else {}
        requests.write(
            self._desk.folder, number, [seen.asked(wish.id, guesses) for wish in asked],
            classes=seen.ledger.classes, unsure=tuple(options.unsure), bad=tuple(options.bad),
            picture=functools.partial(seen.picture, config=config), parts=options.parts,
            label_studio_images=options.label_studio_images,
            label_studio_root=options.label_studio_root,
            images_folder=seen.folder, fixed=bool(options.classes),
        )  # fmt: skip

    def _guesses(self) -> dict[str, str]:
        rows = files.read_csv(self._desk.folder / "predictions.csv")
        return {row["id"]: bare(row["predicted"]) for row in rows}

    def _picks(self, number: int) -> list[Wish]:
        """What a cycle has picked, in order."""
        picks = records.read_picks(self._trial)
        mine = np.flatnonzero(picks["cycle"] == number)
        order = mine[np.argsort(picks["rank"][mine])]
        return [Wish(str(picks["id"][i]), "pick", float(picks["score"][i])) for i in order]

    def _tested(self) -> set[str]:
        """Images that were asked for to be tested on."""
        numbers = range(self._desk.last() + 1)
        return {w.id for n in numbers for w in self._desk.asked(n) if w.role == "test"}

    def _tell_changes(self, number: int, frozen: Frozen, names: Mapping[str, str]) -> None:
        """What people say otherwise than when the cycle before began."""
        before = self._desk.frozen(number - 1) if number else None
        if before is None:
            return
        old, new = (
            {row.id: Entry("label", row.label, "", "", ()) for row in one.rows if row.label}
            for one in (before[0], frozen)
        )
        lines = ledger.changes(old, new, names)
        shown = "; ".join(lines[:5]) + (f"; ... ({len(lines) - 5} more)" if len(lines) > 5 else "")
        if lines:
            self._say(f"since cycle {number - 1}: {shown}")
        for name in frozen.classes[len(before[0].classes) :]:
            self._say(f"new class {name}: {frozen.counts[name]} images for training")

    # A cycle

    def _train(self, number: int, frozen: Frozen, record: dict[str, Any]) -> None:
        """Trains on what was frozen, measures, picks, and leaves what people keep."""
        changed = differences(record, self._config)
        if changed:
            raise UserError(
                f"cycle {number} in {self._desk.folder} has begun with another config:"
                f" {', '.join(changed)}; give the old values until people are asked again"
            )
        dataset = self._dataset(number, frozen)
        config = self._config.copy_and_resolve_references()
        candidates = int((np.asarray(dataset.available) & (dataset.train_labels < 0)).sum())
        kept = sum(row.split == "reserved" for row in frozen.rows)
        with config.unlocked():
            is_last = not candidates or self._config.cycles == number + 1
            config.cycles = number + 1 if is_last else number + 2
            config.budget -= asking.share(config.budget, config.folder.test_fraction, kept)
        made = setup.prepare(
            config, self._method, dataset, setup.place(config, dataset), Delivered()
        )
        about = trained.About(
            dataset.train_ids, dataset.class_names, dataset.shape, str(dataset.train_images.dtype)
        )
        steps = sum(
            training.stage_steps(
                config, made.available_size, int((dataset.train_labels >= 0).sum()), stage
            )
            * UNITS.get(stage, 0)
            for stage in cycle.names(config, self._method, number)
        )
        tracker = progress.Tracker(self._callback, steps)
        first = functools.partial(self._state, made, dataset.train_labels, number)
        recorder = lambda observe: Recorder(
            made, _TRIAL, self._trial, about, tracker, lambda: None, observe, first
        )
        Trial(made, _TRIAL, recorder, self._stop).run()
        self._keep(number, frozen, len(dataset.test_images))

    def _dataset(self, number: int, frozen: Frozen) -> Dataset:
        """Of a cycle; what has left the cache since is decoded again."""
        pixels, options = outlook.cache(self._config), self._config.folder
        roots = [pathlib.Path(options.images).expanduser()]
        there = {image.id: roots[0] / image.file for image in self._desk.images() if image.id}
        pixels.add([(name, there[name]) for name in frozen.images if name in there])
        dataset = folders.dataset(frozen, pixels.array, pixels.rows)
        gone = [
            r.id for r in frozen.rows if r.split in ("train", "test") and pixels.rows([r.id])[0] < 0
        ]
        if gone:
            raise UserError(
                f"{len(gone)} images that cycle {number} has begun with are gone, first"
                f" {there.get(gone[0], gone[0])}: put them back"
            )
        return dataset

    def _state(self, made: setup.Setup, labels: np.ndarray, number: int, key: Any) -> LoopState:
        """At the beginning of cycle `number`, after those that the trial's files tell of."""
        known_from = np.where(labels >= 0, 0, -1).astype(np.int32)
        state = cycle.with_labels(made, labels, known_from)
        first = cycle.names(made.config, made.method, number)[0]
        results, counts = state.results.copy(), state.counts.copy()
        for row in records.read_results(self._trial):
            if row["cycle"] < number:
                metric = made.problem.metrics.index(row["metric"])
                results[row["cycle"], metric] = row["value"]
                counts[row["cycle"]] = row["labelled"]
        picks = records.read_picks(self._trial)
        mine = picks["cycle"] < number
        index = picks["index"][mine]
        arrays = {
            name: getattr(state, name).copy() for name in ("picked_in", "pick_rank", "pick_score")
        }
        for name, column in (
            ("picked_in", "cycle"),
            ("pick_rank", "rank"),
            ("pick_score", "score"),
        ):
            arrays[name][index] = picks[column][mine]
        state = state.replace(cycle=number, stage=first, results=results, counts=counts, **arrays)
        return cycle.fresh(made, key, state)

    def _keep(self, number: int, frozen: Frozen, tested: int) -> None:
        """The model and what it says of all images, for people; then the cycle is through."""
        desk = self._desk
        new = pathlib.Path(tempfile.mkdtemp(prefix=".model.", dir=desk.folder))
        new.chmod(0o755)  # As any folder, where a temporary one is its owner's alone.
        shutil.copytree(self._trial / "model", new, dirs_exist_ok=True)
        measured = self._measured(number, tested)
        handout.complete(new, measured if measured["n"] else None)
        desk.replace_model(new)
        pixels = outlook.cache(self._config)
        files_of = {image.id: image.file for image in desk.images()}
        rows = {row.id: row for row in frozen.rows}
        names = [name for name in dict.fromkeys(frozen.images) if pixels.rows([name])[0] >= 0]
        model = trained.load_model(desk.model)
        probabilities = (
            probability
            for start in range(0, len(names), _AT_ONCE)
            for probability in model.predict_proba(
                pixels.array[pixels.rows(names[start : start + _AT_ONCE])]
            )
        )
        said = (
            predictions.Row(
                name, files_of[name], probability,
                rows[name].split if name in rows else "unlabelled",
                rows[name].label if name in rows else "",
            )
            for name, probability in zip(names, probabilities, strict=True)
        )  # fmt: skip
        predictions.write(desk.folder / "predictions.csv", frozen.classes, said)
        records.write_results(desk.folder, records.all_results(desk.folder)[0])
        record = {"method": self._method.name, "labelled": sum(frozen.counts.values())}
        desk.write_trained(number, {**record, "test": measured})
        every = [desk.trained(n) for n in range(number + 1)]
        points = [{**r, **r["test"]} for r in every if "test" in r and r["test"]["n"]]
        if points:
            curves.measured(points, desk.folder / "accuracy.png")
        if measured["n"]:
            few = ", too few to judge" if measured["n"] < _FEW else ""
            self._say(
                f"cycle {number}: accuracy {measured['accuracy']:.3f}"
                f" ({measured['low']:.3f} to {measured['high']:.3f}, n = {measured['n']}{few})"
            )

    def _measured(self, number: int, tested: int) -> dict[str, Any]:
        """Accuracy on the test set with Wilson's interval."""
        values = [
            row["value"]
            for row in records.read_results(self._trial)
            if (row["cycle"], row["metric"]) == (number, "accuracy")
        ]
        if not tested or not values:
            return {"n": 0, "accuracy": None, "low": None, "high": None}
        low, high = statistics.wilson(values[0], tested)
        return {"n": tested, "accuracy": values[0], "low": low, "high": high}

    # The end

    def _is_last(self, number: int, frozen: Frozen) -> bool:
        """Whether nothing follows a cycle that is through."""
        if self._config.cycles == number + 1:
            return True
        seen = self._look()
        return not seen.candidates.any() and not seen.kept_left

    def _finish(self, number: int) -> None:
        seen = self._look()
        checkpoints.remove(self._trial / "checkpoints")
        self._status("FINISHED", number, seen, {"asked": 0, "answered": 0, "unsure": 0, "bad": 0})
        labelled, every = len(seen.labelled), sum(image.status == "ok" for image in seen.images)
        what = f"all {every:,}" if not seen.candidates.any() else f"{labelled:,} of {every:,}"
        self._say(f"{what} images are labelled; model in {self._desk.model}")

    # What is told

    def _status(self, state: str, number: int, seen: Outlook, far: dict[str, int]) -> None:
        trained_before = number if self._desk.is_trained(number) else number - 1
        test = self._desk.trained(trained_before).get("test") if trained_before >= 0 else None
        request = self._request(number)
        self._desk.write_status(
            state=state, cycle=number, **far, images=len(seen.images), labelled=len(seen.labelled),
            test=test, request=str(request) if state == "WAITING" else None,
        )  # fmt: skip

    def _request(self, number: int) -> pathlib.Path:
        """Where people find what a cycle asks for."""
        return requests.path_of(self._desk.folder, number)

    def _say(self, text: str) -> None:
        self._callback(progress.Event(text))

    def _stop_if_asked(self) -> None:
        asked = self._stop()
        if asked is not None:
            raise Interrupted(asked)
