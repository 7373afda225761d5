"""Multinomial logistic regression on fixed features, its regularisation chosen on L alone.

T's part of equation (2) is convex where T is one linear layer: it is solved here, not descended.
The bias is penalised like the weights of a feature that is 1 everywhere. A free one, with few
labels, learns how often each class happens to be among them.
"""

import functools
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax
from jax import lax

STRENGTHS = tuple(10.0 ** (exponent / 2) for exponent in range(-6, 4))
"""Values of C to choose from, weakest last; for features whose variance is 1 on average."""
FOLDS = 5
_DEFAULT = 7  # of STRENGTHS, where cross-validation says nothing: no class has two images
_MEMORY = 3  # pairs of steps and gradients that L-BFGS keeps; more save no step here
_MOST_STEPS = 500
_MOST_TRIES, _SHORTER = 5, 0.3  # of the line search, and what each next try is of the last
_AHEAD = 0.9  # of the way from the fit before the last one to it, that a fit begins beyond it
_CLOSE, _CLOSEST = 3e-3, 5e-4  # gradients at which fits of folds, and the last fit, are done
_DONE = -1  # instead of the number of values of C tried
_ROUNDING = 1e-6  # of the loss, within which float32 tells nothing
_NEVER = -1e9  # logit of a class without an example
_Carry = tuple[jax.Array, optax.OptState, jax.Array, jax.Array]


class Examples(NamedTuple):
    """Labelled features, padded to a length for which there is a program."""

    features: jax.Array
    """`[n, F]`, float32."""
    labels: jax.Array
    """`[n]`, int32; any class where the weight is 0."""
    weights: jax.Array
    """`[n]`, float32; 0 for padding."""


class Head(NamedTuple):
    """A linear classifier, logits `z @ kernel + bias`."""

    kernel: jax.Array
    """`[F, K]`"""
    bias: jax.Array
    """`[K]`"""


class Choice(NamedTuple):
    """What cross-validation has chosen, and how good it was on the images left out."""

    strength: jax.Array
    """C `[]`, scikit-learn's inverse regularisation."""
    loss: jax.Array
    """Mean log-loss `[]`, nats; infinite where no class has two images, as the accuracy is."""
    accuracy: jax.Array
    """`[]`"""


class _Problem(NamedTuple):
    """Examples along the principal axes of their features and the 1 of the bias."""

    coordinates: jax.Array
    """`[n, r]`"""
    labels: jax.Array
    moments: jax.Array
    """Mean square of the coordinates along each axis, `[r]`."""
    axes: jax.Array
    """`[F + 1, r]`, orthonormal."""


class _Search(NamedTuple):
    """State of the search for C: all folds, and all examples as a last one, side by side."""

    number: jax.Array
    """Values of C tried, `[]`."""
    rows: jax.Array
    """The newest fits, `[folds + 1, r, K]`."""
    before: jax.Array
    """Those with the value of C before, `[folds + 1, r, K]`."""
    fits: jax.Array
    """Fits of all examples, for each of `STRENGTHS`, `[strengths, r, K]`."""
    losses: jax.Array
    """Mean losses of the images left out, infinite if not tried, `[strengths]`, like the next."""
    accuracies: jax.Array
    errors: jax.Array
    """Standard errors of the losses."""


def fit(examples: Examples, classes: int) -> tuple[Head, Choice]:
    """Chooses C by cross-validation on the examples, then fits all of them.

    The criterion is the log-loss, which of few images tells more than the accuracy. A class without
    an example is treated as by `fit_with`.
    """
    with jax.default_matmul_precision("highest"), jax.numpy_dtype_promotion("standard"):
        problem, present = _problem(examples), _present(examples.labels, examples.weights, classes)
        found, choice = _cross_validate(problem, examples, classes)
        return _head(problem, found, examples.weights, present), choice


def fit_with(
    examples: Examples, classes: int, strength: jax.Array | float, close: float = _CLOSEST
) -> Head:
    """Minimises `C sum_i w_i l_i + (|kernel|^2 + |bias|^2) / 2` with C given.

    A class without an example gets a kernel of 0 and the bias -log(n + 1): as the logits of the
    others add up to 0, it is never predicted, and its probability is at most 1 / (n + 1).
    """
    with jax.default_matmul_precision("highest"), jax.numpy_dtype_promotion("standard"):
        problem, present = _problem(examples), _present(examples.labels, examples.weights, classes)
        start = jnp.zeros((problem.moments.shape[0], classes), jnp.float32)
        given = jnp.asarray(strength, jnp.float32)
        found = _solve(problem, examples.weights, present, given, start, close)
        return _head(problem, found, examples.weights, present)


def _present(labels: jax.Array, weights: jax.Array, classes: int) -> jax.Array:
    """Which classes have an example: bool `[K]`."""
    return jnp.zeros(classes, bool).at[labels].max(weights > 0)


def _problem(examples: Examples) -> _Problem:
    """Rotates the examples to the axes of their second moments.

    Examples that are fewer than half of the features span a space of their own, where the same
    solution costs less.
    """
    chex.assert_rank(examples, [2, 1, 1])
    weights, span = examples.weights, None
    rows = jnp.pad(examples.features, ((0, 0), (0, 1)), constant_values=1)
    rows = jnp.where(weights[:, None] > 0, rows, 0)
    if 2 * rows.shape[0] <= rows.shape[1]:
        span, triangle = jnp.linalg.qr(rows.T)
        rows = triangle.T
    moments = (rows * weights[:, None]).T @ rows / jnp.sum(weights)
    along, rotation = jnp.linalg.eigh(moments)
    axes = rotation if span is None else span @ rotation
    return _Problem(rows @ rotation, examples.labels, jnp.maximum(along, 0), axes)


def _head(problem: _Problem, found: jax.Array, weights: jax.Array, present: jax.Array) -> Head:
    """The classifier of the features, from one along their axes, `[r, K]`."""
    rows = jnp.where(present[None], problem.axes @ found, 0)
    never = -jnp.log1p(jnp.sum(weights > 0).astype(jnp.float32))
    return Head(rows[:-1], jnp.where(present, rows[-1], never))


def _logits(problem: _Problem, rows: jax.Array, present: jax.Array) -> jax.Array:
    """`rows [r, K] -> [n, K]`"""
    return jnp.where(present[None], problem.coordinates @ rows, _NEVER)


def _solve(
    problem: _Problem,
    weights: jax.Array,
    present: jax.Array,
    strength: jax.Array,
    start: jax.Array,
    close: jax.Array | float,
) -> jax.Array:
    """L-BFGS from `start [r, K]`, `-> [r, K]`; done at once where `close` is infinite.

    Each coefficient is scaled by its curvature at the start, with p (1 - p) of a class taken as
    its mean over the examples: one step size suits all. It also ends where the line search finds
    nothing lower, as float32 tells no smaller differences of the loss.
    """
    total = jnp.maximum(jnp.sum(weights), 1e-9)
    penalty = 1 / (strength * total)
    probability = jax.nn.softmax(_logits(problem, start, present))
    spread = weights @ (probability * (1 - probability)) / total
    scale = lax.rsqrt(jnp.outer(problem.moments, spread) + penalty)

    def objective(scaled: jax.Array) -> jax.Array:
        rows = scaled * scale
        logits = _logits(problem, rows, present)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, problem.labels)
        return weights @ losses / total + penalty / 2 * jnp.sum(jnp.square(rows))

    search = optax.scale_by_backtracking_linesearch(
        _MOST_TRIES, decrease_factor=_SHORTER, store_grad=True
    )
    optimiser = optax.lbfgs(memory_size=_MEMORY, linesearch=search)

    def step(carry: _Carry) -> _Carry:
        scaled, state, number, _ = carry
        # The search leaves those of the new point, with which the next step begins.
        value, gradient = (optax.tree.get(state[-1], name) for name in ("value", "grad"))
        update, state = optimiser.update(
            gradient, state, scaled, value=value, grad=gradient, value_fn=objective
        )
        norm = jnp.linalg.norm(optax.tree.get(state[-1], "grad"))
        error = optax.tree.get(state[-1], "decrease_error")
        is_rounding = (error > 0) & (error <= _ROUNDING * jnp.abs(value))
        norm = jnp.where(is_rounding, 0, norm)
        return scaled + update, state, number + 1, norm

    def goes_on(carry: _Carry) -> jax.Array:
        return (carry[3] > close) & (carry[2] < _MOST_STEPS)

    scaled = start / scale
    value, gradient = jax.value_and_grad(objective)(scaled)
    state = optax.tree.set(optimiser.init(scaled), value=value, grad=gradient)
    first = scaled, state, jnp.int32(0), jnp.float32(jnp.inf)
    scaled, _, _, _ = lax.while_loop(goes_on, step, first)
    return scaled * scale


def _cross_validate(
    problem: _Problem, examples: Examples, classes: int
) -> tuple[jax.Array, Choice]:
    """Fit of all examples `[r, K]` with the C of `_chosen`, and that.

    C goes up, each fit begins where the two before it lead to, and the search ends after two values
    that were worse than the best. A class that a fold's fit has not seen does not count.
    """
    weights, labels = examples.weights, examples.labels
    folds = jnp.arange(FOLDS + 1)[:, None]  # The last one leaves nothing out.
    parts = jnp.where(_fold_numbers(examples, classes)[None] == folds, 0, weights[None])
    seen = jax.vmap(lambda part: _present(labels, part, classes))(parts)
    judged = jnp.where(seen[:, labels], weights[None] - parts, 0)
    is_whole = jnp.arange(FOLDS + 1) == FOLDS
    solve = jax.vmap(functools.partial(_solve, problem), (0, 0, None, 0, 0))
    strengths = jnp.asarray(STRENGTHS, jnp.float32)

    def judge(rows: jax.Array, seen: jax.Array) -> tuple[jax.Array, jax.Array]:
        logits = _logits(problem, rows, seen)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return losses, (jnp.argmax(logits, -1) == labels).astype(jnp.float32)

    def mean(values: jax.Array) -> jax.Array:
        return jnp.sum(judged * values) / jnp.sum(judged)

    def attempt(search: _Search) -> _Search:
        """Tries the next C; at last fits all examples, with the chosen one, to the end."""
        tried = search.number
        since = tried - 1 - jnp.argmin(search.losses)
        last = (tried == len(STRENGTHS)) | ((tried > 0) & (since == 2))
        number = jnp.where(last, _chosen(search), tried)
        ahead = jnp.where(tried > 1, _AHEAD, 0) * (search.rows - search.before)
        start = jnp.where(last, search.fits[number][None], search.rows + ahead)
        close = jnp.where(last, jnp.where(is_whole, _CLOSEST, jnp.inf), _CLOSE)
        rows = solve(parts, seen, strengths[number], start, close)
        losses, right = jax.vmap(judge)(rows, seen)
        loss = mean(losses)
        error = jnp.sqrt(mean(jnp.square(losses - loss)) / jnp.sum(judged > 0))
        put = lambda values, new: jnp.where(last, values, values.at[number].set(new))
        return _Search(
            jnp.where(last, _DONE, tried + 1),
            rows,
            search.rows,
            search.fits.at[number].set(rows[-1]),
            put(search.losses, loss),
            put(search.accuracies, mean(right)),
            put(search.errors, error),
        )

    zeros = lambda count: jnp.zeros((count, problem.moments.shape[0], classes), jnp.float32)
    infinite = jnp.full(len(STRENGTHS), jnp.inf)
    # Without an image to judge by there is no search.
    number = jnp.where(jnp.any(judged > 0), 0, len(STRENGTHS))
    fits = (zeros(FOLDS + 1), zeros(FOLDS + 1), zeros(len(STRENGTHS)))
    first = _Search(number, *fits, infinite, infinite, infinite)
    end = lax.while_loop(lambda search: search.number != _DONE, attempt, first)
    number = _chosen(end)
    choice = Choice(strengths[number], end.losses[number], end.accuracies[number])
    return end.fits[number], choice


def _chosen(search: _Search) -> jax.Array:
    """Number of the strongest regularisation whose loss is half a standard error from the least.

    The loss punishes a classifier for being too certain before its accuracy falls, and the accuracy
    is best, if by little, where regularisation is stronger than the least loss says.
    """
    best = jnp.argmin(search.losses)
    enough = search.losses <= search.losses[best] + search.errors[best] / 2
    return jnp.where(jnp.isfinite(search.losses[best]), jnp.argmax(enough), _DEFAULT)


def _fold_numbers(examples: Examples, classes: int) -> jax.Array:
    """Fold of each example `[n]`: those of a class are dealt out in turn."""
    order = jnp.argsort(jnp.where(examples.weights > 0, examples.labels, classes), stable=True)
    return jnp.zeros_like(order).at[order].set(jnp.arange(order.shape[0]) % FOLDS)
