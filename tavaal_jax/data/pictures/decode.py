"""People's photographs as a network sees them: turned, on white, 8 bits, resized."""

import contextlib
import hashlib
import io
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from PIL import (
    BmpImagePlugin,
    ExifTags,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

File = pathlib.Path | BinaryIO

RESIZE = ("stretch", "crop", "pad")
"""All of it, out of shape; the square in its middle; all of it in shape, on black."""

GONE = "it is no longer there"
CHANGED = "it has changed since it was looked at"
"""Reasons why there is nothing to decode, beside what is wrong with a file."""

_JPEG, _PNG, _PPM = (
    JpegImagePlugin.JpegImageFile, PngImagePlugin.PngImageFile, PpmImagePlugin.PpmImageFile,
)  # fmt: skip
_GIF, _TIFF = GifImagePlugin.GifImageFile, TiffImagePlugin.TiffImageFile
# Image.open would warn of, or refuse, sizes that `max_pixels` allows, by a limit that is the whole
# process's; and it would make a stereo picture of some telephones' JPEG.
_READERS: dict[bytes, Callable[[Any], ImageFile.ImageFile]] = {
    b"\xff\xd8\xff": _JPEG,
    b"\x89PNG\r\n\x1a\n": _PNG,
    b"GIF87a": _GIF, b"GIF89a": _GIF,
    b"BM": BmpImagePlugin.BmpImageFile,
    b"II*\0": _TIFF, b"MM\0*": _TIFF, b"II+\0": _TIFF, b"MM\0+": _TIFF,
    **{b"P%d" % kind: _PPM for kind in range(1, 7)}, b"Pf": _PPM,
}  # fmt: skip
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_DEEP = ("I;16", "I;16B", "I;16L", "I;16N", "I", "F")
_COLOUR = ("P", "RGB", "RGBX", "CMYK", "YCbCr")
_BAND = 2**20  # values that are scaled at a time


class Corrupt(Exception):
    """No picture can be made of a file; the text is the reason."""

    def __init__(self, reason: str, lasting: bool = True):
        super().__init__(reason)
        self.lasting = lasting
        """Whether it is the bytes' fault, not that of a disk or of too little memory."""


class Unsupported(Corrupt):
    """The file may be whole, but is of a format that is not read."""


class TooLarge(Corrupt):
    """It has more pixels than are to be decoded."""

    @classmethod
    def of(cls, width: int, height: int, max_pixels: int) -> "TooLarge":
        """With the reason."""
        return cls(f"{width}x{height} pixels, more than max_pixels ({max_pixels})")


class Header(NamedTuple):
    """What the head of a file says, sides as they are after the turn that EXIF asks for."""

    width: int
    height: int
    mode: str
    """Pillow's."""


def content_id(file: BinaryIO) -> str:
    """What an image is known by, from the bytes of its file: "i" and 16 hex digits."""
    # The letter keeps spreadsheets from reading 12345e10 as a number.
    digest = hashlib.file_digest(file, "sha256")  # type: ignore[arg-type]
    return "i" + digest.hexdigest()[:16]


def header(file: File) -> Header:
    """Size and mode, without decoding. Raises Corrupt."""
    with _faults(), _opened(file) as picture:
        sides = picture.size if _orientation(picture) < 5 else picture.size[::-1]
        return Header(sides[0], sides[1], picture.mode)


def decode(
    file: File, size: int, channels: int, resize: str = "stretch", low_high: Sequence[float] = ()
) -> np.ndarray:
    """The picture as uint8 `[size, size, channels]`, channels 3 or 1: grey. Raises Corrupt.

    Decoded in full, turned as EXIF asks, transparent parts on white; bilinear, antialiased. Of an
    animation or of several pages the first. `low_high` are the values that become 0 and 255 where
    it has 16 bits or floats: without it 0 and 65535, or 0.0 and 1.0.
    """
    if resize not in RESIZE:
        raise ValueError(f"resize {resize!r} is none of {', '.join(RESIZE)}")
    picture = _picture(file, low_high, None)
    with _faults():
        fitted = _fitted(_converted(picture, "RGB" if channels == 3 else "L"), size, resize)
        return np.asarray(fitted).reshape(size, size, channels)


def preview(
    file: File, pixels: int, low_high: Sequence[float] = (), max_pixels: int | None = None
) -> bytes:
    """A JPEG in the picture's shape, its longer side at most `pixels`, else as `decode` sees it.

    It has none of the file's metadata. Raises Corrupt, also where it is larger than `max_pixels`.
    """
    picture = _picture(file, low_high, max_pixels)
    with _faults():
        longer = max(picture.size)
        if longer > pixels:
            picture = _resized(picture, tuple(_part(side, pixels, longer) for side in picture.size))
        out = io.BytesIO()
        Image.fromarray(np.asarray(picture)).save(out, "JPEG", quality=85)
        return out.getvalue()


# Reading


@contextlib.contextmanager
def _faults() -> Iterator[None]:
    """Turns what damaged bytes raise, almost anything, into Corrupt."""
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


def _reason(error):
    """One line of what Pillow says; some of its decoders only have a number."""
    line = (str(error).splitlines() or [""])[0][:200]
    return line if line.strip("-0123456789. ") else f"damaged ({line or type(error).__name__})"


@contextlib.contextmanager
def _opened(file):
    if isinstance(file, pathlib.Path):
        with file.open("rb") as opened, _opened(opened) as picture:
            yield picture
        return
    file.seek(0)
    head = file.read(16)
    file.seek(0)
    yield _reader(head)(file)


def _reader(head):
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return WebPImagePlugin.WebPImageFile
    for start, reader in _READERS.items():
        if head.startswith(start):
            return reader
    if head[4:8] == b"ftyp":
        kind = "AVIF" if head[8:11] == b"avi" else "HEIC"
        raise Unsupported(f"{kind}: convert to JPEG")
    raise Corrupt("no JPEG, PNG, WEBP, BMP, GIF, TIFF or PPM" if head else "empty")


def _orientation(picture):
    """EXIF's 1 to 8. Pillow turns a TIFF itself; XMP and such do not count, as in browsers."""
    if picture.format == "TIFF" or "exif" not in picture.info:
        return 1
    # A picture whose metadata are damaged is whole all the same.
    with contextlib.suppress(Exception):
        exif = Image.Exif()
        exif.load(picture.info["exif"])
        found = exif.get(ExifTags.Base.Orientation, 1)
        return found if found in range(1, 9) else 1
    return 1


def _picture(file, low_high, max_pixels):
    """The picture in mode L or RGB, decoded and turned."""
    if low_high and low_high[0] == low_high[1]:
        raise ValueError(f"low_high needs two different values, not {tuple(low_high)}")
    with _faults(), _opened(file) as picture:
        if max_pixels is not None and picture.width * picture.height > max_pixels:
            raise TooLarge.of(picture.width, picture.height, max_pixels)
        picture.load()
        turn = _TURNS.get(_orientation(picture))
        whole = _eight_bits(picture, low_high)
        return whole if turn is None else whole.transpose(turn)


# Values


def _eight_bits(picture, low_high):
    """Mode L or RGB, as the picture looks on white paper."""
    if picture.mode in _DEEP:
        return Image.fromarray(_scaled(picture, low_high))
    if picture.mode == "La":
        picture = picture.convert("LA")
    if picture.has_transparency_data:
        # Pillow's own RGBA -> RGB would show what is hidden.
        picture = picture.convert("RGBA")
        white = Image.new("RGB", picture.size, "white")
        white.paste(picture, mask=picture.getchannel("A"))
        return white
    if picture.mode in ("1", "L"):
        return _converted(picture, "L")
    if picture.mode in _COLOUR:
        return _converted(picture, "RGB")
    raise Unsupported(f"colours of mode {picture.mode}: convert to JPEG")


def _converted(picture, mode):
    # Pillow would copy what has that mode already.
    return picture if picture.mode == mode else picture.convert(mode)


def _scaled(picture, low_high):
    """Deep grey, uint8 `[H, W]`. Pillow would cut at 255, so that nearly all of it is white."""
    values = np.asarray(picture)
    low, high = low_high or ((0, 1) if values.dtype.kind == "f" else (0, 65535))
    scaled = np.empty(values.shape, np.uint8)
    height = max(1, _BAND // max(1, values.shape[1]))
    for top in range(0, len(values), height):
        band = (values[top : top + height].astype(np.float64) - low) * (255 / (high - low))
        np.clip(np.nan_to_num(band, copy=False, nan=0), 0, 255, out=band)
        scaled[top : top + height] = np.rint(band, out=band)
    is_tiff = isinstance(picture, TiffImagePlugin.TiffImageFile)
    if is_tiff and picture.tag_v2.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0:
        np.subtract(255, scaled, out=scaled)  # WhiteIsZero, which Pillow heeds for 8 bits alone
    if isinstance(picture.info.get("transparency"), int):
        scaled[values == picture.info["transparency"]] = 255
    return scaled


# Sizes


def _fitted(picture, size, resize):
    if resize == "stretch":
        return _resized(picture, (size, size))
    if resize == "crop":
        shorter = min(picture.size)
        left, top = ((side - shorter) // 2 for side in picture.size)
        return _resized(picture, (size, size), (left, top, left + shorter, top + shorter))
    small = _resized(picture, tuple(_part(s, size, max(picture.size)) for s in picture.size))
    square = Image.new(picture.mode, (size, size))
    square.paste(small, tuple((size - side) // 2 for side in small.size))
    return square


def _part(side, pixels, longer):
    return max(1, round(side * pixels / longer))


def _resized(picture, sides, box=None):
    # Pillow's filters grow with the scale, so that shrinking averages.
    return picture.resize(sides, Image.Resampling.BILINEAR, box)
