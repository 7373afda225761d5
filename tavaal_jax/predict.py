"""Predictions for a folder of photos.

python -m tavaal_jax.predict --model=runs/birds/model --images=FOLDER --out=predictions.csv
"""

import argparse
import itertools
import os
import pathlib
import signal
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NoReturn

import numpy as np

from tavaal_jax.algorithm.problems import Segmentation
from tavaal_jax.data.pictures import decode
from tavaal_jax.engine import compilation
from tavaal_jax.errors import UserError
from tavaal_jax.labelling import predictions
from tavaal_jax.labelling.images.files import list_files
from tavaal_jax.labelling.images.inventory import Image, printable, scan
from tavaal_jax.labelling.predictions import PredictionRow
from tavaal_jax.study.model import Decoding, Model, load_model

_KEY = "--images"
_THREADS = 2
_AHEAD = 16  # photos that are decoded, or wait to be
_MAX_PIXELS = 10**8

Say = Callable[[str], None]


def predict(
    model: str | pathlib.Path, images: str | pathlib.Path, out: str | pathlib.Path, say: Say
) -> int:
    """Writes what a model says of the photos in a folder and below; how many they are.

    `out` is a csv of id, file, predicted, confidence and `p_<class>`, replaced whole: a row for
    each photo, sorted by path; of a photo that cannot be read `say` is told. Raises UserError for
    what the user can mend.
    """
    folder, target = (pathlib.Path(path).expanduser() for path in (images, out))
    _check_target(target)
    there = list_files(folder.absolute(), _KEY)
    loaded = load_model(model)
    how = _decoding(loaded, model)
    for names, why in ((there.outside, "leads out of the folder"), (there.closed, "not searched")):
        for name in names:
            say(f"left out: {printable(name)} ({why})")
    with tempfile.TemporaryDirectory() as index:
        found = scan(
            folder, (), pathlib.Path(index) / "index.jsonl", how.max_pixels, _silent, key=_KEY
        )
    usable = {image.id for image in found.images if image.status == "ok"}
    for image in found.images:
        if image.id not in usable:
            say(_unread(image, found.reasons.get(image.file, image.status)))
    readable = [image for image in found.images if image.id in usable]  # Copies are among them.
    count = 0

    def rows() -> Iterator[PredictionRow]:
        nonlocal count
        decoded = _decoded(readable, found.folder, how, say)
        for row in _rows(loaded, decoded):
            count += 1
            yield row
        if not count:
            raise UserError(f"no photo in {folder} could be decoded: see to {_KEY}")

    predictions.write(target, loaded.class_names, rows())
    return count


def _check_target(target: pathlib.Path) -> None:
    """UserError where the file cannot be written, before hours are spent on what it is to hold."""
    if target.suffix.lower() != ".csv" or target.is_dir():
        raise UserError(f"--out is {target}: give a file whose name ends in .csv")
    if not target.parent.is_dir():
        raise UserError(f"--out is {target}, and there is no folder {target.parent}: make it first")
    if not os.access(target.parent, os.W_OK):
        raise UserError(
            f"--out is {target}, and {target.parent} may not be written to: give another"
        )


def _decoding(model: Model, folder: str | pathlib.Path) -> Decoding:
    """How photos are decoded for a model; UserError where they are nothing for it."""
    shape = model.shape
    kind = None
    if len(shape) != 3 or model.dtype != "uint8":
        kind = f"features ({', '.join(map(str, shape))})"
    elif isinstance(model.learner.problem, Segmentation):
        kind = "label maps"
    elif shape[0] != shape[1] or shape[2] not in (1, 3):
        kind = f"images of {' x '.join(map(str, shape))}"
    if kind is not None:
        raise UserError(
            f"--model is {folder}, a model of {kind}: give one of square photos with a class each,"
            " or use tavaal_jax.load_model"
        )
    return model.photos or Decoding(shape[0], shape[2], "stretch", (), _MAX_PIXELS)


def _rows(model: Model, decoded: Iterator[tuple[Image, np.ndarray]]) -> Iterator[PredictionRow]:
    """What the model says of each photo."""
    while some := list(itertools.islice(decoded, model.at_once)):
        probabilities = model.predict_proba(np.stack([pixels for _, pixels in some]))
        for (image, _), its in zip(some, probabilities, strict=True):
            yield PredictionRow(image.id, image.file, its)


def _decoded(
    readable: Sequence[Image], folder: pathlib.Path, how: Decoding, say: Say
) -> Iterator[tuple[Image, np.ndarray]]:
    """The pixels of each photo, in order; `say` is told of those that have none."""
    waiting: deque[tuple[Image, Future[Any]]] = deque()
    following = iter(readable)
    with ThreadPoolExecutor(_THREADS) as pool:
        try:
            while True:
                for image in itertools.islice(following, _AHEAD - len(waiting)):
                    waiting.append((image, pool.submit(_one, folder, image, how)))
                if not waiting:
                    return
                first, future = waiting.popleft()
                try:
                    yield first, future.result()
                except decode.Corrupt as error:
                    say(_unread(first, str(error)))
        finally:
            pool.shutdown(cancel_futures=True)


def _one(folder: pathlib.Path, image: Image, how: Decoding) -> np.ndarray:
    """Decodes a photo, unless it is another one by now. Raises Corrupt."""
    try:
        with (folder / image.file).open("rb") as file:
            if decode.content_id(file) != image.id:
                raise decode.Corrupt(decode.CHANGED)
            return decode.decode(file, how.size, how.channels, how.resize, how.low_high)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise decode.Corrupt(decode.GONE) from error
    except OSError as error:
        raise decode.Corrupt(error.strerror or str(error)) from error


def _unread(image: Image, reason: str) -> str:
    return f"cannot read {printable(image.file)}: {printable(reason)}"


def _silent(*_: object) -> None:
    pass


# The command


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; flags are written --name=value, see --help")


def _parsed(argv: Sequence[str]) -> argparse.Namespace:
    parser = _Parser(
        prog="python -m tavaal_jax.predict", description="Predictions for a folder of photos.",
        allow_abbrev=False,
    )  # fmt: skip
    parser.add_argument("--model", required=True, help="folder with weights.npz and model.json")
    parser.add_argument(
        "--images", required=True, help="folder of photos, searched in all below it"
    )
    parser.add_argument("--out", required=True, help="csv to be written")
    given = parser.parse_args(argv)
    for name, value in vars(given).items():
        if not value:
            raise UserError(f"--{name} is empty: give --{name}=...")
    return given


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(argv: Sequence[str]) -> int:
    """The command; returns the exit code: 2, after one line, for what the user can mend."""
    try:
        given = _parsed(argv)
        compilation.keep_in_cache()
        unread = itertools.count()

        def say(text: str) -> None:
            next(unread)
            _say(text)

        count = predict(given.model, given.images, given.out, say)
        left = next(unread)
        also = f", {left:,} left out" if left else ""
        many = "s" if count > 1 else ""
        _say(f"{count:,} prediction{many} in {printable(given.out)}{also}")
    except UserError as error:
        _say(f"error: {error}")
        return 2
    except KeyboardInterrupt:
        _say("stopped by SIGINT; nothing was written")
        return 130
    return 0


def _end(number: int, frame: object) -> NoReturn:
    """Leaves by way of what tidies up."""
    del frame
    sys.exit(128 + number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _end)
    sys.exit(main(sys.argv[1:]))
