"""Checks that a network does what `TaskNetwork` documents; a fault is one line, a UserError.

`check_shapes` computes nothing and starts no device; `check_values` computes on four small images.
What the network's own code raises is raised as it is.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.errors import InvalidRngError

from tavaal_jax.errors import UserError
from tavaal_jax.models.layers import TaskOutput
from tavaal_jax.ops.convolution import portable

_BATCH = 4


class NetworkShapes(NamedTuple):
    """A network's size and what it returns for one image."""

    parameters: int
    """How many numbers are trained."""
    logits: tuple[int, ...]
    """`(K,)`, or `(H, W, K)` for label maps."""
    taps: tuple[tuple[int, ...], ...]
    """The Ranker's inputs, each `(H', W', C')` or `(C',)`."""
    embedding: int
    """E"""
    drops: bool
    """Whether it drops units when it is given dropout keys."""


class _Traced(NamedTuple):
    """A network with the shapes of its variables, of a batch and of one random key per image."""

    network: nn.Module
    variables: Mapping[str, Any]
    images: jax.ShapeDtypeStruct
    keys: jax.ShapeDtypeStruct


def check_shapes(
    network: nn.Module, shape: tuple[int, ...], classes: int, maps: bool
) -> NetworkShapes:
    """Shapes of what a network for images of `shape` returns; UserError for wrong ones.

    `network` is built for one device (no `axis_name`); `maps`: its logits are those of pixels.
    """
    parameters = inspect.signature(type(network).__call__).parameters
    for name in ("train", "dropout_keys"):
        if name not in parameters:
            raise UserError(f"its __call__ has no {name}: take (images, train, dropout_keys=None)")
    try:
        with portable(True):
            traced = _traced(network, shape)
            output = _evaluated(traced)
            _check_output(output, (*shape[:2], classes) if maps else (classes,))
            _check_training(traced, output)
            _check_head(traced, output, shape[:2])
            drops = _uses_keys(traced)
    except InvalidRngError as error:
        raise UserError(
            "it asks for a random stream of Flax's, as nn.Dropout does: drop units by"
            " tavaal_jax.models.dropout, with the dropout_keys of the call"
        ) from error
    count = sum(x.size for x in jax.tree.leaves(traced.variables["params"]))
    taps = tuple(tap.shape[1:] for tap in output.taps)
    return NetworkShapes(count, output.logits.shape[1:], taps, output.embedding.shape[1], drops)


def _traced(network: nn.Module, shape: tuple[int, ...]) -> _Traced:
    images = jax.ShapeDtypeStruct((_BATCH, *shape), jnp.float32)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), _BATCH))
    init = lambda images: network.init(jax.random.key(0), images, train=False)
    variables = jax.eval_shape(init, images)
    unknown = sorted(set(variables) - {"params", "batch_stats"})
    if unknown:
        raise UserError(
            f"it has the collection {unknown[0]!r}, which is not kept: use params, and batch_stats"
            " for running statistics"
        )
    if not variables.get("params"):
        raise UserError("it has no parameters to train: add a layer")
    for path, x in jax.tree_util.tree_leaves_with_path(variables):
        if x.dtype != jnp.float32:
            raise UserError(
                f"its variable {jax.tree_util.keystr(path)} is {x.dtype}: give float32, whatever"
                " the arithmetic's dtype is"
            )
    return _Traced(network, variables, images, keys)


def _evaluated(traced: _Traced) -> TaskOutput:
    """Shapes of its output in evaluation mode."""
    apply = functools.partial(traced.network.apply, train=False)
    output = jax.eval_shape(apply, traced.variables, traced.images)
    if not isinstance(output, TaskOutput):
        raise UserError(
            f"it returns a {type(output).__name__}: return"
            " tavaal_jax.TaskOutput(logits, taps, embedding)"
        )
    return output


def _check_output(output: TaskOutput, logits: tuple[int, ...]) -> None:
    wanted = f"float32{[_BATCH, *logits]}"
    if _signature(output.logits) != wanted:
        raise UserError(
            f"its logits are {_signature(output.logits)}: give {wanted} for {_BATCH} images"
        )
    if not isinstance(output.taps, tuple) or not output.taps:
        raise UserError("its taps are no tuple of one or more arrays: the Ranker looks at them")
    for number, tap in enumerate(output.taps):
        if not _is_batch(tap, 2, 4):
            raise UserError(
                f"its tap {number} is {_signature(tap)}: give maps [{_BATCH}, H, W, C] or features"
                f" [{_BATCH}, C] of floats for {_BATCH} images"
            )
    if not _is_batch(output.embedding, 2) or output.embedding.dtype != jnp.float32:
        raise UserError(
            f"its embedding is {_signature(output.embedding)}: give float32[{_BATCH}, E] for"
            f" {_BATCH} images"
        )


def _check_training(traced: _Traced, expected: TaskOutput) -> None:
    """Raises UserError where training, with or without dropout, gives other shapes."""
    apply = functools.partial(traced.network.apply, train=True, mutable=["batch_stats"])
    call = lambda variables, images, keys: apply(variables, images, dropout_keys=keys)
    for keys in (None, traced.keys):
        output, updated = jax.eval_shape(call, traced.variables, traced.images, keys)
        if _signatures(output) != _signatures(expected):
            how = "train=True" if keys is None else "dropout_keys"
            raise UserError(
                f"its output with {how} has other shapes or types than with train=False: give the"
                " same"
            )
        stats = traced.variables.get("batch_stats", {})
        if _signatures(updated.get("batch_stats", {})) != _signatures(stats):
            raise UserError(
                "its batch_stats have other shapes or types after a step than before: keep them"
            )


def _check_head(traced: _Traced, output: TaskOutput, size: tuple[int, ...]) -> None:
    """Raises UserError where `dropout` promises a `head` that does not give the logits."""
    dropout = getattr(traced.network, "dropout", None)
    if dropout is None or getattr(dropout, "place", None) != "head":
        return
    if output.features is None or not hasattr(traced.network, "head"):
        raise UserError(
            "its attribute dropout has the place 'head', and it lacks the method head or the"
            " features of its output: add both, or call the attribute by another name"
        )
    apply = functools.partial(traced.network.apply, method="head")
    call = lambda variables, features, keys: apply(variables, features, keys, size)
    found = jax.eval_shape(call, traced.variables, output.features, traced.keys)
    if _signature(found) != _signature(output.logits):
        raise UserError(
            f"its head gives {_signature(found)}: give its logits, {_signature(output.logits)}"
        )


def _uses_keys(traced: _Traced) -> bool:
    """Whether an operation of the evaluation takes the dropout keys."""
    apply = functools.partial(traced.network.apply, train=False)
    call = lambda keys, variables, images: apply(variables, images, dropout_keys=keys)
    program = jax.make_jaxpr(call)(traced.keys, traced.variables, traced.images).jaxpr
    return any(x is program.invars[0] for step in program.eqns for x in step.invars)


def _is_batch(x: object, *ranks: int) -> bool:
    """Whether it is an array of floats for all images, of one of the ranks."""
    if not isinstance(x, jax.ShapeDtypeStruct) or x.ndim not in ranks or x.shape[0] != _BATCH:
        return False
    return bool(jnp.issubdtype(x.dtype, jnp.floating))


def _signature(x: object) -> str:
    """Type and shape of an array: `float32[4, 10]`."""
    if isinstance(x, jax.ShapeDtypeStruct):
        return f"{x.dtype}{list(x.shape)}"
    return type(x).__name__


def _signatures(tree: object) -> object:
    return jax.tree.map(_signature, tree)


def check_values(
    build: Callable[[str | None], nn.Module], shape: tuple[int, ...], axis_name: str = "devices"
) -> None:
    """Raises UserError where an output depends on more of a batch than it may.

    `build` makes the network from an `axis_name`. In evaluation an output depends on its own image
    alone, and on its own key where units are dropped; in training on the whole batch, whatever
    devices it is divided among.
    """
    key = jax.random.key(0)
    images = jax.random.normal(key, (_BATCH, *shape), jnp.float32)
    with portable(True):  # Compiles faster.
        network = build(None)
        variables = jax.jit(functools.partial(network.init, train=False))(key, images[:1])
        _check_evaluation(network, variables, images)
        _check_division(network, build(axis_name), variables, images, axis_name)


def _check_evaluation(network: nn.Module, variables: Mapping[str, Any], images: jax.Array) -> None:
    """Raises UserError where an image's output changes with the rest of the batch."""
    apply = jax.jit(functools.partial(network.apply, train=False))
    keys, others = jax.random.split(jax.random.key(1), (2, _BATCH))
    for text, given in (("", False), (" and dropout_keys", True)):
        outputs = (
            apply(variables, x, dropout_keys=k.at[0].set(keys[0]) if given else None)
            for x, k in ((images, keys), (images.at[1:].multiply(-3), others))
        )
        if not _are_close(*(jax.tree.map(lambda x: x[0], output) for output in outputs)):
            mend = "draw from each image's own key" if given else "use running statistics"
            raise UserError(
                f"its output for an image depends on the other images of the batch with train=False"
                f"{text}: {mend}"
            )


def _check_division(
    network: nn.Module,
    shared: nn.Module,
    variables: Mapping[str, Any],
    images: jax.Array,
    axis_name: str,
) -> None:
    """Raises UserError where two halves of a batch are not trained on as one batch is."""

    def train(network: nn.Module, images: jax.Array) -> tuple[jax.Array, object]:
        output, updated = network.apply(variables, images, train=True, mutable=["batch_stats"])
        return output.logits, updated.get("batch_stats", {})

    logits, stats = jax.jit(functools.partial(train, network))(images)
    divided = jax.jit(jax.vmap(functools.partial(train, shared), axis_name=axis_name))
    halves, parts = divided(images.reshape(2, -1, *images.shape[1:]))
    first = jax.tree.map(lambda x: x[0], parts)
    if not _are_close((logits, stats), (halves.reshape(logits.shape), first)):
        raise UserError(
            "its training depends on how a batch is divided among devices: give axis_name to"
            " nn.BatchNorm, or to what else takes means of a batch"
        )


def _are_close(found: object, expected: object) -> bool:
    """Whether the arrays of two trees are equal but for rounding.

    Less than a millionth is rounding: the mean of a batch is zero where a BatchNorm went before.
    """
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    return all(
        np.allclose(x, y, rtol=1e-3, atol=1e-3 * float(np.abs(y).max(initial=1e-3)))
        for x, y in ((np.asarray(a, np.float32), np.asarray(b, np.float32)) for a, b in pairs)
    )
