"""People label: trains on what they have said, asks for more, and stops until they have answered.

The loop of a simulation, one cycle at a time; between two cycles everything is in files.
"""

import contextlib
import functools
import pathlib
import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from tavaal_jax.algorithm.methods import METHODS
from tavaal_jax.algorithm.state import Stream, derive
from tavaal_jax.data import plans
from tavaal_jax.engine import devices
from tavaal_jax.errors import Interrupted, UserError, WaitingForLabels
from tavaal_jax.labelling import cycle, requests, selection
from tavaal_jax.labelling.cycle import TRIAL, Work
from tavaal_jax.labelling.frozen import Frozen, RequestRow
from tavaal_jax.labelling.labels import consensus
from tavaal_jax.labelling.labels.consensus import Verdict
from tavaal_jax.labelling.snapshot import Snapshot, take_snapshot
from tavaal_jax.labelling.workdir import LabellingWorkdir, differences, unescape_formula
from tavaal_jax.report import checkpoints, files, progress, records
from tavaal_jax.study import checks
from tavaal_jax.study.trial import Stop

_FIXED = (
    "dataset", "seed", "folder.image_size", "folder.channels", "folder.resize", "folder.low_high",
)  # fmt: skip
"""Keys that stay what they were in the first cycle."""
_USED = ("train", "test")


def run(config: ConfigDict, folder: pathlib.Path, callback: progress.Callback, stop: Stop) -> None:
    """Goes on until people have to answer (WaitingForLabels), or nothing is left to ask.

    Raises UserError for what the user can mend, Interrupted where `stop()` says so.
    """
    checks.check(config, devices.device_count())
    images = pathlib.Path(config.folder.images).expanduser()
    if config.folder.label_studio_images == "local":
        requests.served(images, config.folder.label_studio_root)
    if folder.resolve().is_relative_to(images.resolve()):
        raise UserError(
            f"workdir {folder} lies in folder.images, to which nothing may be written: give"
            " another --workdir"
        )
    with files.claim(folder):
        _check_old(config, folder)
        workdir = LabellingWorkdir(folder)
        workdir.begin()
        method = METHODS[checks.method_names(config)[0]]
        _People(Work(config, workdir, method, callback, stop)).run()


def _check_old(config, folder):
    """Raises UserError where the folder was begun with another data set, or other images."""
    before = files.read_config(folder)
    if before is None:
        return
    changed = differences(before, config, _FIXED)
    if before.get("format") != files.FORMAT:
        changed = [f"its format ({before.get('format')} -> {files.FORMAT})", *changed]
    if changed:
        raise UserError(
            f"{folder} was begun with another config: {', '.join(changed)};"
            " give the old values or another --workdir"
        )


class _People:
    """Cycle after cycle."""

    def __init__(self, work: Work):
        self._work, self._config, self._workdir = work, work.config, work.workdir
        self._key = derive(jax.random.key(work.config.seed), TRIAL)
        self._said = ""

    def run(self) -> None:
        """Until people have to answer, or nothing is left to ask."""
        try:
            self._run()
        except BaseException as error:
            if self._workdir.status().get("state") == "TRAINING":
                is_stop = isinstance(error, Interrupted | KeyboardInterrupt)
                with contextlib.suppress(Exception):  # What is under way says more.
                    self._set_state("STOPPED" if is_stop else "FAILED")
            raise

    def _set_state(self, state: str, **others: Any) -> None:
        self._workdir.write_status(**{**self._workdir.status(), "state": state, **others})

    def _run(self) -> None:
        workdir = self._workdir
        while True:
            number = max(workdir.last(), 0)
            found = workdir.frozen(number)
            is_enough = 0 < self._config.cycles <= self._trainings()
            if found is None and number and is_enough:
                return self._finish(number - 1)
            if found is None:
                self._begin(number)
            elif not workdir.is_trained(number):
                self._train(number, *found)
            else:
                seen, is_skipped = self._look(), "skipped" in workdir.trained(number)
                if not is_skipped and (is_enough or self._is_through(seen, found[0])):
                    return self._finish(number)
                picks = self._picks(number, seen)
                if not picks and not is_skipped and seen.candidates.any():
                    self._work.say(f"cycle {number} has no picks: random images are asked for")
                self._ask(number + 1, seen, picks or self._random(seen, self._config.budget))

    def _trainings(self) -> int:
        """Cycles that were trained; those are none that had too few labels."""
        there = [n for n in range(self._workdir.last() + 1) if self._workdir.is_trained(n)]
        return sum("skipped" not in self._workdir.trained(n) for n in there)

    # Between two cycles

    def _look(self) -> Snapshot:
        """What there is now, and what people have said of it."""
        while True:
            try:
                return take_snapshot(
                    self._config, self._workdir, self._work.say, self._stop_if_asked
                )
            except UserError as error:
                if not self._config.folder.poll_seconds:
                    raise
                self._wait(f"{error}; it is looked at again")  # Somebody may be writing it.

    def _begin(self, number: int) -> None:
        """Freezes what is known for a cycle; asks for what is missing, and waits for it."""
        seen = self._look()
        if self._workdir.last() < number:
            return self._ask(number, seen, self._random(seen))
        asked = [wish for wish in self._workdir.asked(number) if seen.can_be_answered(wish.id)]
        if asked and not self._request(number).exists():
            self._write_request(number, seen, asked)
        far = selection.progress(asked, seen.ledger.entries)
        frozen = seen.freeze(self._tested())
        lacks = selection.missing(frozen.counts, self._config.batch_size)
        self._status("WAITING", number, seen, far)
        if far["answered"] < self._config.folder.wait_for * len(asked) - 1e-9:
            return self._wait(
                f"cycle {number}: {len(asked)} images to label ({far['answered']} answered), open"
                f" {self._request(number) / 'index.html'} or see HOWTO.txt there; then the same"
                " command continues"
            )
        if lacks is not None and not seen.candidates.any():
            return self._wait(f"cycle {number} needs {lacks}; then the same command continues")
        self._tell_changes(number, frozen, seen.files)
        for old in self._workdir.folder.glob(f"*/trial_{TRIAL}/checkpoints"):
            checkpoints.remove(old)  # Of the cycle before, whichever its method was.
        self._workdir.write_classes(frozen.classes)
        files.write_config(self._workdir.folder, self._config)
        return self._workdir.freeze(number, frozen, self._config)

    def _train(self, number: int, frozen: Frozen, record: dict[str, Any]) -> None:
        """Trains on what was frozen, or passes over a cycle that has too little."""
        cycle.check(self._work, number, record)
        self._workdir.write_labels(number, frozen, self._work.names)
        lacks = selection.missing(frozen.counts, self._config.batch_size)
        if lacks is not None:
            self._work.say(f"cycle {number} needs {lacks}: more images are asked for")
            return self._workdir.write_trained(number, {"skipped": lacks})
        self._set_state("TRAINING", cycle=number)
        is_last = 0 < self._config.cycles <= self._trainings() + 1
        cycle.run(self._work, number, frozen, is_last)

    def _wait(self, line: str) -> None:
        """Ends the program, or looks again later."""
        if not self._config.folder.poll_seconds:
            raise WaitingForLabels(line)
        if self._said != line:
            self._work.say(line)
        self._said = line
        until = time.monotonic() + self._config.folder.poll_seconds
        while time.monotonic() < until:
            self._stop_if_asked()
            time.sleep(min(0.2, self._config.folder.poll_seconds))

    # Requests

    def _ask(self, number: int, seen: Snapshot, picks: list[RequestRow]) -> None:
        """Writes the request for cycle `number`: picks, images of the test set among them."""
        config = self._config
        ties = self._ties(seen)
        if ties:
            self._work.say(f"{len(ties)} images of which people said different things: asked again")
        wishes = [*ties, *picks]
        if not seen.candidates.any():
            wishes += self._unsure(seen)
        wanted = int(config.budget) if number else max(0, config.initial - len(seen.labelled))
        count = selection.share(wanted, config.folder.test_fraction, len(seen.kept_left))
        if not seen.candidates.any():
            count = min(wanted, len(seen.kept_left))
        others = selection.tests(seen.kept_left, count, config.seed)
        asked = selection.mixed(wishes, others, config.seed, number)
        is_all = not seen.kept_left - {wish.id for wish in asked}
        if is_all and 0 < len(asked) < wanted:
            key = "budget" if number else "initial"
            self._work.say(f"{key} is {config[key]}: only {len(asked)} images are left to ask for")
        # From here on the cycle before is done; a request that is missing is written by `_begin`.
        self._workdir.write_asked(number, asked)
        if asked:
            self._write_request(number, seen, asked)

    def _ties(self, seen: Snapshot) -> list[RequestRow]:
        """Images of which people said different things."""
        ties = selection.ties(seen.ledger.entries, self._asked(), seen.kept)
        return [wish for wish in ties if seen.can_be_answered(wish.id)]

    def _unsure(self, seen: Snapshot) -> list[RequestRow]:
        """Images of which nobody was sure, where they are to be asked for once more."""
        if not self._config.folder.ask_again:
            return []
        unsure = selection.unsure(seen.ledger.entries, self._asked(), seen.kept)
        return [wish for wish in unsure if seen.can_be_answered(wish.id)]

    def _asked(self) -> list[RequestRow]:
        """What all cycles have asked for, one after another."""
        return [wish for n in range(self._workdir.last() + 1) for wish in self._workdir.asked(n)]

    def _random(self, seen: Snapshot, least: int = 0) -> list[RequestRow]:
        """Random images in a simulation's order of the initial set, as many as `initial` lacks."""
        wanted = max(least, self._config.initial - len(seen.labelled))
        wanted -= selection.share(wanted, self._config.folder.test_fraction, len(seen.kept_left))
        order = plans.initial(derive(self._key, Stream.INITIAL), len(seen.images), len(seen.images))
        names = [seen.images[i].id for i in order if seen.candidates[i]]
        return [RequestRow(name, "pick", float("nan")) for name in names[:wanted]]

    def _picks(self, number: int, seen: Snapshot) -> list[RequestRow]:
        """What a cycle has picked, in order, but for what people have said or removed since."""
        method = self._workdir.trained(number).get("method", self._work.method.name)
        picks = records.read_picks(files.trial_folder(self._workdir.folder, method, TRIAL))
        mine = np.flatnonzero(picks["cycle"] == number)
        order = mine[np.argsort(picks["rank"][mine])]
        wishes = [RequestRow(str(picks["id"][i]), "pick", float(picks["score"][i])) for i in order]
        free = {seen.images[i].id for i in np.flatnonzero(seen.candidates)}
        return [wish for wish in wishes if wish.id in free]

    def _write_request(self, number: int, seen: Snapshot, asked: list[RequestRow]) -> None:
        options = self._config.folder
        guesses = self._guesses() if options.suggest else {}
        requests.write(
            self._workdir.folder, number, [seen.asked(wish.id, guesses) for wish in asked],
            classes=seen.ledger.classes, unsure=tuple(options.unsure),
            bad=tuple(options.exclude_answers),
            picture=functools.partial(seen.picture, config=self._config),
            parts=options.request_parts,
            label_studio_images=options.label_studio_images,
            label_studio_root=options.label_studio_root,
            images_folder=seen.folder, fixed=bool(options.classes),
        )  # fmt: skip

    def _guesses(self) -> dict[str, str]:
        """What the model says of each image; nothing where that cannot be read."""
        rows = self._workdir.table("predictions.csv", ("id", "predicted"))
        return {row["id"]: unescape_formula(row["predicted"]) for row in rows}

    def _tested(self) -> set[str]:
        """Images that were asked for to be tested on; the last request with one decides."""
        roles = {wish.id: wish.role for wish in self._asked()}
        return {name for name, role in roles.items() if role == "test"}

    # The end

    def _is_through(self, seen: Snapshot, frozen: Frozen) -> bool:
        """Whether nothing is left to ask, and nothing was said that the model does not know."""
        if seen.candidates.any() or seen.kept_left or self._unsure(seen) or self._ties(seen):
            return False
        return not self._since(seen, frozen)

    def _since(self, seen: Snapshot, frozen: Frozen) -> set[str]:
        """Images that are now trained or tested on with another label, or no more, or newly."""
        used = lambda one: {(r.id, r.split, r.label) for r in one.rows if r.split in _USED}
        return {name for name, _, _ in used(seen.freeze(self._tested())) ^ used(frozen)}

    def _finish(self, number: int) -> None:
        seen, found = self._look(), self._workdir.frozen(number)
        if found is not None:
            self._workdir.write_labels(number, found[0], seen.files)
            since = self._since(seen, found[0])
            if since:
                self._work.say(
                    f"{len(since)} images are labelled otherwise than when cycle {number} began,"
                    " which the model does not know: give --config.cycles="
                    f"{self._trainings() + 1} to go on with them"
                )
        checkpoints.remove(self._work.trial / "checkpoints")
        self._status("FINISHED", number, seen, {"asked": 0, "answered": 0, "unsure": 0, "bad": 0})
        labelled, every = len(seen.labelled), sum(image.status == "ok" for image in seen.images)
        what = f"all {every:,}" if labelled == every else f"{labelled:,} of {every:,}"
        self._work.say(f"{what} images are labelled; model in {self._workdir.model}")

    # What is told

    def _tell_changes(self, number: int, frozen: Frozen, names: Mapping[str, str]) -> None:
        """What people say otherwise than when the cycle before began."""
        before = self._workdir.frozen(number - 1) if number else None
        if before is None:
            return
        old, new = (
            {row.id: Verdict("label", row.label, "", "", ()) for row in one.rows if row.label}
            for one in (before[0], frozen)
        )
        lines = consensus.changes(old, new, names)
        shown = "; ".join(lines[:5]) + (f"; ... ({len(lines) - 5} more)" if len(lines) > 5 else "")
        if lines:
            self._work.say(f"since cycle {number - 1}: {shown}")
        for name in frozen.classes[len(before[0].classes) :]:
            self._work.say(f"new class {name}: {frozen.counts[name]} images for training")

    def _status(self, state: str, number: int, seen: Snapshot, far: dict[str, int]) -> None:
        trained_before = number if self._workdir.is_trained(number) else number - 1
        test = self._workdir.trained(trained_before).get("test") if trained_before >= 0 else None
        self._workdir.write_status(
            state=state, cycle=number, **far, images=len(seen.images), labelled=len(seen.labelled),
            test=test, request=str(self._request(number)) if state == "WAITING" else None,
        )  # fmt: skip

    def _request(self, number: int) -> pathlib.Path:
        """Where people find what a cycle asks for."""
        return requests.path_of(self._workdir.folder, number)

    def _stop_if_asked(self) -> None:
        asked = self._work.stop()
        if asked is not None:
            raise Interrupted(asked)
