"""Command line: a model's predictions for a folder of photos.

python -m tavaal_jax.predict --model=runs/birds/model --images=FOLDER --out=predictions.csv
"""

import argparse
import contextlib
import itertools
import os
import pathlib
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO, NoReturn

import numpy as np

from tavaal_jax.algorithm.problems import Segmentation
from tavaal_jax.data.pictures import decode
from tavaal_jax.data.pictures.decode import Pixels
from tavaal_jax.data.pictures.reading import Fault, decode_ahead
from tavaal_jax.data.pictures.values import Overflow, overflow_lines
from tavaal_jax.engine import compilation
from tavaal_jax.environment import forgive_output, user_path
from tavaal_jax.errors import UserError
from tavaal_jax.labelling import predictions
from tavaal_jax.labelling.images.files import list_files, path_of
from tavaal_jax.labelling.images.inventory import Image, scan
from tavaal_jax.labelling.passed_over import printable
from tavaal_jax.labelling.predictions import PredictionRow
from tavaal_jax.study.model import Model, load_model
from tavaal_jax.study.model_input import Decoding

_KEY = "--images"
_AHEAD = 16  # photos that are decoded, or wait for the model
_MAX_PIXELS = 10**8
_CANNOT = "cannot read"

Log = Callable[[str], None]


def predict(
    model: str | pathlib.Path,
    images: str | pathlib.Path,
    out: str | pathlib.Path,
    log: Log,
    follow_links: bool = False,
) -> int:
    """Writes a model's predictions for all photos in a folder and below; returns their number.

    `out` is a csv of id, file, predicted, confidence and `p_<class>`, replaced whole: a row for
    each photo, sorted by path. `log` gets a line for each photo that cannot be read, and for each
    kind of other files. Raises UserError for what the user can mend.
    """
    folder, target = user_path(images, "--images"), user_path(out, "--out")
    _check_target(target)
    list_files(folder.absolute(), _KEY)  # Raises before a model is loaded.
    loaded = load_model(model)
    decoding = _decoding(loaded, model)
    with tempfile.TemporaryDirectory() as index:
        found = scan(
            folder, (), pathlib.Path(index) / "index.jsonl", decoding.max_pixels, key=_KEY,
            follow_links=follow_links,
        )  # fmt: skip
    for kind in found.passed:
        log(f"not read: {kind.line}")
    usable = {image.id for image in found.images if image.status == "ok"}
    for image in found.images:
        if image.id not in usable:
            log(_cannot_read(image, found.reasons.get(image.file, image.status)))
    readable = [image for image in found.images if image.id in usable]  # Copies are among them.
    count = 0

    def rows() -> Iterator[PredictionRow]:
        nonlocal count
        decoded = _decoded(readable, found.folder, decoding, log)
        for row in _rows(loaded, decoded):
            count += 1
            yield row
        if not count:
            raise UserError(f"no photo in {folder} could be decoded: see to {_KEY}")

    predictions.write(target, loaded.class_names, rows())
    return count


def _check_target(target: pathlib.Path) -> None:
    """Raises UserError where the file cannot be written, before hours of work on its content."""
    if target.suffix.lower() != ".csv" or target.is_dir():
        raise UserError(f"--out is {target}: give a file whose name ends in .csv")
    if not target.parent.is_dir():
        raise UserError(f"--out is {target}, and there is no folder {target.parent}: make it first")
    if not os.access(target.parent, os.W_OK):
        raise UserError(
            f"--out is {target}, and {target.parent} may not be written to: give another"
        )


def _decoding(model: Model, folder: str | pathlib.Path) -> Decoding:
    """How photos are decoded for a model. Raises UserError where it takes no photos."""
    shape = model.shape
    if model.backbone is not None:
        size = model.embedder.image_size  # Raises where its weights are missing, before all else.
        return model.photos or Decoding(size, 3, "stretch", (), _MAX_PIXELS)
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
    """A row with the model's probabilities for each photo."""
    while batch := list(itertools.islice(decoded, model.at_once)):
        probabilities = model.predict_proba(np.stack([pixels for _, pixels in batch]))
        for (image, _), row in zip(batch, probabilities, strict=True):
            yield PredictionRow(image.id, image.file, row)


def _decoded(
    readable: Sequence[Image], folder: pathlib.Path, decoding: Decoding, log: Log
) -> Iterator[tuple[Image, np.ndarray]]:
    """The pixels of each photo, in order; `log` gets a line for each that has none."""

    def decode_file(file: BinaryIO) -> Pixels:
        size, channels, resize, low_high, _ = decoding
        return decode.decode_checked(file, size, channels, resize, low_high)

    overflows: list[Overflow] = []
    photos = ((image.id, path_of(folder, image.file)) for image in readable)
    with contextlib.closing(decode_ahead(photos, decode_file, _AHEAD)) as outcomes:
        for image, outcome in zip(readable, outcomes, strict=True):
            if isinstance(outcome, Fault):
                log(_cannot_read(image, outcome.reason))
            else:
                overflows += [outcome.overflow] if outcome.overflow else []
                yield image, outcome.values
    for line in overflow_lines(overflows, "folder.low_high"):
        log(f"{line} when the model is trained")


def _cannot_read(image: Image, reason: str) -> str:
    return f"{_CANNOT} {printable(image.file)}: {printable(reason)}"


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
    parser.add_argument(
        "--follow_links", action="store_true", help="photos behind links out of the folder, too"
    )
    given = parser.parse_args(argv)
    for name, value in vars(given).items():
        if value == "":
            raise UserError(f"--{name} is empty: give --{name}=...")
    return given


def _print(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(argv: Sequence[str]) -> int:
    """Runs the command; returns the exit code: 2, after one line, for what the user can mend."""
    forgive_output()
    try:
        given = _parsed(argv)
        if note := compilation.keep_in_cache():
            _print(f"note: {note}")
        left_out: list[str] = []

        def log(text: str) -> None:
            if text.startswith(_CANNOT):
                left_out.append(text)
            _print(text)

        count = predict(given.model, given.images, given.out, log, given.follow_links)
        also = f", {len(left_out):,} left out" if left_out else ""
        many = "s" if count > 1 else ""
        _print(f"{count:,} prediction{many} in {printable(given.out)}{also}")
    except UserError as error:
        _print(f"error: {error}")
        return 2
    except KeyboardInterrupt:
        _print("stopped by SIGINT; nothing was written")
        return 130
    return 0


def _exit(number: int, frame: object) -> NoReturn:
    """Signal handler that exits by an exception, so that temporary files are removed."""
    del frame
    sys.exit(128 + number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _exit)
    sys.exit(main(sys.argv[1:]))
