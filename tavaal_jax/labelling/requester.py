"""Chooses the images of the next request from a snapshot, and writes the request."""

import functools
import pathlib

import jax
import numpy as np

from tavaal_jax.algorithm.methods import BASELINE
from tavaal_jax.algorithm.state import Stream, derive
from tavaal_jax.data import plans
from tavaal_jax.data.pictures import decode
from tavaal_jax.labelling import insight, requests, selection
from tavaal_jax.labelling.cycle import TRIAL, LabellingContext
from tavaal_jax.labelling.frozen import RequestRow
from tavaal_jax.labelling.labels.cells import unescape_formula
from tavaal_jax.labelling.page import wishes
from tavaal_jax.labelling.snapshot import Snapshot
from tavaal_jax.report import files, records
from tavaal_jax.study import first_images


class Requester:
    """Makes the requests of a labelling loop."""

    def __init__(self, context: LabellingContext):
        self._context, self._config, self._workdir = context, context.config, context.workdir

    @functools.cached_property
    def _key(self) -> jax.Array:
        """The trial's key; a start that only waits needs none, and compiles nothing."""
        return derive(jax.random.key(self._config.seed), TRIAL)

    def first_rows(self, now: Snapshot, least: int = 0) -> list[RequestRow]:
        """As many images as `initial` lacks, or `least`, for which no model is asked.

        They are random, in a simulation's initial order, or chosen by the method `first_by`. The
        images of the test set are none of them: those stay a random sample.
        """
        wanted = max(least, self._config.initial - len(now.labelled))
        wanted -= self._test_share(wanted, now)
        if self._config.first_by != BASELINE:
            names = self._chosen(now, wanted)
        else:
            key, size = derive(self._key, Stream.INITIAL), len(now.images)
            order = plans.initial(key, size, size)
            names = [now.images[i].id for i in order if now.candidates[i]]
        return [RequestRow(name, "pick", float("nan")) for name in names[:wanted]]

    def _chosen(self, now: Snapshot, count: int) -> list[str]:
        """Ids of `count` candidates that the method `first_by` picks by their features."""
        candidates = [now.images[i].id for i in np.flatnonzero(now.candidates)]
        names, features = now.features_of(candidates)
        # Images of the test set teach T nothing: what they lie near to is not covered by them.
        _, labelled = now.features_of([n for n in now.labelled if n not in now.reserved])
        if not names or count < 1:
            return []
        key = derive(self._key, Stream.INITIAL)
        picks = first_images.by_method(self._config, features, count, key, labelled)
        return [names[i] for i in picks]

    def picked_rows(self, number: int, now: Snapshot) -> list[RequestRow]:
        """A cycle's picks in order, without those labelled or removed since."""
        method = self._workdir.trained(number).get("method", self._context.method.name)
        picks = records.read_picks(files.trial_folder(self._workdir.folder, method, TRIAL))
        of_cycle = np.flatnonzero(picks["cycle"] == number)
        order = of_cycle[np.argsort(picks["rank"][of_cycle])]
        rows = [RequestRow(str(picks["id"][i]), "pick", float(picks["score"][i])) for i in order]
        free = {now.images[i].id for i in np.flatnonzero(now.candidates)}
        return [row for row in rows if row.id in free]

    def request(self, number: int, now: Snapshot, picks: list[RequestRow]) -> None:
        """Makes the request of cycle `number` of picks, conflicts and images of the test set."""
        config = self._config
        conflicts = self.conflicts(now)
        if conflicts:
            self._context.log(f"{len(conflicts)} images with conflicting answers: asked again")
        rows = [*conflicts, *self._wished_first(now, picks)]
        if not now.candidates.any():
            rows += self.unsure(now)
        wanted = int(config.budget) if number else max(0, config.initial - len(now.labelled))
        count = self._test_share(wanted, now)
        if not now.candidates.any():
            count = min(wanted, len(now.reserved_left))
        tests = selection.next_tests(now.reserved_left, count, config.seed)
        request = selection.interleaved(rows, tests, config.seed, number)
        is_all = not now.reserved_left - {row.id for row in request}
        if is_all and 0 < len(request) < wanted:
            key, left = "budget" if number else "initial", len(request)
            images = "1 image is" if left == 1 else f"{left:,} images are"
            self._context.log(f"{key} is {config[key]}: only {images} left to ask for")
        # This ends the cycle before; should the request's folder be missing, the loop writes it.
        self._workdir.write_request(number, request)
        if request:
            self.write(number, now, request)

    def _wished_first(self, now: Snapshot, picks: list[RequestRow]) -> list[RequestRow]:
        """As many rows as there are picks, and first those images that people wish to be asked."""
        free = {now.images[i].id for i in np.flatnonzero(now.candidates)}
        mate = {now.folds[name]: name for name in free if name in now.folds}  # One stands for all.
        wishes_now = wishes.read(self._workdir.folder)
        wished = [n if n in free else mate.get(now.folds.get(n, ""), "") for n in wishes_now]
        wished = [name for name in dict.fromkeys(wished) if name]
        first = [RequestRow(name, "pick", float("nan")) for name in wished]
        rest = [row for row in picks if row.id not in set(wished)]
        return [*first, *rest][: len(picks)]

    def write(self, number: int, now: Snapshot, request: list[RequestRow]) -> None:
        """Writes a request's folder, unless it is there."""
        if requests.request_folder(self._workdir.folder, number).exists():
            return
        options = self._config.folder
        guesses = self._predictions() if options.suggest else {}
        rank = {row.id: rank for rank, row in enumerate(request)}
        requests.write(
            self._workdir.folder, number, [now.request_item(row.id, guesses) for row in request],
            classes=now.consensus.classes, unsure=now.words.unsure, bad=now.words.bad,
            preview=self._preview,
            part_count=options.request_parts,
            label_studio_images=options.label_studio_images,
            label_studio_root=options.label_studio_root,
            images_folder=now.folder, fixed=bool(options.classes),
            order=[rank[name] for name in insight.order(now, list(rank))],
        )  # fmt: skip

    def _preview(self, path: pathlib.Path, pixels: int) -> bytes:
        """A JPEG of an image, its longer side at most `pixels`; OSError where there is none."""
        options = self._config.folder
        try:
            return decode.preview(path, pixels, tuple(options.low_high), options.max_pixels)
        except decode.Corrupt as error:
            raise OSError(f"{path}: {error}") from error

    def conflicts(self, now: Snapshot) -> list[RequestRow]:
        """Images with conflicting answers that are to be asked for again."""
        rows = selection.conflicts(now.verdicts, self._all_rows(), now.reserved)
        return [row for row in rows if now.is_answerable(row.id)]

    def unsure(self, now: Snapshot) -> list[RequestRow]:
        """Images of which nobody was sure that are to be asked for again."""
        if not self._config.folder.ask_again:
            return []
        rows = selection.unsure(now.verdicts, self._all_rows(), now.reserved)
        return [row for row in rows if now.is_answerable(row.id)]

    def test_ids(self) -> set[str]:
        """Images asked for as tests; the last request for an image decides."""
        roles = {row.id: row.role for row in self._all_rows()}
        return {name for name, role in roles.items() if role == "test"}

    def _all_rows(self) -> list[RequestRow]:
        """Rows of all requests so far."""
        numbers = range(self._workdir.last_cycle() + 1)
        return [row for number in numbers for row in self._workdir.read_request(number)]

    def _test_share(self, wanted: int, now: Snapshot) -> int:
        fraction = self._config.folder.test_fraction
        return selection.test_share(wanted, fraction, len(now.reserved_left))

    def _predictions(self) -> dict[str, str]:
        """The model's predicted class of each image; empty where predictions.csv is unreadable."""
        rows = self._workdir.table("predictions.csv", ("id", "predicted"))
        return {row["id"]: unescape_formula(row["predicted"]) for row in rows}
