"""Export of a model for other people: programs that do without this package, and a README."""

import contextlib
import datetime
import functools
import importlib.metadata
import importlib.util
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax import export

from tavaal_jax import models
from tavaal_jax.engine import embedding
from tavaal_jax.errors import UserError
from tavaal_jax.report import files
from tavaal_jax.study import model_readme
from tavaal_jax.study.model import EXPORTED, Model, load_model

NAME, FEATURES, ONNX, README = EXPORTED
PLATFORMS = ("cpu", "cuda", "tpu")


def add_export(
    folder: pathlib.Path,
    test: Mapping[str, Any] | None = None,
    before: pathlib.Path | None = None,
) -> None:
    """Adds programs and `README.txt` to a folder written by `Model.save`.

    They are `predict.jaxexport`, with a backbone `features.jaxexport`, copied from the folder of
    the model `before` where that has the same, and `model.onnx`. `model.json` gets facts on all,
    and `test`, the model's measured quality. Where a program cannot be made the README gives the
    reason; UserError is raised for disk errors only.
    """
    model = load_model(folder)
    record = json.loads((folder / "model.json").read_text("utf-8"))
    makers: dict[str, Callable[[], bytes]] = {
        NAME: functools.partial(program, model), ONNX: model.to_onnx
    }  # fmt: skip
    if model.backbone is not None:
        makers[FEATURES] = lambda: _copied(model, before) or backbone_program(model)
    why: dict[str, str] = {}
    for name in (NAME, FEATURES, ONNX):
        made = _made_or_why(makers[name]) if name in makers else "the model has no backbone"
        if isinstance(made, bytes):
            files.write(folder / name, made)
        else:
            why[name] = made
            with files.named(folder / name):
                (folder / name).unlink(missing_ok=True)
    record |= {
        "written": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "versions": _versions(),
        "normalise": {
            "mean": model.normalise.mean.ravel().tolist(),
            "deviation": model.normalise.std.ravel().tolist(),
        },
        "exported": _about_programs(model, record.get("maps", False), why),
    }
    if test is not None:
        record["test"] = dict(test)
    files.write(folder / README, model_readme.text(model, record))
    files.write(folder / "model.json", json.dumps(record, indent=2) + "\n")


def program(model: Model) -> bytes:
    """Exports `predict_proba` by `jax.export`, for all `PLATFORMS` and any number of images.

    The program takes stored images `[b, ...]`, or features `[b, F]`, also a backbone's, and
    returns float32 `[b, K]`, or for label maps `[b, H, W, K]`.
    """
    return _exported(model.probabilities, model.shape, model.dtype)


def backbone_program(model: Model) -> bytes:
    """Exports a model's backbone: images uint8 `[b, S, S, 3]` of its size -> features `[b, F]`."""
    backbone = model.embedder.backbone

    def embed(images: jax.Array) -> jax.Array:
        return embedding.embed_images(backbone, backbone.variables, images)

    return _exported(embed, model.image_shape, model.image_dtype)


def _exported(
    function: Callable[[jax.Array], jax.Array], shape: tuple[int, ...], dtype: str
) -> bytes:
    if importlib.util.find_spec("flatbuffers") is None:
        raise UserError("flatbuffers is not installed: run pip install 'tavaal_jax[export]'")
    (batch,) = export.symbolic_shape("b")
    images = jax.ShapeDtypeStruct((batch, *shape), dtype)
    with models.portable(True):
        return bytes(export.export(jax.jit(function), platforms=PLATFORMS)(images).serialize())


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


def _made_or_why(make: Callable[[], bytes]) -> bytes | str:
    """A program, or the reason why there is none."""
    try:
        return make()
    except UserError as error:
        return str(error)
    except Exception as error:  # The network may be a user's own; the model is good without it.
        text = " ".join(str(error).split())[:200]
        return f"this network cannot be written ({type(error).__name__}: {text})"


def _about_programs(model: Model, has_maps: bool, why: Mapping[str, str]) -> dict[str, Any]:
    """What model.json has on them, by the file, or why there is none."""
    values, images = (", ".join(map(str, shape)) for shape in (model.shape, model.image_shape))
    pixels = "H, W, " if has_maps else ""
    probabilities = f"float32 [b, {pixels}{len(model.class_names)}]"
    record: dict[str, Any] = {
        "file": NAME,
        "platforms": list(PLATFORMS),
        "images": f"{model.dtype} [b, {values}]",
        "probabilities": probabilities,
        "compatibility": (
            f"JAX promises to read it for six months after its version {jax.__version__}, and from"
            " 0.11.1 on refuses what is older; weights.npz is the form that lasts"
        ),
    }
    features = {
        "file": FEATURES,
        "images": f"{model.image_dtype} [b, {images}]",
        "features": f"float32 [b, {values}]",
    }
    onnx = {"file": ONNX, "images": features["images"], "probabilities": probabilities}
    absent = {name: {"file": None, "why": reason} for name, reason in why.items()}
    record = absent.get(NAME, record)
    if model.backbone is not None:
        record["features"] = absent.get(FEATURES, features)
    return record | {"onnx": absent.get(ONNX, onnx)}


def _versions() -> dict[str, str]:
    found = {}
    for name in ("tavaal_jax", "jax", "jaxlib", "flax", "numpy", "pillow"):
        # A clone that is not installed has no version.
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found
