"""Export of a model for other people: a program that needs JAX alone, and a README."""

import contextlib
import datetime
import importlib.metadata
import importlib.util
import json
import pathlib
import textwrap
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import export

from tavaal_jax import models
from tavaal_jax.report import files
from tavaal_jax.study.model import EXPORTED, Decoding, Model, load_model

NAME, README = EXPORTED
PLATFORMS = ("cpu", "cuda", "tpu")
_SHOWN = 10  # classes named in README.txt


def add_export(folder: pathlib.Path, test: Mapping[str, Any] | None = None) -> None:
    """Adds `predict.jaxexport` and `README.txt` to a folder written by `Model.save`.

    `model.json` gets facts on both, and `test`, the model's measured quality. Where the program
    cannot be made the README gives the reason; UserError is raised for disk errors only.
    """
    model = load_model(folder)
    record = json.loads((folder / "model.json").read_text("utf-8"))
    content, why = _program_or_why(model)
    if content is None:
        with files.named(folder / NAME):
            (folder / NAME).unlink(missing_ok=True)
    else:
        files.write(folder / NAME, content)
    record |= {
        "written": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "versions": _versions(),
        "normalise": {
            "mean": model.normalise.mean.ravel().tolist(),
            "deviation": model.normalise.std.ravel().tolist(),
        },
        "exported": _about_program(model, record.get("maps", False), why),
    }
    if test is not None:
        record["test"] = dict(test)
    files.write(folder / README, _readme(model, record))
    files.write(folder / "model.json", json.dumps(record, indent=2) + "\n")


def program(model: Model) -> bytes:
    """Exports `predict_proba` by `jax.export`, for all `PLATFORMS` and any number of images.

    The program takes stored images `[b, ...]` and returns float32 `[b, K]`, or for label maps
    `[b, H, W, K]`.
    """

    def predict(images: jax.Array) -> jax.Array:
        logits = model.learner.predict(model.state, jax.vmap(model.normalise)(images)).logits
        return jax.nn.softmax(logits.astype(jnp.float32))

    (batch,) = export.symbolic_shape("b")
    images = jax.ShapeDtypeStruct((batch, *model.shape), model.dtype)
    with models.portable(True):
        return bytes(export.export(jax.jit(predict), platforms=PLATFORMS)(images).serialize())


def _program_or_why(model: Model) -> tuple[bytes | None, str]:
    if importlib.util.find_spec("flatbuffers") is None:
        return None, "flatbuffers is not installed: run pip install 'tavaal_jax[export]'"
    try:
        return program(model), ""
    except Exception as error:  # The network may be a user's own; the model is good without it.
        text = " ".join(str(error).split())[:200]
        return None, f"jax.export cannot write this network ({type(error).__name__}: {text})"


def _about_program(model: Model, has_maps: bool, why: str) -> dict[str, Any]:
    if why:
        return {"file": None, "why": why}
    images, classes = ", ".join(map(str, model.shape)), len(model.class_names)
    pixels = "H, W, " if has_maps else ""
    return {
        "file": NAME,
        "platforms": list(PLATFORMS),
        "images": f"{model.dtype} [b, {images}]",
        "probabilities": f"float32 [b, {pixels}{classes}]",
        "compatibility": (
            f"JAX promises to read it for six months after its version {jax.__version__}, and from"
            " 0.11.1 on refuses what is older; weights.npz is the form that lasts"
        ),
    }


def _versions() -> dict[str, str]:
    found = {}
    for name in ("tavaal_jax", "jax", "jaxlib", "flax", "numpy", "pillow"):
        # A clone that is not installed has no version.
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


# The README


def _readme(model: Model, record: Mapping[str, Any]) -> str:
    names = ", ".join(model.class_names[:_SHOWN])
    names += ", ..." if len(model.class_names) > _SHOWN else ""
    image = ", ".join(map(str, (1, *model.shape)))
    fields = {
        "count": len(model.class_names),
        "names": names,
        "labelled": model.labelled,
        "method": model.method,
        "written": record["written"],
        "ours": record["versions"].get("tavaal_jax", ""),
        "example": f"np.zeros(({image}), np.{model.dtype})",
        "images": f"{model.dtype} [n, {', '.join(map(str, model.shape))}]{_decoded(model.photos)}",
        "command": _COMMAND if model.photos is not None else "",
    }
    exported = {**record["exported"], **fields, "platforms": ", ".join(PLATFORMS)}
    alone = _ALONE if exported["file"] else _WITHOUT
    file = _FILE if exported["file"] else ""
    text = _README.format(**fields, file=file, alone=alone.format(**exported))
    return "".join(f"{textwrap.fill(x, 100) if len(x) > 100 else x}\n" for x in text.splitlines())


def _decoded(photos: Decoding | None) -> str:
    if photos is None:
        return ", as the training images were"
    how = {
        "stretch": "squeezed out of shape to",
        "crop": "the square in their middle resized to",
        "pad": "resized in shape, on black, to",
    }[photos.resize]
    deep = "0 and 65535 (floats: 0 and 1)"
    if photos.low_high:
        deep = " and ".join(f"{value:g}" for value in photos.low_high)
    colour = "RGB" if photos.channels == 3 else "grey"
    return (
        f": photos decoded by Pillow, turned as EXIF asks, on white where transparent, in {colour},"
        f" {how} {photos.size} x {photos.size} pixels (bilinear, antialiased); of 16 bits or floats"
        f" {deep} become 0 and 255"
    )


_README = """\
A model that tells {count} classes apart: {names}.
It was trained with {labelled} labels (method {method}) and written on {written}.

weights.npz        its weights, and mean and deviation of its images: the form that lasts
model.json         all else that is to be known of it
{file}
Images are {images}.
The code below runs in this folder.
{command}
In Python, with tavaal_jax {ours}:

    import numpy as np
    import tavaal_jax
    model = tavaal_jax.load_model(".")
    images = {example}  # yours
    print(model.class_names, model.predict_proba(images))

{alone}"""

_FILE = "predict.jaxexport  the same as a program that needs no tavaal_jax\n"

_COMMAND = """
A folder of photos:

    python -m tavaal_jax.predict --model=. --images=FOLDER --out=predictions.csv
"""

_ALONE = """\
In Python, with JAX alone (pip install jax flatbuffers), on {platforms}:

    import json, pathlib
    import numpy as np
    from jax import export
    names = json.loads(pathlib.Path("model.json").read_text("utf-8"))["class_names"]
    program = export.deserialize(bytearray(pathlib.Path("predict.jaxexport").read_bytes()))
    images = {example}  # yours
    print(names, program.call(images))

{compatibility}.
With tavaal_jax it can be written anew:

    import pathlib
    from tavaal_jax.study import export
    export.add_export(pathlib.Path("."))
"""

_WITHOUT = """\
There is no predict.jaxexport: {why}.
Then it can be written with

    import pathlib
    from tavaal_jax.study import export
    export.add_export(pathlib.Path("."))
"""
