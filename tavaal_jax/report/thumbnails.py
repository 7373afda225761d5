"""The first picks of each cycle as thumbnails: one strip of PNG, cut by CSS."""

import io
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from tavaal_jax.data import Dataset
from tavaal_jax.errors import UserError
from tavaal_jax.report import files, markup, records
from tavaal_jax.report.records import Result

MOST = 24  # of one cycle
_LONGER_SIDE = 64  # pixels; larger images are shrunk
_SHOWN_SIDE = 40  # CSS pixels
_SUM = 4_000_000  # values in all of them: some megabytes of PNG


class CyclePicks(NamedTuple):
    """Picks of one trial in one cycle, best first."""

    method: str
    trial: int
    cycle: int
    indices: np.ndarray
    """Indices into the training images."""
    scores: np.ndarray
    ids: np.ndarray


def choices(folder: pathlib.Path, dataset: Dataset) -> tuple[list[CyclePicks], list[UserError]]:
    """Picks of each method's first trial, and errors of files that could not be read."""
    found: dict[str, list[CyclePicks]] = {}
    faults = []
    for method, trial in files.trials(folder):
        if method in found:
            continue
        path = files.trial_folder(folder, method, trial)
        try:
            mine = _trial_picks(path, method, trial, dataset)
        except UserError as error:
            faults.append(error)
            continue
        if mine:
            found[method] = mine
    return [choice for mine in found.values() for choice in mine], faults


def _trial_picks(path: pathlib.Path, method: str, trial: int, dataset: Dataset) -> list[CyclePicks]:
    picks = records.read_picks(path)
    indices = picks["index"]
    there = (indices >= 0) & (indices < len(dataset.train_ids))
    if not there.all() or (dataset.train_ids[indices].astype(str) != picks["id"]).any():
        raise UserError(
            f"{path / 'picks.csv'} names other images than {dataset.name} has:"
            " give the data set of this study"
        )
    order = np.lexsort((picks["rank"], picks["cycle"]))
    picks = {name: column[order] for name, column in picks.items()}
    columns = lambda cycle: (
        picks[name][picks["cycle"] == cycle] for name in ("index", "score", "id")
    )
    return [CyclePicks(method, trial, int(c), *columns(c)) for c in np.unique(picks["cycle"])]


def show(chosen: Sequence[CyclePicks], dataset: Dataset, rows: Sequence[Result]) -> str:
    """HTML of all picks, folded by method; `rows` are those of results.csv."""
    most = count(chosen, dataset.shape)
    labelled = {(r["method"], r["trial"], r["cycle"]): r["labelled"] for r in rows}
    methods: dict[str, list[str]] = {}
    for choice, strip in zip(chosen, strips(chosen, dataset, most), strict=True):
        before = labelled.get((choice.method, choice.trial, choice.cycle), "unknown")
        figure = _figure(choice, dataset, strip, most, f"cycle {choice.cycle}, {before} labelled")
        methods.setdefault(choice.method, []).append(figure)
    trials = {choice.method: choice.trial for choice in chosen}
    longer = max(dataset.shape[:2])
    high, wide = (max(1, round(_SHOWN_SIDE * side / longer)) for side in dataset.shape[:2])
    rendering = "pixelated" if longer <= _SHOWN_SIDE / 2 else "auto"
    folded = "\n".join(
        f"<details>\n<summary>{markup.method(name)}, trial {trials[name]}</summary>\n"
        f"{''.join(shown)}</details>"
        for name, shown in methods.items()
    )
    return (
        f"<p>At most {most} images of each choice, best first, in each method's first trial. A"
        " tooltip has an image's class, score, place and id.</p>\n"
        f'<div style="--wide:{wide}px;--high:{high}px;--rendering:{rendering}">\n{folded}\n</div>'
    )


def _figure(choice: CyclePicks, dataset: Dataset, strip: bytes, most: int, title: str) -> str:
    """HTML of one cycle's picks, cut out of the strip by CSS, each with a tooltip."""
    titles = dataset.titles_of(choice.indices[:most])
    common = markup.text(common_classes(dataset, choice.indices, 10))
    spans = "".join(
        f'<span role="img" style="--at:{place}" title="{markup.text(name)}, score {score:.4g},'
        f' number {place + 1} of {len(choice.indices)}, {markup.text(example)}"></span>'
        for place, (name, score, example) in enumerate(
            zip(titles, choice.scores, choice.ids, strict=False)
        )
    )
    return (
        f"<figure>\n<figcaption>{title}; {len(choice.indices)} picks by class: {common}"
        f'</figcaption>\n<div class="thumbs" style="--strip:url({markup.uri(strip)})">{spans}</div>'
        "\n</figure>\n"
    )


def common_classes(dataset: Dataset, indices: np.ndarray, most: int) -> str:
    """Text of the most frequent classes of some training images, with counts or pixel shares."""
    counts = dataset.counts_of(indices).sum(0, dtype=np.int64)
    order = [k for k in np.argsort(-counts, kind="stable")[:most] if counts[k]]
    if dataset.has_maps:
        share = 100 / max(1, counts.sum())
        return ", ".join(f"{dataset.class_names[k]} ({share * counts[k]:.2g} %)" for k in order)
    return ", ".join(f"{dataset.class_names[k]} ({counts[k]})" for k in order)


def count(chosen: Sequence[CyclePicks], shape: tuple[int, ...]) -> int:
    """Number of thumbnails per cycle: `MOST`, fewer if the images are large and many."""
    values = int(np.prod(np.minimum(shape[:2], _LONGER_SIDE))) * (3 if shape[2] == 3 else 1)
    return min(MOST, max(4, _SUM // (values * len(chosen))))


def strips(chosen: Sequence[CyclePicks], dataset: Dataset, most: int) -> list[bytes]:
    """A PNG per cycle, its first `most` images side by side, grey unless they have 3 channels.

    Images that use a small part of a byte's range are brightened by one whole factor.
    """
    images = [_small(dataset.train_images[choice.indices[:most]]) for choice in chosen]
    factor = 255 // max(1, *(int(some.max()) for some in images))
    return [_png(np.concatenate(some * np.uint8(factor), axis=1)) for some in images]


def _small(images: np.ndarray) -> np.ndarray:
    """Shrinks images, `[n, H, W, C] -> [n, h, w, 3 or none]`."""
    images = images if images.shape[-1] == 3 else images[..., 0]
    if max(images.shape[1:3]) <= _LONGER_SIDE:
        return images
    found = []
    for image in map(Image.fromarray, images):
        image.thumbnail((_LONGER_SIDE, _LONGER_SIDE))
        found.append(np.asarray(image))
    return np.stack(found)


def _png(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "png", optimize=True)
    return out.getvalue()
