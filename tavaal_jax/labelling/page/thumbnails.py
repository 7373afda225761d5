"""JPEGs of images for the live page; small ones are made once and kept in the workdir."""

import contextlib
import os
import pathlib
import threading
from collections.abc import Callable

SIDES = {"thumbnail": 256, "full": 1600}
"""Pixels of the longer side."""
_AT_ONCE = 2  # pictures that are decoded at once


class Thumbnails:
    """Thumbnails by content id, in a folder that may be deleted at any time."""

    def __init__(self, folder: pathlib.Path):
        self._folder = folder
        self._decoding = threading.Semaphore(_AT_ONCE)

    def jpeg(self, name: str, size: str, preview: Callable[[str, int], bytes]) -> bytes:
        """A JPEG of an image; `preview(id, side)` makes it. Raises OSError where there is none.

        `name` must be a known id.
        """
        if size != "thumbnail":
            with self._decoding:
                return preview(name, SIDES[size])
        path = self._folder / f"{name}.jpg"
        with contextlib.suppress(OSError):
            return path.read_bytes()
        with self._decoding:
            content = preview(name, SIDES[size])
        with contextlib.suppress(OSError):  # A full disk: it is made again.
            self._folder.mkdir(exist_ok=True)
            temporary = path.with_suffix(f".{threading.get_ident()}.tmp")
            temporary.write_bytes(content)
            os.replace(temporary, path)
        return content
