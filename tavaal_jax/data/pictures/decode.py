"""Decoding of people's photos for a network: EXIF turn, white behind alpha, 8 bits, resized."""

import contextlib
import hashlib
import io
import pathlib
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO, NamedTuple, TypeVar

import numpy as np
from PIL import ExifTags, Image, ImageFile

from tavaal_jax.data.pictures.kinds import (
    HEAD,
    JPEG,
    PNG,
    Corrupt,
    TooLarge,
    Unsupported,
    reader_of,
)
from tavaal_jax.data.pictures.values import Overflow, converted, eight_bits

__all__ = ["Corrupt", "Overflow", "TooLarge", "Unsupported"]

File = pathlib.Path | BinaryIO
_T = TypeVar("_T")

RESIZE = ("stretch", "crop", "pad")
"""Squeezed out of shape; the square in its middle; in shape on black."""

GONE = "it is no longer there"
CHANGED = "it has changed since it was listed"
"""Reasons of a photo that cannot be decoded although no file is damaged."""

_SHOWN = frozenset((b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"eXIf", b"IEND"))
"""Chunks of a PNG that make the picture; all others are remarks."""
_TORN = "cut short: copy it again"
_FILLINGS = (b"\xff\xd9", b"\x55" * 2048 + b"\xff\xd9")
"""Two ends for a JPEG that has none: where nothing is missing, both give the same picture."""
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class Header(NamedTuple):
    """Size and mode of a picture in a file; sides are those after the turn that EXIF asks for."""

    width: int
    height: int
    mode: str
    """Pillow's mode."""


def content_id(file: BinaryIO) -> str:
    """The id of an image, a digest of its file's bytes: "i" and 16 hex digits."""
    # The letter keeps spreadsheets from reading 12345e10 as a number.
    digest = hashlib.file_digest(file, "sha256")  # type: ignore[arg-type]
    return "i" + digest.hexdigest()[:16]


def is_picture(file: BinaryIO) -> bool:
    """Whether a file begins as a picture does, also one of a format that is not read."""
    try:
        reader_of(file.read(HEAD))
    except Unsupported:
        return True
    except Corrupt:
        return False
    return True


def header(file: File) -> Header:
    """Size and mode of a picture, without decoding it. Raises Corrupt."""

    def measured(picture: ImageFile.ImageFile) -> Header:
        sides = picture.size if _orientation(picture) < 5 else picture.size[::-1]
        return Header(sides[0], sides[1], picture.mode)

    with _corrupt_errors():
        return _with_picture(file, measured)


def decode(
    file: File, size: int, channels: int, resize: str = "stretch", low_high: Sequence[float] = ()
) -> np.ndarray:
    """Pixels of a picture in a file, uint8 `[size, size, channels]`. Raises Corrupt.

    `channels` is 3, or 1 for grey. The picture is decoded in full, turned as EXIF asks, put on
    white where transparent, and resized bilinearly with antialiasing; an animation or a file of
    several pages gives the first. In a picture of 16 bits or floats the values `low_high` become 0
    and 255; the default is 0 and 65535, or 0.0 and 1.0.
    """
    return decode_checked(file, size, channels, resize, low_high).values


class Pixels(NamedTuple):
    """A decoded picture."""

    values: np.ndarray
    """uint8 `[size, size, channels]`."""
    overflow: Overflow | None
    """The values of one of 16 bits or floats that comes out mostly white or black."""


def decode_checked(
    file: File, size: int, channels: int, resize: str = "stretch", low_high: Sequence[float] = ()
) -> Pixels:
    """What `decode` gives, and whether it shows little of the picture."""
    if resize not in RESIZE:
        raise ValueError(f"resize {resize!r} is none of {', '.join(RESIZE)}")
    picture, overflow = _decoded(file, low_high, None)
    with _corrupt_errors():
        fitted = _fitted(converted(picture, "RGB" if channels == 3 else "L"), size, resize)
        return Pixels(np.asarray(fitted).reshape(size, size, channels), overflow)


def preview(
    file: File, pixels: int, low_high: Sequence[float] = (), max_pixels: int | None = None
) -> bytes:
    """A JPEG without metadata of a picture in its own shape, as `decode` decodes it.

    Its longer side has at most `pixels`. Raises Corrupt, and TooLarge above `max_pixels`.
    """
    picture = _decoded(file, low_high, max_pixels).picture
    with _corrupt_errors():
        longer = max(picture.size)
        if longer > pixels:
            picture = _resized(picture, _shrunk(picture.size, pixels))
        out = io.BytesIO()
        Image.fromarray(np.asarray(picture)).save(out, "JPEG", quality=85)
        return out.getvalue()


# Reading


@contextlib.contextmanager
def _corrupt_errors() -> Iterator[None]:
    """Turns any exception that damaged bytes raise into Corrupt."""
    try:
        yield
    except Corrupt:
        raise
    except Image.DecompressionBombError as error:  # Of some formats that Pillow looks at itself.
        raise TooLarge(_reason(error)) from error
    except MemoryError as error:
        raise Corrupt("too little memory to decode it", lasting=False) from error
    except OSError as error:
        if error.errno is not None:
            raise Corrupt(error.strerror or str(error), lasting=False) from error
        raise Corrupt(_reason(error)) from error
    except Exception as error:
        raise Corrupt(_reason(error)) from error


def _reason(error: BaseException) -> str:
    """The first line of Pillow's message; some of its decoders only give a number."""
    line = (str(error).splitlines() or [""])[0][:200]
    if "truncated" in line.lower():
        return _TORN
    return line if line.strip("-0123456789. ") else f"damaged ({line or type(error).__name__})"


def _with_picture(file: File, work: Callable[[ImageFile.ImageFile], _T]) -> _T:
    """What `work` makes of a picture; of a PNG whose remarks are at fault, without them."""
    if isinstance(file, pathlib.Path):
        with file.open("rb") as opened:
            return _with_picture(opened, work)
    file.seek(0)
    head = file.read(HEAD)
    reader = reader_of(head)
    file.seek(0)
    try:
        return work(reader(file))
    except Exception as error:
        is_other = isinstance(error, Corrupt | MemoryError) or getattr(error, "errno", None)
        if reader is not PNG or is_other:
            raise
        file.seek(0)
        whole = file.read()
        plain = _without_remarks(whole)
        if len(plain) == len(whole):
            raise
        return work(reader(io.BytesIO(plain)))


def _without_remarks(png: bytes) -> bytes:
    """A PNG's chunks that make the picture."""
    parts, place = [png[:8]], 8
    while place + 8 <= len(png):
        length, kind = struct.unpack_from(">I4s", png, place)
        if kind in _SHOWN:
            parts.append(png[place : place + 12 + length])
        place += 12 + length
    return b"".join(parts)


def _orientation(picture: Image.Image) -> int:
    """EXIF's orientation, 1 to 8. Pillow turns a TIFF itself; XMP is ignored, as in browsers."""
    if picture.format == "TIFF" or "exif" not in picture.info:
        return 1
    # A picture whose metadata are damaged is whole all the same.
    with contextlib.suppress(Exception):
        exif = Image.Exif()
        exif.load(picture.info["exif"])
        found: int = exif.get(ExifTags.Base.Orientation, 1)
        return found if found in range(1, 9) else 1
    return 1


class _Decoded(NamedTuple):
    """A picture in mode L or RGB, decoded and turned."""

    picture: Image.Image
    overflow: Overflow | None


def _decoded(file: File, low_high: Sequence[float], max_pixels: int | None) -> _Decoded:
    """The decoded picture; of a JPEG without its end mark, too, if nothing else is missing."""
    if low_high and low_high[0] == low_high[1]:
        raise ValueError(f"low_high needs two different values, not {tuple(low_high)}")

    def decoded(picture: ImageFile.ImageFile) -> _Decoded:
        if max_pixels is not None and picture.width * picture.height > max_pixels:
            raise TooLarge.from_size(picture.width, picture.height, max_pixels)
        picture.load()
        turn = _TURNS.get(_orientation(picture))
        whole, overflow = eight_bits(picture, low_high)
        return _Decoded(whole if turn is None else whole.transpose(turn), overflow)

    with _corrupt_errors():
        try:
            return _with_picture(file, decoded)
        except OSError as error:
            data = _start_of_jpeg(file) if _reason(error) == _TORN else b""
            if not data:
                raise
            first, second = (decoded(JPEG(io.BytesIO(data + end))) for end in _FILLINGS)
            if first.picture.tobytes() != second.picture.tobytes():
                raise
            return first


def _start_of_jpeg(file: File) -> bytes:
    """Content of a JPEG without a half of its end mark; empty for another file."""
    if isinstance(file, pathlib.Path):
        data = file.read_bytes()
    else:
        file.seek(0)
        data = file.read()
    return data.removesuffix(b"\xff") if data.startswith(b"\xff\xd8\xff") else b""


# Sizes


def _fitted(picture: Image.Image, size: int, resize: str) -> Image.Image:
    """The picture as a square of side `size`; `resize` as in RESIZE."""
    if resize == "stretch":
        return _resized(picture, (size, size))
    if resize == "crop":
        shorter = min(picture.size)
        left, top = ((side - shorter) // 2 for side in picture.size)
        return _resized(picture, (size, size), (left, top, left + shorter, top + shorter))
    small = _resized(picture, _shrunk(picture.size, size))
    square = Image.new(picture.mode, (size, size))
    square.paste(small, ((size - small.width) // 2, (size - small.height) // 2))
    return square


def _shrunk(sides: tuple[int, int], longest: int) -> tuple[int, int]:
    """Width and height in the same shape, the longer one `longest`."""
    width, height = (max(1, round(side * longest / max(sides))) for side in sides)
    return width, height


def _resized(
    picture: Image.Image,
    sides: tuple[int, int],
    box: tuple[float, float, float, float] | None = None,
) -> Image.Image:
    # Pillow's filters grow with the scale, so that shrinking averages.
    return picture.resize(sides, Image.Resampling.BILINEAR, box)
