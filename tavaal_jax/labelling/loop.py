"""The labelling loop: trains on the labels known so far, requests more, and stops until they come.

It is a simulation's loop, one cycle at a time; between two cycles all state is in files.
"""

import contextlib
import pathlib
import time
from collections.abc import Mapping

from ml_collections import ConfigDict

from tavaal_jax.algorithm.methods import METHODS
from tavaal_jax.engine import devices
from tavaal_jax.environment import user_path
from tavaal_jax.errors import Interrupted, UserError, WaitingForLabels
from tavaal_jax.labelling import checks as people_checks
from tavaal_jax.labelling import cycle, passed_over, requests, selection
from tavaal_jax.labelling.cycle import TRIAL, LabellingContext
from tavaal_jax.labelling.frozen import Frozen
from tavaal_jax.labelling.labels import consensus
from tavaal_jax.labelling.labels.consensus import Verdict
from tavaal_jax.labelling.live import Page
from tavaal_jax.labelling.reading import Images, open_images, take_snapshot
from tavaal_jax.labelling.requester import Requester
from tavaal_jax.labelling.selection import RequestProgress
from tavaal_jax.labelling.snapshot import Snapshot
from tavaal_jax.labelling.workdir import FrozenCycle, LabellingWorkdir
from tavaal_jax.report import checkpoints, files, progress
from tavaal_jax.study import features
from tavaal_jax.study.checks import config as checks
from tavaal_jax.study.trial import Stop

_USED = ("train", "test")
_SHOWN = 5  # changed labels


def run(
    config: ConfigDict,
    folder: pathlib.Path,
    callback: progress.Callback,
    stop: Stop,
    page: Page | None = None,
) -> None:
    """Runs cycles until labels are missing (WaitingForLabels), or no image is left to ask for.

    Beside a `page` it waits for answers instead, and at the end for changed ones. Raises UserError
    for what the user can mend, and Interrupted when `stop()` returns a signal.
    """
    config = features.adapted(config)
    people_checks.check(config, devices.device_count())
    images = user_path(config.folder.images, "folder.images")
    if config.folder.label_studio_images == "local":
        requests.local_files_prefix(images, config.folder.label_studio_root)
    people_checks.check_workdir(folder, images)
    with files.claim(folder):
        others = people_checks.changed_since_begun(config, folder)
        workdir = LabellingWorkdir(folder)
        mended = workdir.begin()
        method = METHODS[checks.method_names(config)[0]]
        context = LabellingContext(config, workdir, method, callback, stop)
        if others:
            context.log(f"other keys than in the cycle before: {', '.join(others)}")
        for line in mended:
            context.log(line)
        _Loop(context, page).run()


class _Loop:
    """Runs cycle after cycle in one workdir."""

    def __init__(self, context: LabellingContext, page: Page | None = None):
        self._page = page
        self._context, self._config, self._workdir = context, context.config, context.workdir
        self._requester = Requester(context)
        self._images: Images | None = None
        self._last_line = ""
        self._published = -1  # Number of the newest cycle whose model/ is known to be complete.
        before = self._workdir.status().get("passed_over")
        self._passed: dict[str, object] = dict(before) if isinstance(before, dict) else {}
        notes = self._workdir.status().get("notes")
        self._notes = tuple(notes) if isinstance(notes, list) else ()

    def run(self) -> None:
        """Runs until labels are missing, or no image is left to ask for."""
        try:
            self._run()
            while self._page is not None:
                self._page.wait("", False, self._check_stop)
                self._run()
        except BaseException as error:
            if self._workdir.status().get("state") == "TRAINING":
                is_stop = isinstance(error, Interrupted | KeyboardInterrupt)
                with contextlib.suppress(Exception):  # The present error is more important.
                    self._set_state("STOPPED" if is_stop else "FAILED")
            raise

    def _set_state(self, state: str, **others: object) -> None:
        self._workdir.write_status(**{**self._workdir.status(), "state": state, **others})

    def _run(self) -> None:
        workdir = self._workdir
        while True:
            number = max(workdir.last_cycle(), 0)
            begun = workdir.frozen(number)
            is_enough = 0 < self._config.cycles <= self._trained_cycles()
            if begun is None and number and is_enough:
                return self._finish(number - 1)
            if begun is None:
                self._begin(number)
            elif not workdir.is_trained(number):
                self._train(number, begun)
            else:
                now, is_skipped = self._snapshot(), "skipped" in workdir.trained(number)
                if not is_skipped and (is_enough or self._is_complete(now, begun.frozen)):
                    return self._finish(number)
                picks = self._requester.picked_rows(number, now)
                if not picks and not is_skipped and now.candidates.any():
                    self._context.log(
                        f"cycle {number} has no picks: {self._config.first_by} images are asked for"
                    )
                picks = picks or self._requester.first_rows(now, self._config.budget)
                self._requester.request(number + 1, now, picks)

    def _publish(self) -> None:
        """Completes model/ of the newest trained cycle, which a kill may have prevented, too."""
        last = self._workdir.last_cycle()
        trained = [n for n in (last, last - 1) if n >= 0 and self._workdir.is_trained(n)]
        if trained and self._published != trained[0]:
            cycle.publish(self._context, trained[0])
            self._published = trained[0]

    def _trained_cycles(self) -> int:
        """Number of trained cycles, without those skipped for too few labels."""
        numbers = range(self._workdir.last_cycle() + 1)
        done = [n for n in numbers if self._workdir.is_trained(n)]
        return sum("skipped" not in self._workdir.trained(n) for n in done)

    # Between two cycles

    def _snapshot(self) -> Snapshot:
        """Images and labels as they are now; waits for people's repairs where the config polls."""
        reading = contextlib.nullcontext() if self._page is None else self._page.reading
        while True:
            is_first = self._images is None
            try:
                if self._page is not None:
                    self._page.look()
                images = open_images(self._config, self._workdir)
                now = take_snapshot(
                    self._config, self._workdir, images, self._context.log, self._check_stop,
                    reading,
                )  # fmt: skip
                self._images = images
            except UserError as error:
                self._publish()
                # What is wrong at the start may be a flag that only a new command can mend.
                if is_first if self._page is not None else not self._config.folder.poll_seconds:
                    raise
                # Somebody may be writing the file.
                self._wait(f"{error}; trying again", is_problem=True)
            else:
                self._log_passed(now)
                return now

    def _begin(self, number: int) -> None:
        """Requests the labels of a cycle, or waits for them, or freezes those that are there."""
        now = self._snapshot()
        if self._workdir.last_cycle() < number:
            return self._requester.request(number, now, self._requester.first_rows(now))
        request = [r for r in self._workdir.read_request(number) if now.is_answerable(r.id)]
        if request and not self._request_folder(number).exists():
            self._requester.write(number, now, request)
        done = selection.request_progress(request, now.verdicts)
        frozen = now.freeze(self._requester.test_ids())
        missing = selection.missing_labels(frozen.counts, self._config.batch_size)
        self._write_status("WAITING", number, now, done)
        self._publish()  # Nobody has to wait for it: they have been asked.
        is_wanted = self._page is not None and self._page.is_training_wanted()
        if is_wanted and missing is not None:
            return self._wait(f"a model needs {missing}", is_problem=True)
        if done.answered < self._config.folder.wait_for * len(request) - 1e-9 and not is_wanted:
            return self._wait(
                f"cycle {number}: {len(request)} images to label ({done.answered} answered), open"
                f" {self._request_folder(number) / 'index.html'} or see HOWTO.txt there; then the"
                " same command continues"
            )
        if missing is not None and not now.candidates.any():
            return self._wait(f"cycle {number} needs {missing}; then the same command continues")
        self._log_changes(number, frozen, now.files)
        for old in self._workdir.folder.glob(f"*/trial_{TRIAL}/checkpoints"):
            checkpoints.remove(old)  # Those of the cycle before, whose method may be another.
        self._workdir.write_classes(frozen.classes)
        assert self._images is not None
        made_by = features.digest(self._images.source)
        files.write_config(self._workdir.folder, self._config, features=made_by)
        return self._workdir.freeze(number, frozen, self._config, made_by)

    def _train(self, number: int, begun: FrozenCycle) -> None:
        """Trains on frozen labels, or skips a cycle that has too few."""
        # Those that the cycle has begun with; in another process they must be the same.
        images = self._images or open_images(self._config, self._workdir)
        cycle.check(self._context, number, begun, images)
        self._workdir.write_labels(number, begun.frozen, self._workdir.usable_files())
        missing = selection.missing_labels(begun.frozen.counts, self._config.batch_size)
        if missing is not None:
            self._context.log(f"cycle {number} needs {missing}: more images are asked for")
            return self._workdir.write_trained(number, {"skipped": missing})
        if self._page is not None and self._page.is_blank:  # Stopped in training, and begun again.
            self._page.show(self._context, number, self._snapshot())
        self._set_state("TRAINING", cycle=number)
        if self._page is not None:
            self._page.train()
        is_last = 0 < self._config.cycles <= self._trained_cycles() + 1
        return cycle.run(self._context, number, begun.frozen, images, is_last)

    def _wait(self, line: str, is_problem: bool = False) -> None:
        """Raises WaitingForLabels, or waits where the config polls or there is a page.

        Logs `line` once; a problem is shown on the page.
        """
        if not self._config.folder.poll_seconds and self._page is None:
            raise WaitingForLabels(line)
        if self._last_line != line and (is_problem or self._page is None):
            self._context.log(line)
        self._last_line = line
        if is_problem and self._workdir.status():  # The next status has it no more.
            self._workdir.write_status(**self._workdir.status() | {"problem": line})
        if self._page is not None:
            return self._page.wait(line, is_problem, self._check_stop)
        until = time.monotonic() + self._config.folder.poll_seconds
        while time.monotonic() < until:
            self._check_stop()
            time.sleep(min(0.2, self._config.folder.poll_seconds))

    # The end

    def _is_complete(self, now: Snapshot, frozen: Frozen) -> bool:
        """Whether no image is left to ask for, and the model was trained with all labels."""
        requester = self._requester
        is_open = now.candidates.any() or now.reserved_left
        if is_open or requester.unsure(now) or requester.conflicts(now):
            return False
        return not self._changed_since(now, frozen)

    def _changed_since(self, now: Snapshot, frozen: Frozen) -> set[str]:
        """Images whose label or place in the training or test set has changed since `frozen`."""
        used = lambda one: {(r.id, r.split, r.label) for r in one.rows if r.split in _USED}
        present = now.freeze(self._requester.test_ids())
        return {name for name, _, _ in used(present) ^ used(frozen)}

    def _finish(self, number: int) -> None:
        """Removes checkpoints and writes the final labels and status."""
        now, begun = self._snapshot(), self._workdir.frozen(number)
        if begun is not None:
            self._workdir.write_labels(number, begun.frozen, now.files)
            changed = self._changed_since(now, begun.frozen)
            if changed:
                self._context.log(
                    f"{len(changed)} images have other labels than when cycle {number} began, with"
                    " which the model was not trained: give --config.cycles="
                    f"{self._trained_cycles() + 1} to continue with them"
                )
        self._publish()
        checkpoints.remove(self._context.trial / "checkpoints")
        self._write_status("FINISHED", number, now, RequestProgress())
        labelled, every = len(now.labelled), sum(image.status == "ok" for image in now.images)
        what = f"all {every:,}" if labelled == every else f"{labelled:,} of {every:,}"
        self._context.log(f"{what} images are labelled; model in {self._workdir.model}")

    # Log and status

    def _log_passed(self, now: Snapshot) -> None:
        """Logs kinds of files that are not read, unless the status.json so far counts as many."""
        for where, kinds in now.passed.items():
            for kind in passed_over.changed(kinds, self._passed.get(where)):
                self._context.log(f"not read: {kind.line}")
            self._passed[where] = passed_over.records(kinds)
        for note in now.notes:
            if note not in self._notes:
                self._context.log(note)
        self._notes = now.notes

    def _log_changes(self, number: int, frozen: Frozen, names: Mapping[str, str]) -> None:
        """Logs labels that have changed, and classes that are new, since the cycle before."""
        before = self._workdir.frozen(number - 1) if number else None
        if before is None:
            return
        old, new = (
            {row.id: Verdict("label", row.label, "", "", ()) for row in one.rows if row.label}
            for one in (before.frozen, frozen)
        )
        lines = consensus.changes(old, new, names)
        more = f"; ... ({len(lines) - _SHOWN} more)" if len(lines) > _SHOWN else ""
        if lines:
            self._context.log(f"since cycle {number - 1}: {'; '.join(lines[:_SHOWN])}{more}")
        for name in frozen.classes[len(before.frozen.classes) :]:
            self._context.log(f"new class {name}: {frozen.counts[name]} images for training")

    def _write_status(self, state: str, number: int, now: Snapshot, done: RequestProgress) -> None:
        """Writes status.json, with the test score of the last trained cycle."""
        trained = number if self._workdir.is_trained(number) else number - 1
        test = self._workdir.trained(trained).get("test") if trained >= 0 else None
        self._workdir.write_status(
            state=state, cycle=number, **done._asdict(), images=len(now.images),
            labelled=len(now.labelled), test=test,
            request=str(self._request_folder(number)) if state == "WAITING" else None,
            passed_over=self._passed, notes=self._notes,
        )  # fmt: skip
        if self._page is not None:
            self._page.show(self._context, number, now)

    def _request_folder(self, number: int) -> pathlib.Path:
        return requests.request_folder(self._workdir.folder, number)

    def _check_stop(self) -> None:
        """Raises Interrupted where the study was asked to stop."""
        signal = self._context.stop()
        if signal is not None:
            raise Interrupted(signal)
