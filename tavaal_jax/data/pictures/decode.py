"""Decoding of people's photos for a network: EXIF turn, white behind alpha, 8 bits, resized."""

import contextlib
import hashlib
import io
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO, NamedTuple

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
"""Squeezed out of shape; the square in its middle; in shape on black."""

GONE = "it is no longer there"
CHANGED = "it has changed since it was listed"
"""Reasons of a photo that cannot be decoded although no file is damaged."""

_JPEG, _PNG, _PPM = (
    JpegImagePlugin.JpegImageFile, PngImagePlugin.PngImageFile, PpmImagePlugin.PpmImageFile,
)  # fmt: skip
_GIF, _TIFF = GifImagePlugin.GifImageFile, TiffImagePlugin.TiffImageFile
# Image.open would warn of, or refuse, sizes that `max_pixels` allows, by a limit that is the whole
# process's; and it would make a stereo picture of some telephones' JPEG.
_READERS: dict[bytes, Callable[[BinaryIO], ImageFile.ImageFile]] = {
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
_WHITE = 255
_MOST_16_BITS = 2**16 - 1


class Corrupt(Exception):
    """A file cannot be decoded; the text is the reason."""

    def __init__(self, reason: str, lasting: bool = True):
        super().__init__(reason)
        self.lasting = lasting
        """Whether the bytes are at fault, not a disk or too little memory."""


class Unsupported(Corrupt):
    """The file may be undamaged, but its format is not read."""


class TooLarge(Corrupt):
    """The picture has more pixels than `max_pixels`."""

    @classmethod
    def from_size(cls, width: int, height: int, max_pixels: int) -> "TooLarge":
        """The exception for a picture of this size, with its reason."""
        return cls(f"{width}x{height} pixels, more than max_pixels ({max_pixels})")


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


def header(file: File) -> Header:
    """Size and mode of a picture, without decoding it. Raises Corrupt."""
    with _corrupt_errors(), _opened(file) as picture:
        sides = picture.size if _orientation(picture) < 5 else picture.size[::-1]
        return Header(sides[0], sides[1], picture.mode)


def decode(
    file: File, size: int, channels: int, resize: str = "stretch", low_high: Sequence[float] = ()
) -> np.ndarray:
    """Pixels of a picture in a file, uint8 `[size, size, channels]`. Raises Corrupt.

    `channels` is 3, or 1 for grey. The picture is decoded in full, turned as EXIF asks, put on
    white where transparent, and resized bilinearly with antialiasing; an animation or a file of
    several pages gives the first. In a picture of 16 bits or floats the values `low_high` become 0
    and 255; the default is 0 and 65535, or 0.0 and 1.0.
    """
    if resize not in RESIZE:
        raise ValueError(f"resize {resize!r} is none of {', '.join(RESIZE)}")
    picture = _decoded(file, low_high, None)
    with _corrupt_errors():
        fitted = _fitted(_converted(picture, "RGB" if channels == 3 else "L"), size, resize)
        return np.asarray(fitted).reshape(size, size, channels)


def preview(
    file: File, pixels: int, low_high: Sequence[float] = (), max_pixels: int | None = None
) -> bytes:
    """A JPEG without metadata of a picture in its own shape, as `decode` decodes it.

    Its longer side has at most `pixels`. Raises Corrupt, and TooLarge above `max_pixels`.
    """
    picture = _decoded(file, low_high, max_pixels)
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
    return line if line.strip("-0123456789. ") else f"damaged ({line or type(error).__name__})"


@contextlib.contextmanager
def _opened(file: File) -> Iterator[ImageFile.ImageFile]:
    if isinstance(file, pathlib.Path):
        with file.open("rb") as opened, _opened(opened) as picture:
            yield picture
        return
    file.seek(0)
    head = file.read(16)
    file.seek(0)
    yield _reader(head)(file)


def _reader(head: bytes) -> Callable[[BinaryIO], ImageFile.ImageFile]:
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return WebPImagePlugin.WebPImageFile
    for start, reader in _READERS.items():
        if head.startswith(start):
            return reader
    if head[4:8] == b"ftyp":
        kind = "AVIF" if head[8:11] == b"avi" else "HEIC"
        raise Unsupported(f"{kind}: convert to JPEG")
    raise Corrupt("no JPEG, PNG, WEBP, BMP, GIF, TIFF or PPM" if head else "empty")


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


def _decoded(file: File, low_high: Sequence[float], max_pixels: int | None) -> Image.Image:
    """The picture in mode L or RGB, decoded and turned."""
    if low_high and low_high[0] == low_high[1]:
        raise ValueError(f"low_high needs two different values, not {tuple(low_high)}")
    with _corrupt_errors(), _opened(file) as picture:
        if max_pixels is not None and picture.width * picture.height > max_pixels:
            raise TooLarge.from_size(picture.width, picture.height, max_pixels)
        picture.load()
        turn = _TURNS.get(_orientation(picture))
        whole = _eight_bits(picture, low_high)
        return whole if turn is None else whole.transpose(turn)


# Values


def _eight_bits(picture: Image.Image, low_high: Sequence[float]) -> Image.Image:
    """The picture in mode L or RGB, transparent parts on white."""
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


def _converted(picture: Image.Image, mode: str) -> Image.Image:
    # Pillow would copy what has that mode already.
    return picture if picture.mode == mode else picture.convert(mode)


def _scaled(picture: Image.Image, low_high: Sequence[float]) -> np.ndarray:
    """Grey of 16 bits or floats as uint8 `[H, W]`; Pillow would clip at 255, mostly to white."""
    values = np.asarray(picture)
    low, high = low_high or ((0, 1) if values.dtype.kind == "f" else (0, _MOST_16_BITS))
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
