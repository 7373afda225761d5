"""Draws a street in perspective, from far to near: its image, and the raw id of each pixel.

Pixels are the same on every platform: random numbers are only those of `random_sample`, whose
stream is frozen, and arithmetic is + - * / of arrays, without sums, powers and the C library's
functions.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np

HEIGHT, WIDTH = 48, 96
UNLABELLED, EGO, BORDER = 0, 1, 2
ROAD, SIDEWALK, BUILDING, POLE, SIGN, VEGETATION = 7, 8, 11, 17, 20, 21
SKY, PERSON, CAR, BUS, BICYCLE = 23, 24, 26, 28, 33

_WALLS = (
    (150, 120, 96), (172, 160, 140), (132, 92, 76), (118, 122, 128), (190, 176, 132),
    (96, 104, 112), (160, 100, 84), (184, 186, 184),
)  # fmt: skip
GLASS, LAMP = (62, 76, 88), (250, 205, 120)

_CAMERA = 1.9  # metres above the road
_FOCAL = 48.0  # pixels: metres ahead = _FOCAL / (pixels per metre)
_GRAIN = {VEGETATION: 58.0, BUILDING: 20.0, ROAD: 12.0, SIDEWALK: 18.0, SKY: 4.0}
_ROWS, _COLUMNS = (grid.astype(float) for grid in np.mgrid[:HEIGHT, :WIDTH])

Colour = Sequence[float] | np.ndarray
Where = np.ndarray | slice | tuple[slice, ...]
"""Pixels: a mask bool `[H, W]`, or slices."""
T = TypeVar("T")


class Draws:
    """Random numbers of a key, the same on every platform."""

    def __init__(self, *key: int):
        self._random = np.random.RandomState(key)

    def field(self, *shape: int) -> np.ndarray:
        """Numbers from 0 to 1, of any shape."""
        return self._random.random_sample(shape)

    def between(self, low: float, high: float) -> float:
        """A number from `low` to `high`."""
        # Not RandomState.uniform: some compilers fuse its product and sum.
        return low + (high - low) * self._random.random_sample()

    def count(self, low: int, high: int) -> int:
        """An integer from `low` to `high`, both included."""
        return low + int((high - low + 1) * self._random.random_sample())

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self._random.random_sample() < probability

    def among(self, choices: Sequence[T]) -> T:
        """One of `choices`."""
        return choices[self.count(0, len(choices) - 1)]


class Place(NamedTuple):
    """Where something stands."""

    row: float
    column: float
    scale: float
    """Pixels per metre."""


class Street(NamedTuple):
    """A straight street as the camera sees it."""

    horizon: float = 21.0
    """Row of the vanishing point."""
    vanishing: float = 48.0
    """Column of the vanishing point."""
    kerb: float = 3.5
    """Metres from the middle of the street to the pavement."""
    facade: float = 8.0
    """Metres from there to the houses."""
    side: tuple[float, float] = (0.0, 0.0)
    """Metres ahead between which a side street crosses."""

    def place(self, below: float, metres: float) -> Place:
        """`below` pixels under the horizon, `metres` right of the middle."""
        scale = below / _CAMERA
        return Place(self.horizon + below, self.vanishing + metres * scale, scale)

    def in_view(self, metres: float) -> float:
        """How far `below` the horizon what is `metres` right of the middle can still be seen."""
        room = WIDTH - self.vanishing if metres > 0 else self.vanishing
        return _CAMERA * room / max(abs(metres), 0.1)


class Picture:
    """Image and label, painted over from far to near."""

    def __init__(self, dark: bool):
        self.image = np.zeros((HEIGHT, WIDTH, 3))
        self.glow = np.zeros((HEIGHT, WIDTH, 1))
        self.label = np.zeros((HEIGHT, WIDTH), np.uint8)
        self.dark = dark

    def paint(self, where: Where, colour: Colour, raw_id: int, glow: float = 0.0) -> None:
        """Covers what is at `where`; `glow` is the share of light that comes from there."""
        self.image[where] = colour
        self.label[where] = raw_id
        self.glow[where] = glow

    def box(
        self, left: float, top: float, right: float, bottom: float, colour: Colour, raw_id: int,
        glow: float = 0.0,
    ) -> None:  # fmt: skip
        """A rectangle between edges, at least a pixel wide and high."""
        x, y, x_end, y_end = (math.floor(edge + 0.5) for edge in (left, top, right, bottom))
        x_end, y_end = max(x_end, x + 1), max(y_end, y + 1)
        where = np.s_[max(y, 0) : max(y_end, 0), max(x, 0) : max(x_end, 0)]
        self.paint(where, colour, raw_id, glow)

    def ellipse(
        self, row: float, column: float, high: float, wide: float, colour: Colour, raw_id: int,
        glow: float = 0.0,
    ) -> None:  # fmt: skip
        """An ellipse, by its middle and half axes."""
        y, x = (_ROWS + 0.5 - row) / high, (_COLUMNS + 0.5 - column) / wide
        self.paint(y * y + x * x <= 1, colour, raw_id, glow)


def _fraction(numbers: np.ndarray) -> np.ndarray:
    return numbers - np.floor(numbers)


def background(picture: Picture, street: Street, draws: Draws) -> None:
    """Sky, ground, and houses on both sides."""
    grey = draws.between(-12, 12)
    fade = (_ROWS / HEIGHT)[..., None]
    sky = np.array([150.0, 178.0, 206.0]) + grey + fade * np.array([90.0, 60.0, 30.0])
    picture.paint(np.s_[:], sky, SKY)
    _ground(picture, street)
    _end(picture, street, draws)
    if street.side[1]:
        _corner(picture, street, draws)
    _houses(picture, street, draws)


def _ground(picture: Picture, street: Street) -> None:
    below = _ROWS + 0.5 - street.horizon
    scale = np.maximum(below, 0.1) / _CAMERA
    metres = (_COLUMNS + 0.5 - street.vanishing) / scale
    ahead = _FOCAL / scale
    side = (ahead > street.side[0]) & (ahead < street.side[1])
    across = np.abs(metres)
    road = (across < street.kerb) | side
    picture.paint(below > 0, (138, 134, 130), SIDEWALK)
    picture.paint((below > 0) & road, (92, 92, 96), ROAD)
    line = (across < 0.15) & (_fraction(ahead / 4) < 0.5) & ~side
    picture.paint((below > 4) & line, (190, 190, 186), ROAD)
    if street.side[1]:  # Zebra stripes before the side street.
        zebra = (ahead < street.side[0]) & (ahead > street.side[0] - 1.6)
        stripes = zebra & (across < street.kerb) & (_fraction(metres) < 0.5)
        picture.paint((below > 0) & stripes, (205, 205, 200), ROAD)


def _end(picture: Picture, street: Street, draws: Draws) -> None:
    """Houses or trees that close the street far away."""
    half, top = street.facade * 0.9, street.horizon - draws.between(4, 7)
    colour, raw = draws.among((((132, 138, 146), BUILDING), ((96, 118, 92), VEGETATION)))
    picture.box(
        street.vanishing - half, top, street.vanishing + half, street.horizon + 1, colour, raw
    )


def _corner(picture: Picture, street: Street, draws: Draws) -> None:
    """Houses on the far side of the side street, seen from the front."""
    scale = _FOCAL / street.side[1]
    base, top = street.horizon + _CAMERA * scale, street.horizon - draws.between(2, 5) * scale
    for side in (-1, 1):
        near = street.vanishing + side * street.facade * scale
        far = near + side * WIDTH
        picture.box(min(near, far), top, max(near, far), base, draws.among(_WALLS), BUILDING)
        for pane in range(8):
            left = near + side * (1.5 + 3 * pane) * scale
            picture.box(
                left, base - 4.2 * scale, left + 1.2 * scale, base - 3 * scale, GLASS, BUILDING
            )


def _houses(picture: Picture, street: Street, draws: Draws) -> None:
    """Two rows of houses, each with its height, colour and windows."""
    heights, tints = 4.5 + 5.5 * draws.field(2, 8), draws.field(2, 8)
    lit = draws.field(2, 40, 8)
    column = _COLUMNS[0] + 0.5 - street.vanishing
    scale = np.maximum(np.abs(column), 0.5) / street.facade
    ahead = _FOCAL / scale
    right = (column > 0).astype(int)
    number = np.minimum(ahead / 9, 7).astype(int)
    gap = (ahead > street.side[0]) & (ahead < street.side[1])
    height = np.where(gap, 0.0, heights[right, number])
    walls = np.array(_WALLS, float)[(tints[right, number] * len(_WALLS)).astype(int)]
    level = (street.horizon + _CAMERA * scale - _ROWS - 0.5) / scale
    walls = np.broadcast_to(walls, picture.image.shape)
    house = (level > 0) & (level < height) & (ahead < 90)
    picture.paint(house, walls[house], BUILDING)
    pane = (_fraction(level / 2.6) > 0.35) & (_fraction(level / 2.6) < 0.8) & (level > 2.2)
    pane &= (_fraction(ahead / 1.8) > 0.3) & (scale > 1.2)
    which = (right, np.minimum(ahead / 1.8, 39).astype(int), np.clip(level / 2.6, 0, 7).astype(int))
    bright = lit[which] < 0.3 if picture.dark else np.zeros((HEIGHT, WIDTH), bool)
    picture.paint(house & pane, GLASS, BUILDING)
    picture.paint(house & pane & bright, LAMP, BUILDING, 0.75)


def finish(picture: Picture, draws: Draws, tone: float) -> tuple[np.ndarray, np.ndarray]:
    """Grain, tone of light, night, noise; the camera's car and the border -> image, label."""
    image, label = picture.image, picture.label
    label[-2:], image[-2:], picture.glow[-2:] = EGO, (34, 36, 40), 0
    label[:, :1] = BORDER
    amplitude = np.full(256, 10.0)
    amplitude[list(_GRAIN)] = list(_GRAIN.values())
    image = image + amplitude[label][..., None] * (draws.field(HEIGHT, WIDTH, 1) - 0.5)
    gain = 1 + tone * (draws.field(3) - 0.5)
    image = image * gain + 60 * tone * (draws.field() - 0.5)
    if picture.dark:
        dim = np.array([0.36, 0.38, 0.50]) * draws.between(0.7, 1.2)
        image = image * (dim + (1 - dim) * picture.glow)
    image = image + 12 * (draws.field(HEIGHT, WIDTH, 3) - 0.5)
    image[:, :1] = 0
    return np.clip(np.floor(image + 0.5), 0, 255).astype(np.uint8), label
