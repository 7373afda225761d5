"""Values of a decoded picture as 8 bits: white behind alpha, 16 bits and floats scaled."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, TiffImagePlugin

from tavaal_jax.data.pictures.kinds import Unsupported

_DEEP = ("I;16", "I;16B", "I;16L", "I;16N", "I", "F")
_COLOUR = ("P", "RGB", "RGBX", "CMYK", "YCbCr")
_BAND = 2**20  # values that are scaled at a time
_WHITE = 255
_MOST_16_BITS = 2**16 - 1
_DARK = 1 / 8  # of the range


class Overflow(NamedTuple):
    """Range of a picture of 16 bits or floats that comes out mostly white or black."""

    kind: str
    """16 bits, or floats."""
    lowest: float
    highest: float


def overflow_lines(found: Sequence[Overflow], key: str) -> list[str]:
    """A line for each kind of such pictures, with what the config's `key` should be."""
    lines = []
    for kind in sorted({one.kind for one in found}):
        of_kind = [one for one in found if one.kind == kind]
        lowest, highest = min(o.lowest for o in of_kind), max(o.highest for o in of_kind)
        low, high = _limits(kind)
        low_high = f"({_rounded_up(-lowest) * -(lowest < 0):g}, {_rounded_up(highest):g})"
        lines.append(
            f"{len(of_kind):,} pictures of {kind} have values from {lowest:g} to {highest:g} and"
            f" come out mostly white or black, as {low:g} to {high:g} is shown: give"
            f' --config.{key}="{low_high}"'
        )
    return lines


def _rounded_up(value: float) -> float:
    """1, or the highest number of as many bits."""
    return 1 if value <= 1 else 2.0 ** math.ceil(math.log2(value + 1)) - 1


def _limits(kind: str) -> tuple[int, int]:
    return (0, 1) if kind == "floats" else (0, _MOST_16_BITS)


def eight_bits(
    picture: Image.Image, low_high: Sequence[float]
) -> tuple[Image.Image, Overflow | None]:
    """The picture in mode L or RGB, transparent parts on white.

    `low_high` are the values of 16 bits or floats that become black and white; where they are
    empty, and most values lie outside of the default, these come with it.
    """
    if picture.mode not in _DEEP:
        return _on_white(picture), None
    values = np.asarray(picture)
    kind = "floats" if values.dtype.kind == "f" else "16 bits"
    scaled = _scaled(picture, values, low_high or _limits(kind))
    return Image.fromarray(scaled), None if low_high else _overflow(values, kind)


def _overflow(values: np.ndarray, kind: str) -> Overflow | None:
    """The range of values of which most are outside the limits, or 16 bits that are all dark."""
    low, high = _limits(kind)
    finite = values[np.isfinite(values)] if kind == "floats" else values
    if not finite.size or finite.min() == finite.max():
        return None  # A blank picture may be meant.
    is_dark = kind != "floats" and finite.max() < _DARK * high
    if not is_dark and np.mean((finite < low) | (finite > high)) <= 0.5:
        return None
    return Overflow(kind, float(finite.min()), float(finite.max()))


def _on_white(picture: Image.Image) -> Image.Image:
    if picture.mode == "La":
        picture = picture.convert("LA")
    if picture.has_transparency_data:
        # Pillow's own RGBA -> RGB would show what is hidden.
        picture = picture.convert("RGBA")
        white = Image.new("RGB", picture.size, "white")
        white.paste(picture, mask=picture.getchannel("A"))
        return white
    if picture.mode in ("1", "L"):
        return converted(picture, "L")
    if picture.mode in _COLOUR:
        return converted(picture, "RGB")
    raise Unsupported(f"colours of mode {picture.mode}: convert to JPEG")


def converted(picture: Image.Image, mode: str) -> Image.Image:
    """The picture in a mode of Pillow."""
    # Pillow would copy what has that mode already.
    return picture if picture.mode == mode else picture.convert(mode)


def _scaled(picture: Image.Image, values: np.ndarray, low_high: Sequence[float]) -> np.ndarray:
    """Grey of 16 bits or floats as uint8 `[H, W]`; Pillow would clip at 255, mostly to white."""
    low, high = low_high
    scaled = np.empty(values.shape, np.uint8)
    height = max(1, _BAND // max(1, values.shape[1]))
    for top in range(0, len(values), height):
        band = (values[top : top + height].astype(np.float64) - low) * (_WHITE / (high - low))
        np.clip(np.nan_to_num(band, copy=False, nan=0), 0, _WHITE, out=band)
        scaled[top : top + height] = np.rint(band, out=band)
    if (
        isinstance(picture, TiffImagePlugin.TiffImageFile)
        and picture.tag_v2.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0
    ):
        np.subtract(_WHITE, scaled, out=scaled)  # WhiteIsZero: Pillow heeds it for 8 bits only.
    if isinstance(picture.info.get("transparency"), int):
        scaled[values == picture.info["transparency"]] = _WHITE
    return scaled
