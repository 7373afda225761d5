"""Kinds of files by how they begin: pictures that are read, others, and what is no picture."""

from collections.abc import Callable
from typing import BinaryIO

from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

Reader = Callable[[BinaryIO], ImageFile.ImageFile]

JPEG, PNG, _PPM = (
    JpegImagePlugin.JpegImageFile, PngImagePlugin.PngImageFile, PpmImagePlugin.PpmImageFile,
)  # fmt: skip
_GIF, _TIFF = GifImagePlugin.GifImageFile, TiffImagePlugin.TiffImageFile
# Image.open would warn of, or refuse, sizes that `max_pixels` allows, by a limit that is the whole
# process's; and it would make a stereo picture of some telephones' JPEG.
_READERS: dict[bytes, Reader] = {
    b"\xff\xd8\xff": JPEG,
    b"\x89PNG\r\n\x1a\n": PNG,
    b"GIF87a": _GIF, b"GIF89a": _GIF,
    b"BM": BmpImagePlugin.BmpImageFile,
    b"II*\0": _TIFF, b"MM\0*": _TIFF, b"II+\0": _TIFF, b"MM\0+": _TIFF,
    **{b"P%d" % kind: _PPM for kind in range(1, 7)}, b"Pf": _PPM,
}  # fmt: skip
HEAD = 132
"""Bytes that tell what a file is."""
_UNREAD = {
    b"\0\0\0\x0cjP  ": "JPEG 2000", b"\0\0\0\x0cJXL ": "JPEG XL", b"8BPS": "PSD",
    b"ftypavi": "AVIF",
    **dict.fromkeys((b"ftyphe", b"ftypmif1", b"ftypmsf1"), "HEIC"),
}  # fmt: skip
"""Pictures that are not read, by how they begin; those with `ftyp` four bytes later."""
_NO_PICTURES = {
    b"version https://git-lfs": "a pointer of Git LFS: git lfs pull fetches the picture",
    b"<!doctype": "a web page: download the picture again",
    b"<html": "a web page: download the picture again",
    b"\x1f\x8b": "packed with gzip: unpack it",
    b"pk\3\4": "an archive: unpack it",
    b"%pdf": "a PDF: convert it to PNG",
    b"bplist00": "a placeholder: download the picture",
}
"""What people find in the place of a picture, by how it begins in small letters."""


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


def reader_of(head: bytes) -> Reader:
    """Pillow's reader of a file that begins so. Raises Corrupt."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return WebPImagePlugin.WebPImageFile
    for start, found in _READERS.items():
        if head.startswith(start):
            return found
    for start, kind in _UNREAD.items():
        if head.startswith(start) or head[4:].startswith(start):
            raise Unsupported(f"{kind}: convert to JPEG")
    small = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for start, what in _NO_PICTURES.items():
        if small.startswith(start):
            raise Corrupt(what)
    if b"<svg" in small:
        raise Unsupported("SVG: convert to PNG")
    if head[128:132] == b"DICM":
        raise Unsupported("DICOM: convert to PNG")
    if not head.strip(b"\0"):
        raise Corrupt("it begins with zeros: copy it again" if head else "empty")
    raise Corrupt("no JPEG, PNG, WEBP, BMP, GIF, TIFF or PPM")
