"""What the live page shows beside the request: made of files and features, never of test images."""

import dataclasses
import datetime
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from tavaal_jax.labelling import selection
from tavaal_jax.labelling.labels.cells import unescape_formula
from tavaal_jax.labelling.labels.consensus import Verdict
from tavaal_jax.labelling.page.board import Known
from tavaal_jax.labelling.reading import open_images
from tavaal_jax.labelling.snapshot import Snapshot
from tavaal_jax.labelling.view import agreement as view_agreement
from tavaal_jax.labelling.view import maps
from tavaal_jax.labelling.view import suggestions as view_suggestions
from tavaal_jax.labelling.view.doubts import doubtful
from tavaal_jax.labelling.view.next_labels import Point
from tavaal_jax.labelling.view.order import similarity_order
from tavaal_jax.labelling.workdir import LabellingWorkdir

_USED = ("train", "test")


class Predictions(NamedTuple):
    """Predictions of the newest model, from predictions.csv."""

    ids: tuple[str, ...]
    best: Mapping[str, str]
    """Predicted class by image id."""
    classes: tuple[str, ...]
    probabilities: np.ndarray
    """`[N, K]`."""

    @classmethod
    def read(cls, workdir: LabellingWorkdir) -> "Predictions":
        """What predictions.csv has; nothing where it is not there, or was changed by people."""
        rows = workdir.table("predictions.csv", ("id", "predicted"))
        columns = [name for name in (rows[0] if rows else {}) if name.startswith("p_")]
        try:
            values = [[float(row[name]) for name in columns] for row in rows]
        except (TypeError, ValueError):
            rows, values = [], []
        return cls(
            tuple(row["id"] for row in rows),
            {row["id"]: unescape_formula(row["predicted"]) for row in rows},
            tuple(name.removeprefix("p_") for name in columns),
            np.array(values, np.float32).reshape(len(rows), len(columns)),
        )


class CurvePoint(Point):
    """A point of the learning curve with the accuracy's 95 % interval."""

    low: float
    high: float


def curve(workdir: LabellingWorkdir, last: int) -> tuple[CurvePoint, ...]:
    """Accuracy after each cycle up to `last` that has test images."""
    found: list[CurvePoint] = []
    for number in range(last + 1):
        record = workdir.trained(number) if workdir.is_trained(number) else {}
        score = record.get("test")
        if score and score["n"]:
            places = (score["accuracy"], score["low"], score["high"])
            accuracy, low, high = (float(value or 0.0) for value in places)
            point: CurvePoint = {
                "labelled": record["labelled"],
                "n": score["n"],
                "accuracy": accuracy,
                "low": low,
                "high": high,
            }
            found.append(point)
    return tuple(found)


def known(workdir: LabellingWorkdir) -> Known:
    """Labels of the last cycle that has begun, and which cycle asked for which image."""
    last = workdir.last_cycle()
    asked = {row.id: n for n in range(last + 1) for row in workdir.read_request(n)}
    for number in (last, last - 1):
        begun = workdir.frozen(number) if number >= 0 else None
        if begun is not None:
            time = (workdir.cycle_folder(number) / "config.json").stat().st_mtime
            # Answered near-duplicates of a test image as well, which would tell it by its mates.
            kinds = (*_USED, "near_duplicate")
            rows = [row for row in begun.frozen.rows if row.split in kinds and row.label]
            labels = {row.id: row.label for row in rows}
            return Known(labels, asked, datetime.datetime.fromtimestamp(time, datetime.UTC))
    return Known({}, asked, datetime.datetime.min.replace(tzinfo=datetime.UTC))


def features_of(now: Snapshot, names: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """Those of some images that have features, or pixels, and these `[n, F]`."""
    there, features = now.features_of(names)
    return there, features.reshape(len(there), -1)


def order(now: Snapshot, names: Sequence[str]) -> tuple[str, ...]:
    """Images in an order in which similar ones lie together; those without features are last."""
    there, features = features_of(now, names)
    ordered = [there[i] for i in similarity_order(features)]
    return (*ordered, *(name for name in names if name not in set(there)))


def suggestions(
    now: Snapshot, predicted: Predictions, seed: int, asked: Collection[str]
) -> list[dict[str, Any]]:
    """Groups of unlabelled images by predicted class, see `view.suggestions`.

    Those `asked` for are none of them.
    """
    free = {image.id for image in now.images if image.status == "ok"}
    free -= now.verdicts.keys() | now.fixed_tests.keys() | set(asked)
    rows = [row for row, name in enumerate(predicted.ids) if name in free]
    ids = [predicted.ids[row] for row in rows]
    is_test = np.array([name in now.reserved for name in ids], bool)
    first = now.folds  # What is reserved is drawn by these, too.
    draws = np.array([selection.hash_uniform(first.get(name, name), seed) for name in ids])
    if not ids:
        return []
    return [
        {
            "class": predicted.classes[group.label],
            "images": [
                {"id": ids[i], "confidence": round(float(confidence), 4)}
                for i, confidence in zip(group.images, group.confidence, strict=True)
            ],
        }
        for group in view_suggestions.suggestions(predicted.probabilities[rows], is_test, draws)
    ]


def agreement(verdicts: Iterable[Verdict], classes: Sequence[str]) -> dict[str, float] | None:
    """Agreement of people on images that several have answered; None where there are none."""
    by_place: list[dict[str, str]] = []
    for image, verdict in enumerate(verdicts):
        votes = [label for label, count in verdict.votes for _ in range(count) if label in classes]
        for place, label in enumerate(votes):
            if place == len(by_place):
                by_place.append({})
            by_place[place][str(image)] = label
    # Who has given which answer makes no difference.
    found = view_agreement.agreement({str(n): said for n, said in enumerate(by_place)})
    return None if found.alpha is None else {"alpha": round(found.alpha, 4), "n": found.n}


def computed(
    now: Snapshot, config: ConfigDict, workdir: LabellingWorkdir
) -> dict[str, tuple[object, Callable[[], Mapping[str, Any]]]]:
    """Maps and doubtful answers: keys by which they are known again, and what computes them.

    That may be done by another thread: it opens the features for itself.
    """
    opened = lambda: dataclasses.replace(now, cache=open_images(config, workdir).cache)
    ids = tuple(dict.fromkeys(image.id for image in now.images if image.status == "ok"))
    number, begun = workdir.last_cycle(), None
    while begun is None and number >= 0:
        begun, number = workdir.frozen(number), number - 1
    rows = [row for row in begun.frozen.rows if row.split == "train"] if begun else []
    labels = {row.id: row.label for row in rows if row.id in set(ids)}
    return {
        "pca": (hash(ids), lambda: _map(opened(), ids, maps.pca)),
        "tsne": (hash(ids), lambda: _map(opened(), ids, maps.tsne)),
        "doubts": (tuple(labels.items()), lambda: _doubts(opened(), labels, config.seed)),
    }


def _map(
    now: Snapshot, ids: Sequence[str], make: Callable[[np.ndarray], np.ndarray]
) -> dict[str, Any]:
    """Places of images in two dimensions."""
    there, features = features_of(now, ids)
    places = make(features)
    return {"ids": there, "x": places[:, 0].tolist(), "y": places[:, 1].tolist()}


def _doubts(now: Snapshot, labels: Mapping[str, str], seed: int) -> dict[str, Any]:
    """Labels that a model fitted without them finds unlikely, the least likely first."""
    there, features = features_of(now, list(labels))
    given = np.array([labels[name] for name in there])
    if not there:
        return {"rows": []}
    folds = np.array([now.folds.get(name, name) for name in there])
    found = doubtful(features, given, jax.random.key(seed), folds)
    return {
        "rows": [
            {
                "id": there[i],
                "file": now.files[there[i]],
                "label": str(given[i]),
                "probability": round(float(found.probability[i]), 4),
                "instead": str(found.instead[i]),
            }
            for i in found.worst
        ]
    }
