"""Whether a method, ours or one added from outside, does what `Method` documents.

`check_shapes` computes nothing and starts no device: those may belong to workers.
"""

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from tavaal_jax import config as configs
from tavaal_jax.algorithm.adversary_like import AdversaryLike
from tavaal_jax.algorithm.learner import Learner, MissingComponent
from tavaal_jax.algorithm.methods import Method
from tavaal_jax.algorithm.picks import Labelled
from tavaal_jax.algorithm.problems import Classification, Problem, Segmentation
from tavaal_jax.algorithm.state import AdversaryVariables, ArrayTree, PoolBatch
from tavaal_jax.algorithm.values import View
from tavaal_jax.engine import components
from tavaal_jax.errors import UserError
from tavaal_jax.models import portable
from tavaal_jax.study import setup

_BATCH, _POOL, _LABELLED = 8, 9, 5
_FIELDS = {
    "value": "take (view, key) and compute with jax.numpy on one image",
    "pick": "take (values, count, key, labelled=None), NumPy arrays of the whole subset",
    "ranking_loss": "take R(x) [B] and task losses [B], for label maps pair weights [B/2], too",
    "adversary": "take (config, problem, shape, axis_name) and return what AdversaryLike lists",
}
_ADVERSARY = ("condition_of", "initial_condition", "init", "step", "score")


def check_method(
    row: Method,
    config: ConfigDict | None = None,
    shape: tuple[int, ...] = (32, 32, 3),
    classes: int = 10,
) -> None:
    """Try a row of `METHODS` on random inputs; raises UserError, in one line, for its first fault.

    Value and adversary are traced with the networks of `config` (None: the default one) for images
    or features of `shape`; ranking loss and pick are computed on a few random numbers. Nothing is
    trained. What the row's own functions raise is the error's cause.
    """
    config = configs.default() if config is None else config
    try:
        thumbnail = setup.thumbnail_size(config, shape)
        values = check_shapes(config, row, shape, Classification.of(config, classes), thumbnail)
        with _raised_by("ranking_loss"):
            _check_gradient(row)
        with _raised_by("pick"):
            _check_pick(row, values)
    except UserError as error:
        raise UserError(f"method {row.name!r} cannot be used, {error}") from error.__cause__


def check_shapes(
    config: ConfigDict, row: Method, shape: tuple[int, ...], problem: Problem, thumbnail: int
) -> ArrayTree:
    """Shapes of a row's values for some images; UserError for wrong ones, or of anything it does.

    `thumbnail` is the side of what the VAE sees of larger images, else 0.
    """
    for field, mend in _FIELDS.items():
        function = getattr(row, field)
        if not callable(function) and (field in ("value", "pick") or function is not None):
            raise UserError(f"its {field} is {function!r}, no function: {mend}")
    with portable(True):
        with _raised_by("ranking_loss"):
            _check_loss(row, isinstance(problem, Segmentation))
        with _raised_by("adversary"):
            made = components.build(config, row, shape, problem)
            networks = _Networks(made.learner, None, config, shape, problem, thumbnail)
            if row.adversary is not None:
                adversary = row.adversary(config, problem, shape, None)
                networks = networks._replace(adversary=adversary)
                _check_adversary(networks, adversary)
        with _raised_by("value"):
            return _values(row, networks)


@contextlib.contextmanager
def _raised_by(field: str) -> Iterator[None]:
    """Turns whatever a field's function raises into a UserError."""
    try:
        yield
    except UserError:
        raise
    except MissingComponent as error:
        raise UserError(str(error)) from error
    except Exception as error:
        reason = (str(error).strip() or "no message").splitlines()[0]
        raise UserError(
            f"its {field} raises {type(error).__name__} ({reason}): {_FIELDS[field]}"
        ) from error


class _Networks(NamedTuple):
    """Networks of a row, and what they are built for."""

    learner: Learner
    adversary: AdversaryLike | None
    config: ConfigDict
    shape: tuple[int, ...]
    problem: Problem
    thumbnail: int

    def images(self, count: int) -> jax.ShapeDtypeStruct:
        """Images that T sees, `[count, ...]`."""
        return _like(count, *self.shape)

    def thumbnails(self, count: int) -> jax.ShapeDtypeStruct | None:
        """Images that the VAE sees in their place; None: the same."""
        side = self.thumbnail
        return _like(count, side, side, self.shape[-1]) if side else None


def _like(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def _keys(count: int) -> jax.Array:
    keys: jax.Array = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), count))
    return keys


def _text(tree: object) -> str:
    """Types and shapes of a tree's arrays, as in "float32[8, 1]"."""
    leaves = jax.tree.leaves(tree)
    text = ", ".join(
        f"{x.dtype}{list(x.shape)}" if hasattr(x, "dtype") else type(x).__name__ for x in leaves
    )
    return text or "nothing"


def _alike(one: object, other: object) -> bool:
    """Whether two trees have the same structure, and arrays of the same shapes and types."""
    same = str(jax.tree.structure(one)) == str(jax.tree.structure(other))
    return same and _text(one) == _text(other)


def _check_loss(row: Method, maps: bool) -> None:
    if row.ranking_loss is None:
        return
    one = _like(_BATCH)
    loss = jax.eval_shape(row.ranking_loss, one, one, *([_like(_BATCH // 2)] if maps else []))
    if _text(loss) != "float32[]":
        raise UserError(
            f"its ranking_loss returns {_text(loss)} for R(x) and losses {_text(one)}: return a"
            " scalar, their mean loss, float32[]"
        )


def _check_gradient(row: Method) -> None:
    if row.ranking_loss is None:
        return
    predicted, losses = np.random.default_rng(0).random((2, _BATCH), np.float32)
    into_predicted, into_losses = jax.grad(row.ranking_loss, (0, 1))(predicted, losses)
    if np.any(into_losses):
        raise UserError(
            "its ranking_loss has a gradient into the task losses, so T would be trained by it:"
            " use jax.lax.stop_gradient(losses)"
        )
    if not np.isfinite(into_predicted).all() or not np.any(into_predicted):
        raise UserError(
            f"its ranking_loss has the gradient {into_predicted[0]:.3g} into R(x), from which the"
            " Ranker learns nothing: return a differentiable function of R(x)"
        )


def _check_adversary(networks: _Networks, adversary: AdversaryLike) -> None:
    name = f"its adversary, of class {type(adversary).__name__}"
    lacks = [part for part in _ADVERSARY if not hasattr(adversary, part)]
    if lacks:
        raise UserError(f"{name}, has no {lacks[0]}: give it {', '.join(_ADVERSARY)}")
    key = _keys(1)
    init = lambda keys, images: adversary.init(keys[0], images, 0)
    state = jax.eval_shape(init, key, networks.images(1))
    if not jax.tree.leaves(state):
        raise UserError(f"{name}, has an init that returns no arrays: return all its weights")
    condition = _condition(networks, adversary, name)
    labels = jax.ShapeDtypeStruct((_BATCH,), jnp.int32)
    if isinstance(networks.problem, Segmentation):
        labels = jax.ShapeDtypeStruct((_BATCH, networks.problem.classes), jnp.int32)
    seen = networks.thumbnails(_BATCH) or networks.images(_BATCH)

    def step(state: AdversaryVariables, *half: jax.Array) -> object:
        return adversary.step(state, PoolBatch(*half), PoolBatch(*half))

    found = jax.eval_shape(step, state, seen, condition, _keys(_BATCH), labels)
    if not isinstance(found, tuple) or len(found) != 2 or not isinstance(found[1], dict):
        raise UserError(f"{name}, has a step that returns {_text(found)}: return (state, metrics)")
    after, metrics = found
    if not _alike(after, state):
        raise UserError(
            f"{name}, has a step that changes the shapes of its state: return as {_text(state)}"
        )
    for metric, value in metrics.items():
        if value.shape:
            raise UserError(f"{name}, has the metric {metric} {_text(value)}: give its mean")
    score = jax.eval_shape(adversary.score, state, seen, condition)
    if _text(score) != f"float32[{_BATCH}]":
        raise UserError(
            f"{name}, scores {_BATCH} images by {_text(score)}: return float32[{_BATCH}]"
        )


def _condition(networks: _Networks, adversary: AdversaryLike, name: str) -> ArrayTree:
    """Shapes of the condition on a batch."""
    if adversary.condition_of is None:
        return None
    condition_of, learner, images = adversary.condition_of, networks.learner, networks.images(1)
    state = jax.eval_shape(lambda keys, images: learner.init(keys[0], images), _keys(1), images)
    infer = lambda state, images: condition_of(learner.infer(state, images))
    found = jax.eval_shape(infer, state, networks.images(_BATCH))
    if any(x.shape[:1] != (_BATCH,) for x in jax.tree.leaves(found)):
        raise UserError(
            f"{name}, has a condition {_text(found)} for {_BATCH} images: return arrays with one"
            " row per image"
        )
    first = jax.eval_shape(adversary.initial_condition, _keys(_BATCH))
    if not _alike(first, found):
        raise UserError(
            f"{name}, has an initial_condition {_text(first)}: return, as condition_of does,"
            f" {_text(found)}"
        )
    return found


def _values(row: Method, networks: _Networks) -> ArrayTree:
    """Shapes of the values of some images, each leaf `[_POOL, ...]`."""
    learner, adversary, config = networks.learner, networks.adversary, networks.config

    def of_pool(images: jax.Array, thumbnails: jax.Array | None, keys: jax.Array) -> ArrayTree:
        blank = jnp.zeros((1, *networks.shape), jnp.float32)
        state = learner.init(keys[0], blank)
        variables = None if adversary is None else adversary.init(keys[0], blank)

        def of_image(image: jax.Array, thumbnail: jax.Array | None, key: jax.Array) -> ArrayTree:
            output = learner.infer(state, image[None])
            condition = None
            if adversary is not None and adversary.condition_of is not None:
                condition = adversary.condition_of(output)
            predicted, condition = jax.tree.map(lambda x: x[0], (output.predicted, condition))
            dropout = config.mc_dropout
            view = View(
                image, learner, state, adversary, variables, predicted, condition,
                dropout.passes, dropout.measure, thumbnail,
            )  # fmt: skip
            return row.value(view, key)

        return jax.vmap(of_image)(images, thumbnails, keys)

    inputs = networks.images(_POOL), networks.thumbnails(_POOL), _keys(_POOL)
    found: ArrayTree = jax.eval_shape(of_pool, *inputs)
    if not jax.tree.leaves(found):
        raise UserError("its value returns nothing: return a number, an array or a tree of arrays")
    return found


def _check_pick(row: Method, shapes: ArrayTree) -> None:
    """Picks from random and from equal values."""
    random = np.random.default_rng(0)

    def drawn(count: int) -> ArrayTree:
        values: ArrayTree = jax.tree.map(
            lambda x: random.random((count, *x.shape[1:])).astype(x.dtype), shapes
        )
        return values

    pool, labelled = drawn(_POOL), drawn(_LABELLED) if row.compares else None
    if row.sees_labels:
        labelled = Labelled(labelled, np.arange(_LABELLED, dtype=np.int32) % 2)
    equal = jax.tree.map(lambda x: np.repeat(x[:1], len(x), 0), pool)
    cases = [("different", pool, labelled), ("equal", equal, labelled)]
    if not row.needs_labels:
        cases.append(("unlabelled", pool, None))
    for count in (1, 4, _POOL):
        for kind, values, known in cases:
            call = lambda values=values, count=count, known=known: row.pick(
                values, count, jax.random.key(0), known
            )
            _check_picks(call(), count, f"its pick of {count} among {_POOL} {kind} values")
            if any(np.any(x != y) for x, y in zip(call(), call(), strict=True)):
                raise UserError(
                    f"its pick of {count} among {_POOL} {kind} values differs from call to call:"
                    " draw from its key, or a continued trial would pick other images"
                )


def _check_picks(found: object, count: int, name: str) -> None:
    if not isinstance(found, tuple) or len(found) != 2:
        raise UserError(f"{name} returns {_text(found)}: return (positions, scores)")
    positions, scores = map(np.asarray, found)
    if positions.shape != (count,) or scores.shape != (count,):
        raise UserError(
            f"{name} returns {positions.shape} positions and {scores.shape} scores: return"
            f" ({count},) of both"
        )
    if positions.dtype.kind not in "iu" or positions.min() < 0 or positions.max() >= _POOL:
        raise UserError(
            f"{name} has the position {positions.max()}: return integers from 0 to {_POOL - 1}"
        )
    if len(set(positions.tolist())) < count:
        raise UserError(f"{name} has a position twice: pick each image once")
    if not np.isfinite(scores).all():
        raise UserError(f"{name} has a score that is not finite: return finite ones")
