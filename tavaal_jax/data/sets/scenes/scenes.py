"""Scenes: a small drawn street-scene set of our own, with Cityscapes' ids and folders.

    python -m tavaal_jax.data.sets.scenes.scenes FOLDER

Most training scenes are one empty avenue by day again and again. Persons, traffic signs, buses and
bicycles are nearly all in three rarer modes, and a few frames are broken, odd but without a label.
Each mode has the same share of the validation scenes, so what is rare counts: it pays to choose.
"""

import argparse
import functools
import pathlib
import shutil
import sys
import tempfile
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image

from tavaal_jax.data.sets import cityscapes
from tavaal_jax.data.sets.scenes import street
from tavaal_jax.data.sets.scenes import street_objects as objects
from tavaal_jax.data.sets.scenes.street import Draws, Picture, Place, Street
from tavaal_jax.environment import forgive_output, user_path
from tavaal_jax.errors import UserError

CLASSES = {
    street.ROAD: "road",
    street.SIDEWALK: "sidewalk",
    street.BUILDING: "building",
    street.POLE: "pole",
    street.SIGN: "traffic sign",
    street.VEGETATION: "vegetation",
    street.SKY: "sky",
    street.PERSON: "person",
    street.CAR: "car",
    street.BUS: "bus",
    street.BICYCLE: "bicycle",
}
"""Raw id: name, in the order of the train ids."""
SIZES = {"train": 600, "val": 200, "test": 4}
"""Scenes of each split."""
MODES = ("avenue", "market", "night", "crossing", "broken")
_SPLITS = tuple(SIZES)
_BLOCK = (34, 5, 5, 5, 1)  # scenes of each mode among 50 training scenes


Drawn = tuple[np.ndarray, np.ndarray]
"""Image and raw ids."""
Thing = Callable[[Picture, Place, Draws], None]
"""Draws what stands at a place."""
_Standing = tuple[float, float, Thing]
"""Pixels below the horizon, metres right of the middle, and what stands there."""


def mode(seed: int, number: int, split: str) -> str:
    """Kind of a scene, one of `MODES`."""
    if split != "train":
        return MODES[number % 4]
    block, place = divmod(number, sum(_BLOCK))
    order = np.argsort(Draws(seed, 0, block, 1).field(sum(_BLOCK)), kind="stable")
    return MODES[np.repeat(np.arange(len(MODES)), _BLOCK)[order[place]]]


def scene(seed: int, number: int, split: str) -> Drawn:
    """Image and raw ids of a scene, `uint8 [48, 96, 3], uint8 [48, 96]`: a pure function."""
    draws = Draws(seed, _SPLITS.index(split), number)
    kind = mode(seed, number, split)
    if kind == "broken":
        return _broken(draws)
    image, label = _DRAWN[kind](draws, seed)
    if split == "test":  # As Cityscapes' own: its labels are with those who judge.
        label[label != street.EGO] = street.BORDER
    return image, label


def _avenue(draws: Draws, seed: int) -> Drawn:
    """An avenue with the same houses and trees each time and hardly anybody there."""
    seen = Street(21 + draws.between(-0.7, 0.7), 48 + draws.between(-1.5, 1.5))
    things: list[_Standing] = [
        (below, side * 5.6, objects.tree) for below in (5, 8, 13) for side in (-1, 1)
    ]
    things += [(9, 4.1, objects.pole)]
    things += _some(draws, seen, objects.car, draws.chance(0.2), (1.5, 2.6), (6, 12))
    things += _some(draws, seen, objects.person, draws.chance(0.02), (4.2, 7), (8, 16))
    return _draw(draws, seen, things, tone=0.1, houses=Draws(seed, 0))


def _market(draws: Draws, seed: int) -> Drawn:
    """A narrow street with stalls, bicycles and many or few people."""
    del seed
    seen = Street(
        draws.between(16, 23), draws.between(32, 64), draws.between(1.6, 2.6), draws.between(5, 7)
    )
    people, parked = draws.count(1, draws.count(2, 10)), draws.count(1, 3) * draws.chance(0.5)
    pavement, walls = (seen.kerb + 0.3, seen.facade - 0.5), (seen.facade - 0.8, seen.facade)
    some = functools.partial(_some, draws, seen)
    things = some(objects.stall, draws.count(1, 4), walls, (7, 18))
    things += some(objects.person, people, (0, pavement[1]), (9, 21))
    things += some(objects.bicycle, parked, pavement, (11, 21))
    things += some(objects.sign, draws.chance(0.4), pavement, (9, 18))
    things += some(objects.pole, draws.count(0, 1), pavement, (8, 16))
    things += some(objects.tree, draws.count(0, 2), pavement, (6, 12))
    return _draw(draws, seen, things)


def _night(draws: Draws, seed: int) -> Drawn:
    """Lamps, lit windows, cars and buses in the dark."""
    del seed
    seen = Street(
        draws.between(18, 24), draws.between(36, 60), draws.between(3, 5), draws.between(7, 10)
    )
    people = draws.count(1, 2) * draws.chance(0.3)
    lane, pavement = (1, seen.kerb - 0.6), (seen.kerb + 0.4, seen.facade - 0.6)
    some = functools.partial(_some, draws, seen)
    things = some(objects.pole, draws.count(1, 3), (seen.kerb + 0.3, seen.kerb + 0.8), (7, 18))
    things += some(objects.car, draws.count(0, 3), lane, (8, 19))
    things += some(objects.bus, draws.chance(0.3), lane, (9, 18))
    things += some(objects.person, people, pavement, (10, 20))
    things += some(objects.tree, draws.count(1, 4), pavement, (6, 14))
    return _draw(draws, seen, things, dark=True)


def _crossing(draws: Draws, seed: int) -> Drawn:
    """A side street, zebra stripes, signs, and traffic of all kinds across."""
    del seed
    near = draws.between(6, 9)
    seen = Street(
        draws.between(17, 22), draws.between(34, 62), draws.between(3.5, 5.5),
        draws.between(8, 11), (near, near + draws.between(5, 9)),
    )  # fmt: skip
    pavement, anywhere = (seen.kerb + 0.3, seen.facade - 0.5), (0, seen.facade - 0.5)
    some = functools.partial(_some, draws, seen)
    things = some(objects.sign, draws.count(1, 3), (seen.kerb + 0.3, seen.kerb + 1), (9, 18))
    things += some(objects.pole, draws.count(0, 2), pavement, (8, 18))
    things += some(objects.tree, draws.count(0, 2), pavement, (6, 16))
    things += some(objects.crossing_car, draws.count(0, 2), anywhere, (7, 15))
    things += some(objects.crossing_bus, draws.chance(0.3), anywhere, (8, 13))
    things += some(objects.person, draws.count(0, 4), anywhere, (10, 21))
    things += some(objects.bicycle, draws.chance(0.4), anywhere, (11, 21))
    return _draw(draws, seen, things)


def _some(
    draws: Draws,
    seen: Street,
    thing: Thing,
    count: int,
    metres: tuple[float, float],
    below: tuple[float, float],
) -> list[_Standing]:
    """Things on either side, `metres` from the middle, `below` the horizon in pixels."""
    things: list[_Standing] = []
    for _ in range(count):
        aside = draws.among((-1, 1)) * draws.between(*metres)
        near = max(min(below[1], seen.in_view(aside)), below[0])
        things.append((draws.between(below[0], near), aside, thing))
    return things


def _draw(
    draws: Draws,
    seen: Street,
    things: list[_Standing],
    dark: bool = False,
    tone: float = 0.25,
    houses: Draws | None = None,
) -> Drawn:
    picture = Picture(dark)
    street.background(picture, seen, houses or draws)
    for below, metres, thing in sorted(things, key=lambda thing: thing[0]):
        thing(picture, seen.place(below, metres), draws)
    return street.finish(picture, draws, tone)


_DRAWN = {"avenue": _avenue, "market": _market, "night": _night, "crossing": _crossing}


def _broken(draws: Draws) -> Drawn:
    """Bands of a torn picture; nobody could label it."""
    bands = draws.field(8, 1, 3).repeat(street.HEIGHT // 8, axis=0)
    noise = draws.field(street.HEIGHT, street.WIDTH, 3)
    image = np.floor(255 * (0.6 * bands + 0.4 * noise)).astype(np.uint8)
    return image, np.full((street.HEIGHT, street.WIDTH), street.UNLABELLED, np.uint8)


def name(number: int, split: str) -> str:
    """Name of a scene, as of Cityscapes' frames: city, sequence (one for each split), frame."""
    return f"scenes_{_SPLITS.index(split):06d}_{number:06d}"


def arrays(seed: int = 0) -> dict[str, np.ndarray]:
    """The training and the validation scenes, and the names of what is in them."""
    drawn: dict[str, np.ndarray] = {"class_names": np.array(list(CLASSES.values()))}
    train_ids = cityscapes.table(tuple(CLASSES))
    for ours, split in (("train", "train"), ("test", "val")):
        pictures = [scene(seed, number, split) for number in range(SIZES[split])]
        images, labels = zip(*pictures, strict=True)
        drawn[f"{ours}_images"] = np.stack(images)
        drawn[f"{ours}_labels"] = train_ids[np.stack(labels)]
    drawn["train_ids"] = np.array([name(number, "train") for number in range(SIZES["train"])])
    return drawn


class _File(NamedTuple):
    top: str
    ending: str


_IMAGE, _LABEL = _File("leftImg8bit", "leftImg8bit"), _File("gtFine", "gtFine_labelIds")


def write(folder: str | pathlib.Path, seed: int = 0) -> pathlib.Path:
    """Writes all three splits as Cityscapes' folders leftImg8bit and gtFine, both or neither."""
    if not 0 <= seed < 2**32:
        raise UserError(f"seed is {seed}: it must be from 0 to 2**32 - 1")
    root = user_path(folder, "folder")
    try:
        root.mkdir(parents=True, exist_ok=True)
        for file in (_IMAGE, _LABEL):
            if (root / file.top).exists():
                raise UserError(
                    f"{root} has a {file.top} already: remove it, or name another folder"
                )
        temporary = pathlib.Path(tempfile.mkdtemp(prefix="scenes-", dir=root))
        try:
            for split, size in SIZES.items():
                _write_split(temporary, split, size, seed)
            for file in (_IMAGE, _LABEL):
                (temporary / file.top).rename(root / file.top)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise UserError(
            f"cannot write to {root} ({error.strerror or error}): name another folder"
        ) from error
    return root


def _write_split(root: pathlib.Path, split: str, size: int, seed: int) -> None:
    for file in (_IMAGE, _LABEL):
        (root / file.top / split / "scenes").mkdir(parents=True)
    for number in range(size):
        for file, pixels in zip((_IMAGE, _LABEL), scene(seed, number, split), strict=True):
            path = root / file.top / split / "scenes" / f"{name(number, split)}_{file.ending}.png"
            Image.fromarray(pixels).save(path)


def main() -> int:
    """Command line; returns the exit code."""
    forgive_output()
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", help="where leftImg8bit and gtFine are to lie")
    parser.add_argument("--seed", type=int, default=0, help="another seed, another set")
    arguments = parser.parse_args()
    try:
        folder = write(arguments.folder, arguments.seed)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{SIZES['train']} training and {SIZES['val']} validation scenes are in {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
