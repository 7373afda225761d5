"""Examples, labels and candidates as users of a Learner give them, checked and as arrays."""

import textwrap
from typing import NamedTuple

import numpy as np
import scipy.sparse
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_array, column_or_1d, validate_data

from tavaal_jax.data import arrays
from tavaal_jax.errors import UserError


class Labels(NamedTuple):
    """The labels of N examples, K classes among them."""

    known: np.ndarray
    """Which examples have a label, bool `[N]`."""
    codes: np.ndarray
    """Position of each label in `classes`, -1 where there is none, int32 `[N]`."""
    classes: np.ndarray
    """The different labels, sorted, `[K]`."""


def examples(X: ArrayLike, learner: BaseEstimator, is_training: bool = False) -> np.ndarray:
    """`X` as an array: features float32 `[N, F]`, or anything of more axes as it is.

    Unless `is_training`, features must be as many, and have the same names, as those that `learner`
    was fitted on. Raises UserError, and for sparse matrices and objects that are no numbers the
    TypeError of scikit-learn.
    """
    if scipy.sparse.issparse(X):
        _validated(X, learner, is_training)  # Raises.
    array = arrays.plain(X, "X")
    if array.ndim > 2:
        return array
    if array.ndim < 2:
        raise UserError(
            f"X has shape {array.shape}: give features [N, F] or uint8 images [N, H, W, C]."
            " Reshape your data, a single example is X[None]"
        )
    if np.iscomplexobj(array):
        raise UserError("X is complex. Complex data not supported: give real numbers")
    is_frame = hasattr(X, "columns")  # Its columns have names, which scikit-learn compares.
    found = _validated(X if is_frame else array, learner, is_training)
    features = arrays.features(found, "X")
    if is_training:
        arrays.check_precision(found, "X")
    return features


def images(array: np.ndarray) -> np.ndarray:
    """Images with an axis of channels, `[N, H, W, C]`; UserError for what is no uint8."""
    if array.dtype != np.uint8:
        raise UserError(f"X is {array.dtype} {array.shape}: give uint8 images, as for fit")
    return arrays.with_channels(array, "X")


def _validated(X: ArrayLike, learner: BaseEstimator, is_training: bool) -> np.ndarray:
    """Features `[N, F]` as scikit-learn checks them; those of a data frame are numbers, too."""
    try:
        if is_training:
            found = check_array(X, estimator=learner, input_name="X", ensure_all_finite=False)
        else:
            found = validate_data(learner, X, reset=False, ensure_all_finite=False)
    except ValueError as error:
        raise UserError(textwrap.shorten(str(error), 300)) from error
    except TypeError as error:
        if not hasattr(X, "columns"):
            raise
        reason = textwrap.shorten(str(error), 80)
        raise UserError(f"columns of X are no numbers ({reason}): leave them out") from error
    return np.asarray(found)


def labels(y: ArrayLike | None, count: int, missing: object) -> Labels:
    """The labels of `count` examples, `missing` where there is none; UserError for what is none."""
    if y is None:
        raise UserError(
            "Learner requires y to be passed, but the target y is None: give a label for each"
            " example, missing_label where it is unknown"
        )
    if getattr(getattr(y, "dtype", None), "kind", "") in ("m", "M"):
        raise UserError("y holds dates or times: give texts or whole numbers, None where unknown")
    given = np.asarray(y, dtype=object)
    if given.ndim == 2 and given.shape[1] == 1:
        given = column_or_1d(given, dtype=object, warn=True)
    if given.ndim != 1:
        raise UserError(f"y has shape {given.shape}: give a label for each example, [N]")
    if len(given) != count:
        raise UserError(f"y has {len(given)} labels and X {count} examples: give a label for each")
    known = np.array([not _is_missing(label, missing) for label in given], bool)
    if isinstance(y, np.ma.MaskedArray):
        known &= ~np.ma.getmaskarray(y).ravel()
    texts = [isinstance(label, str) for label in given[known]]
    if any(texts) and (
        not all(texts) or (_is_missing(np.nan, missing) and "nan" in given[known].tolist())
    ):
        raise UserError(
            "y mixes texts with other labels, or with nan, which is a text among them: give"
            " one kind, and missing labels as None in an array of dtype=object"
        )
    try:
        classes, numbers = np.unique(np.array(given[known].tolist()), return_inverse=True)
    except TypeError as error:
        raise UserError(f"y mixes labels that do not sort ({error}): give one kind") from error
    if classes.dtype.kind == "f":  # Of whole numbers, too, where nan is among them.
        classes = _whole(classes)
    codes = np.full(count, -1, np.int32)
    codes[known] = numbers
    return Labels(known, codes, classes)


def require_two_classes(found: Labels) -> None:
    """Raises UserError unless there are labels of two classes."""
    number, classes = int(found.known.sum()), len(found.classes)
    if classes < 2:
        noun = "class" if classes == 1 else "classes"
        raise UserError(
            f"y has {number} labels of {classes} {noun}: label examples of two classes or more"
        )


def candidates(given: ArrayLike | None, known: np.ndarray) -> np.ndarray:
    """Which of the examples may be picked, bool `[N]`: of those `given` the ones not `known`."""
    if given is None:
        return ~known
    if np.ma.is_masked(given):
        raise UserError("candidates are masked: give indices, or a mask [N], without a mask")
    array = np.asarray(given)
    size = len(known)
    if array.shape == (size,) and size > 2 and array.dtype.kind in "iu" and array.max() <= 1:
        raise UserError(
            f"candidates are {size} whole numbers 0 and 1: give .astype(bool) for a mask, or"
            " different indices"
        )
    free = np.zeros(size, bool)
    try:
        if array.ndim != 1 or (array.size and array.dtype.kind not in "biu"):
            raise TypeError("these are none")
        free[array.astype(bool if array.dtype.kind == "b" else np.int64)] = True
    except (IndexError, ValueError, TypeError) as error:
        raise UserError(
            f"candidates are {array.dtype} {array.shape} ({error}): give indices of images, or"
            " a mask [N]"
        ) from error
    return free & ~known


def check_free(free: np.ndarray, given: ArrayLike | None, y: ArrayLike, missing: object) -> None:
    """Raises UserError, with what `y` has instead of `missing`, where no example may be picked."""
    if free.any():
        return
    if given is not None:
        raise UserError(f"none of the {np.size(given)} candidates is unlabelled: give others")
    numbers = np.asarray(y, dtype=object).ravel()
    minus = sum(isinstance(label, int | float | np.number) and label == -1 for label in numbers)
    guess = f" (y has {minus} times -1: is missing_label=-1 meant?)" if minus else ""
    raise UserError(
        f"all {len(free)} labels of y are known, so there is nothing to ask for: mark the unknown"
        f" ones by missing_label, which is {missing}{guess}"
    )


def is_whole(value: object) -> bool:
    """Whether a value is a whole number, Python's or numpy's, and no truth value."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _whole(classes: np.ndarray) -> np.ndarray:
    """Labels that are floats as whole numbers `[K]`; UserError for others."""
    if not np.isfinite(classes).all():
        raise UserError(f"y has the label {classes[-1]}: give finite numbers, or texts")
    fraction = classes[classes != np.round(classes)]
    if len(fraction):
        raise UserError(
            f"Unknown label type: y has the continuous value {fraction[0]}: give whole numbers, or"
            " texts, as classes"
        )
    return classes.astype(np.int64)


def _is_missing(label: object, missing: object) -> bool:
    if missing is None:
        return _is_na(label)
    if _is_nan(missing) or _is_na(missing):
        return _is_na(label) or _is_nan(label)
    try:
        return bool(label == missing)
    except (TypeError, ValueError):  # NA compares as neither.
        return False


def _is_na(value: object) -> bool:
    """Whether a value is None, or NA or NaT of pandas, which need not be installed."""
    return value is None or type(value).__name__ in ("NAType", "NaTType")


def _is_nan(value: object) -> bool:
    return isinstance(value, float | np.floating) and bool(np.isnan(value))
