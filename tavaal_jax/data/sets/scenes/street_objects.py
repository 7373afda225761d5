"""Objects in a street, each drawn at its place; lengths are in metres."""

from tavaal_jax.data.sets.scenes import street
from tavaal_jax.data.sets.scenes.street import Colour, Draws, Picture, Place

PAINTS = (
    (178, 40, 38), (38, 62, 150), (205, 200, 195), (42, 44, 50), (212, 168, 36), (40, 110, 70),
    (128, 130, 136), (120, 52, 96), (200, 100, 40), (70, 140, 160),
)  # fmt: skip
"""Colours of cars, buses, coats, bicycles and awnings alike: they do not tell them apart."""
_TROUSERS = ((40, 44, 60), (70, 64, 58), (30, 30, 32))
_RIMS = ((230, 40, 30), (30, 70, 170), (225, 185, 40))
_BARK, _SKIN, _WOOD = (82, 66, 52), (198, 156, 128), (104, 84, 64)
_TYRE, _SPOKES, _IRON, _SHADOW = (26, 26, 28), (118, 116, 114), (92, 94, 96), (48, 48, 52)
_RED, _WHITE = (230, 40, 30), (235, 230, 215)


class _Easel:
    """Paints one object, in metres right of its place and above the ground."""

    def __init__(self, picture: Picture, place: Place, raw_id: int):
        self._picture, self._place, self._raw_id = picture, place, raw_id

    def box(
        self, left: float, right: float, low: float, high: float, colour: Colour, glow: float = 0.0
    ) -> None:
        row, column, scale = self._place
        self._picture.box(
            column + left * scale, row - high * scale, column + right * scale, row - low * scale,
            colour, self._raw_id, glow,
        )  # fmt: skip

    def ellipse(self, aside: float, up: float, wide: float, high: float, colour: Colour) -> None:
        row, column, scale = self._place
        self._picture.ellipse(
            row - up * scale, column + aside * scale, high * scale, wide * scale, colour,
            self._raw_id,
        )  # fmt: skip


def tree(picture: Picture, place: Place, draws: Draws) -> None:
    """A trunk and its crown."""
    easel = _Easel(picture, place, street.VEGETATION)
    easel.box(-0.2, 0.2, 0, 2.6, _BARK)
    wide, green = draws.between(1.1, 1.6), draws.between(-16, 16)
    easel.ellipse(0, 3.6, wide, 1.4, (74 + green, 98 + green, 52 + green))


def person(picture: Picture, place: Place, draws: Draws) -> None:
    """Legs, coat and head."""
    easel = _Easel(picture, place, street.PERSON)
    easel.box(-0.25, 0.25, 0, 0.8, draws.among(_TROUSERS))
    easel.box(-0.36, 0.36, 0.7, 1.5, draws.among(PAINTS))
    easel.box(-0.17, 0.17, 1.5, 1.8, _SKIN)


def car(picture: Picture, place: Place, draws: Draws) -> None:
    """A car from behind."""
    easel, paint = _Easel(picture, place, street.CAR), draws.among(PAINTS)
    _shadow(picture, place, 0.95)
    easel.box(-0.7, 0.7, 0.8, 1.45, paint)
    easel.box(-0.6, 0.6, 0.85, 1.3, street.GLASS)
    easel.box(-0.95, 0.95, 0.2, 0.9, paint)
    _wheels(easel, 0.65, 0.3)
    _lights(easel, 0.75, 0.65)


def crossing_car(picture: Picture, place: Place, draws: Draws) -> None:
    """A car from the side."""
    easel, paint = _Easel(picture, place, street.CAR), draws.among(PAINTS)
    _shadow(picture, place, 2)
    easel.box(-1.1, 1.1, 0.8, 1.45, paint)
    easel.box(-0.95, 0.95, 0.85, 1.3, street.GLASS)
    easel.box(-2, 2, 0.2, 0.9, paint)
    _wheels(easel, 1.4, 0.3)


def bus(picture: Picture, place: Place, draws: Draws) -> None:
    """A bus from behind."""
    easel = _Easel(picture, place, street.BUS)
    _shadow(picture, place, 1.3)
    easel.box(-1.3, 1.3, 0.3, 3.1, draws.among(PAINTS))
    _panes(easel, -1.0, 2.0, 1, picture.dark)
    _wheels(easel, 0.85, 0.42)
    _lights(easel, 1.05, 0.7)


def crossing_bus(picture: Picture, place: Place, draws: Draws) -> None:
    """A bus from the side."""
    easel = _Easel(picture, place, street.BUS)
    _shadow(picture, place, 4)
    easel.box(-4, 4, 0.3, 3.1, draws.among(PAINTS))
    _panes(easel, -3.8, 1.2, 5, picture.dark)
    _wheels(easel, 2.6, 0.42)


def bicycle(picture: Picture, place: Place, draws: Draws) -> None:
    """A bicycle from the side."""
    easel, paint = _Easel(picture, place, street.BICYCLE), draws.among(PAINTS)
    for aside in (-0.65, 0.65):
        easel.ellipse(aside, 0.5, 0.5, 0.5, _TYRE)
        easel.ellipse(aside, 0.5, 0.33, 0.33, _SPOKES)
    easel.box(-0.45, 0.5, 0.5, 0.95, paint)
    easel.box(-0.55, -0.2, 1.05, 1.2, _TYRE)
    easel.box(0.3, 0.7, 1.05, 1.2, _TYRE)


def pole(picture: Picture, place: Place, draws: Draws) -> None:
    """A street lamp."""
    easel, lamp = _Easel(picture, place, street.POLE), draws.among((-1.2, 1.2))
    easel.box(-0.28, 0.28, 0, 5, _IRON)
    easel.box(min(0, lamp), max(0, lamp), 4.8, 5.1, _IRON)
    if picture.dark:
        easel.box(lamp - 0.3, lamp + 0.3, 4.6, 5, street.LAMP, 0.95)


def sign(picture: Picture, place: Place, draws: Draws) -> None:
    """A traffic sign on its pole, round or square."""
    _Easel(picture, place, street.POLE).box(-0.16, 0.16, 0, 2.6, _IRON)
    easel, rim = _Easel(picture, place, street.SIGN), draws.among(_RIMS)
    if draws.chance(0.6):
        easel.ellipse(0, 2.6, 0.8, 0.8, rim)
        easel.ellipse(0, 2.6, 0.45, 0.45, _WHITE)
    else:
        easel.box(-0.75, 0.75, 1.85, 3.35, rim)
        easel.box(-0.42, 0.42, 2.18, 3.02, _WHITE)


def stall(picture: Picture, place: Place, draws: Draws) -> None:
    """A market stall under a striped awning, part of the houses behind it."""
    easel, paint = _Easel(picture, place, street.BUILDING), draws.among(PAINTS)
    easel.box(-1.5, 1.5, 0, 1, _WOOD)
    for number in range(5):
        left = 0.6 * number - 1.5
        easel.box(left, left + 0.6, 1.9, 2.6, _WHITE if number % 2 else paint)


def _shadow(picture: Picture, place: Place, half: float) -> None:
    _Easel(picture, place, street.ROAD).box(-half, half, -0.1, 0.1, _SHADOW)


def _wheels(easel: _Easel, apart: float, radius: float) -> None:
    for aside in (-apart, apart):
        easel.box(aside - radius, aside + radius, 0, 1.6 * radius, _TYRE)


def _lights(easel: _Easel, apart: float, up: float) -> None:
    for aside in (-apart, apart):
        easel.box(aside - 0.14, aside + 0.14, up - 0.14, up + 0.14, _RED, 0.8)


def _panes(easel: _Easel, left: float, wide: float, count: int, dark: bool) -> None:
    colour, glow = (street.LAMP, 0.6) if dark else (street.GLASS, 0.0)
    for number in range(count):
        start = left + number * 1.28 * wide
        easel.box(start, start + wide, 1.6, 2.6, colour, glow)
