"""A folder of images with every oddity of those that people have, and what each becomes."""

import gzip
import io
import os
import pathlib
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image, PngImagePlugin

from tavaal_jax.labelling.images import files

ENDINGS = {
    "png": "PNG", "jpg": "JPEG", "JPG": "JPEG", "jpeg": "JPEG", "JPE": "JPEG", "jfif": "JPEG",
    "webp": "WEBP", "bmp": "BMP", "gif": "GIF", "tif": "TIFF", "TIFF": "TIFF", "ppm": "PPM",
}  # fmt: skip
_OLD = 1_600_000_000
_PER_SET = 100  # seeds of one set of oddities
_LATER = 10**6


def coded(seed: int, kind: str = "PNG", mode: str = "RGB", **options: object) -> bytes:
    """The bytes of a small picture, red for an odd seed and blue for an even one."""
    pixels = np.random.default_rng(seed).integers(0, 80, (24, 24, 3), dtype=np.uint8)
    pixels[..., 0 if seed % 2 else 2] += 150
    return _saved(Image.fromarray(pixels).convert(mode), kind, **options)


def _saved(picture: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def _chunk(kind: bytes, body: bytes, checksum: int | None = None) -> bytes:
    checksum = zlib.crc32(kind + body) if checksum is None else checksum
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)


def _bomb(number: int) -> bytes:
    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    data = _chunk(b"IHDR", head) + _chunk(b"IDAT", zlib.compress(bytes(64)))
    return b"\x89PNG\r\n\x1a\n" + data + b"%d" % number


def _with_remark(png: bytes, remark: bytes) -> bytes:
    return png[:33] + remark + png[33:]


def _grey(seed: int, dtype: type, factor: float) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (24, 24)) * factor
    return Image.fromarray(values.astype(dtype))


def _pictures(n: int, at: str) -> Iterator[tuple[str, bytes]]:
    """Names and contents that are images, however odd."""
    seed = _LATER + _PER_SET * n
    exif = Image.Exif()
    exif[0x112] = 1 + n % 8
    yield f"{at}/exif_{n}.jpg", coded(seed, "JPEG", exif=exif)
    yield f"{at}/webp_{n}.jpg", coded(seed + 1, "WEBP")
    yield f"{at}/cmyk_{n}.jpg", coded(seed + 2, "JPEG", "CMYK")
    yield f"{at}/deep_{n}.png", _saved(_grey(seed + 3, np.uint16, 257), "PNG")
    yield f"{at}/float_{n}.tif", _saved(_grey(seed + 4, np.float32, 1 / 255), "TIFF")
    yield f"{at}/alpha_{n}.png", coded(seed + 5, mode="RGBA")
    yield f"{at}/palette_{n}.png", coded(seed + 6, mode="P")
    second = Image.new("RGB", (24, 24), (n % 256, n // 256, 9))
    yield (
        f"{at}/moves_{n}.gif",
        coded(seed + 7, "GIF", save_all=True, append_images=[second]),
    )
    names = (
        f"<img src=x onerror=alert({n})>", f"=cmd|' C'!A{n}", f"line\nbreak {n}", f"\x1b[31mred{n}",
        f"a\\b{n}", f"日本 🦉 {n}", f"caf\u00e9{n}", f"cafe\u0301{n}", "x" * 200 + str(n),
        f"Same{n}", f"same{n}",
    )  # fmt: skip
    for number, name in enumerate(names, 8):
        yield f"{at}/{name}.png", coded(seed + number)
    yield f"{at}/no_end_{n}.jpg", coded(seed + 20, "JPEG")[:-2]
    yield f"{at}/remark_{n}.png", _with_remark(coded(seed + 21), _chunk(b"tEXt", b"a\0b", 0))
    yield f"{at}/photo_{n}.jpg?width=640", coded(seed + 22, "JPEG")
    yield f"{at}/photo_{n}", coded(seed + 23)


def _unusable(n: int, at: str) -> Iterator[tuple[str, str, bytes]]:
    """Status, name and content of files that seem to be images and are not."""
    seed = _LATER + _PER_SET * n + 50
    yield "corrupt", f"{at}/empty_{n}.png", b""
    yield "corrupt", f"{at}/text_{n}.jpg", b"hello %d" % n
    yield "corrupt", f"{at}/html_{n}.jpg", b"<!DOCTYPE html><title>404 %d</title>" % n
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:%064d\nsize 12345\n" % n
    yield "corrupt", f"{at}/lfs_{n}.png", pointer
    yield "corrupt", f"{at}/cut_{n}.png", coded(seed)[: 400 + n % 100]
    yield "corrupt", f"{at}/cut_{n}.jpg", coded(seed + 1, "JPEG")[:700]
    yield "corrupt", f"{at}/gz_{n}.png", gzip.compress(coded(seed + 2), mtime=0)
    yield "too_large", f"{at}/bomb_{n}.png", _bomb(n)
    yield "unsupported", f"{at}/p_{n}.heic", b"\0\0\0\x18ftypheic%09d" % n
    yield "unsupported", f"{at}/p_{n}.jpg", b"\0\0\0\x18ftypmif1%09d" % n
    yield "unsupported", f"{at}/p_{n}.NEF", coded(seed + 3, "TIFF")
    yield "unsupported", f"{at}/p_{n}.psd", b"8BPS%d" % n
    yield "unsupported", f"{at}/p_{n}.avif", b"\0\0\0\x20ftypavif%d" % n


def _others(n: int, at: str) -> Iterator[tuple[str, str, bytes]]:
    """Kind, name and content of what is passed over."""
    picture = coded(_LATER + _PER_SET * n + 60)
    yield files.LEFT_BEHIND, f"{at}/photo_{n}.png.bak", picture
    yield files.OTHER_FILES, f"{at}/note_{n}.txt", b"a note"
    yield files.OTHER_FILES, f"{at}/p_{n}.xml", b"<annotation/>"
    yield files.OTHER_FILES, f"{at}/p_{n}.json", b"{}"
    yield files.NO_PICTURE, f"{at}/LICENSE_{n}", b"text"
    yield files.OTHER_PICTURES, f"{at}/p_{n}.svg", b"<svg/>"
    yield files.OTHER_PICTURES, f"{at}/p_{n}.dcm", bytes(128) + b"DICM"
    yield files.HIDDEN, f"{at}/.hidden_{n}.png", picture
    yield files.HIDDEN, f"{at}/._photo_{n}.png", b"\0\5\26\7"
    yield files.IN_CLOUD, f"{at}/.photo_{n}.jpg.icloud", b"bplist00"
    yield files.HIDDEN, f"thumbs/{n}/Thumbs.db", b"x"


class OddFolder:
    """Makes the folder; `expected` says what becomes of each entry."""

    def __init__(self, folder: pathlib.Path, count: int):
        """About `count` entries, three in ten of them odd; needs a file system of any bytes."""
        self.folder = folder
        self.expected: dict[str, str] = {}
        """Status in images.csv, or kind passed over, by name; a hidden folder is one entry."""
        folder.mkdir()
        n = 0
        while n == 0 or len(self.expected) + 60 < count * 3 // 10:
            self._put_oddities(n)
            n += 1
        self._put_heavy()
        self._put_links()
        n = 0
        while len(self.expected) < count:
            ending = list(ENDINGS)[n % len(ENDINGS)] if n % 5 == 0 and n else "png"
            self._put("ok", f"a/{n // 200:02d}/{n:05d}.{ending}", coded(n, ENDINGS[ending]))
            n += 1
        for here, _, names in os.walk(os.fsencode(folder)):
            for path in (os.path.join(here, name) for name in names):
                if not os.path.islink(path):
                    os.utime(path, (_OLD, _OLD))

    def _put(self, what: str, name: str, content: bytes) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        self.expected[name] = what

    def _put_oddities(self, n: int) -> None:
        at = f"odd/{n % 7}"
        for name, content in _pictures(n, at):
            self._put("ok", name, content)
        self._put("duplicate_of", f"{at}/copy_{n}.png", coded(1 + 5 * n))
        for what, name, content in (*_unusable(n, at), *_others(n, at)):
            self._put(what, name, content)
        self._put("", f"__MACOSX/{n}.png", b"\0\5\26\7")
        self._put("", f"@eaDir/{n}/thumb.jpg", b"")
        for name in (f"__MACOSX/{n}.png", f"@eaDir/{n}/thumb.jpg"):
            del self.expected[name]
            self.expected[name.partition("/")[0]] = files.HIDDEN
        bare = os.fsencode(self.folder / at) + b"/\xe9%d.png" % n
        with open(bare, "wb") as file:
            file.write(coded(_LATER + _PER_SET * n + 61))
        self.expected[rf"{at}/\xe9{n}.png"] = "unsupported"

    def _put_heavy(self) -> None:
        for n in range(3):
            info = PngImagePlugin.PngInfo()
            info.add_text("workflow", "x" * 1_500_000, zip=True)
            self._put("ok", f"heavy/text_{n}.png", coded(2 * _LATER + n, pnginfo=info))

    def _put_links(self) -> None:
        outside = self.folder.parent / "outside"
        outside.mkdir()
        for n in range(3):
            (outside / f"{n}.png").write_bytes(coded(3 * _LATER + n))
            self._link(files.OUTSIDE, f"out_{n}.png", str(outside / f"{n}.png"))
            self._link("duplicate_of", f"in_{n}.png", f"../a/00/{n + 1:05d}.png")
            self._link(files.NOWHERE, f"dangling_{n}.png", "nowhere.png")
            self._link(files.NOWHERE, f"itself_{n}.png", f"itself_{n}.png")
        self._link(files.OUTSIDE, "out", str(outside))
        self._link(files.AGAIN, "circle", "..")
        self._link(files.AGAIN, "again", "../odd")
        os.mkfifo(self.folder / "links" / "pipe.png")
        self.expected["links/pipe.png"] = files.NO_FILE
        self._put("ok", "links/folder.png/inside.png", coded(4 * _LATER))
        deep = "/".join(["d" * 60] * 20)
        self._put("ok", f"deep/{deep}/photo.png", coded(4 * _LATER + 1))

    def _link(self, what: str, name: str, target: str) -> None:
        path = self.folder / "links" / name
        path.parent.mkdir(exist_ok=True)
        path.symlink_to(target)
        self.expected[f"links/{name}"] = what
