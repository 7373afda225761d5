"""Arrays as users give them: what `np.asarray` would change without a word is refused."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from tavaal_jax.data.pool import parts
from tavaal_jax.errors import UserError


def plain(given: npt.ArrayLike, name: str) -> np.ndarray:
    """`given` as an array without a mask; UserError for masked values, dates, and what is none."""
    check_unmasked(given, name)
    try:
        array = np.asarray(given)
    except (ValueError, TypeError, RuntimeError) as error:
        raise UserError(
            f"no array can be made of {name} ({' '.join(str(error).split())}): give a NumPy array,"
            " all examples of the same shape"
        ) from error
    if array.dtype.kind in "mM":
        raise UserError(
            f"{name} of type {array.dtype}: give numbers, such as the days since the first"
        )
    return array


def check_unmasked(given: object, name: str) -> None:
    """Raises UserError where a value is masked, also in one of several arrays."""
    if isinstance(given, np.ma.MaskedArray) and np.ma.is_masked(given):
        mask = np.ma.getmaskarray(given)
        raise UserError(
            f"{mask.sum()} of {mask.size} values of {name} are masked: fill them in, or leave these"
            " examples out"
        )
    if isinstance(given, list | tuple):
        for number, one in enumerate(given):
            if isinstance(one, np.ma.MaskedArray):
                check_unmasked(one, f"{name}[{number}]")


def features(array: np.ndarray, name: str) -> np.ndarray:
    """Features as float32; UserError for what is not finite in it."""
    with np.errstate(over="ignore"):
        found = array.astype(np.float32)
    if not np.isfinite(found).all():
        raise UserError(
            f"{name} with NaN, infinity or what float32 cannot hold: give finite numbers, or leave"
            " such examples out"
        )
    return found


def check_precision(array: np.ndarray, name: str) -> None:
    """Raises UserError where float32 makes most of a column's values equal: features `[N, F]`."""
    if array.dtype.kind not in "fiu" or array.dtype.itemsize < 4 or not len(array):
        return
    low, high = array.min(0).astype(np.float64), array.max(0).astype(np.float64)
    # Only values that differ little for their size can fall together; columns are rarely like that.
    for column in np.flatnonzero((high > low) & (high - low < np.maximum(-low, high) / 64)):
        values = np.unique(array[:, column])
        left = len(np.unique(values.astype(np.float32)))
        if left < len(values) / 2:
            raise UserError(
                f"column {column} of {name} has {len(values)} different values, of which float32"
                f" tells {left} apart: subtract a constant, such as the least one"
            )


def with_channels(array: np.ndarray, name: str) -> np.ndarray:
    """Images `[N, H, W, C]` of such or of grey ones `[N, H, W]`.

    Raises UserError for a single image, and for images `[N, C, H, W]`.
    """
    if array.ndim == 3 and array.shape[-1] <= 4:
        raise UserError(
            f"{name} have shape {array.shape}, as a single image has: give [n, H, W, C], a single"
            f" image is {name}[None]"
        )
    check_layout(array.shape, name)
    return array[..., None] if array.ndim == 3 else array


def check_layout(shape: tuple[int, ...], name: str) -> None:
    """Raises UserError for images `[N, C, H, W]`, as other libraries have them."""
    if len(shape) == 4 and shape[1] <= 4 < min(shape[2:]):
        raise UserError(
            f"{name} have shape {shape}, which would be {shape[3]} channels of {shape[1]} x"
            f" {shape[2]} pixels: give [N, H, W, C], {name}.transpose(0, 2, 3, 1)"
        )


def images(given: npt.ArrayLike, name: str) -> np.ndarray:
    """Images uint8 `[N, H, W, C]` or features float32 `[N, F]`; UserError for anything else.

    Features that are mapped from a disk, float16 or float32, stay there as they are.
    """
    array = plain(given, name)
    if 0 in array.shape[1:]:
        raise UserError(f"{name} have shape {array.shape}: give images, or features, of some size")
    if array.dtype != np.uint8:
        if array.dtype.kind not in "fiub" or array.ndim != 2:
            raise UserError(
                f"{name} are {array.dtype} {array.shape}: give uint8 [N, H, W, C], or numbers"
                " [N, F]"
            )
        if _is_mapped(given) and array.dtype in (np.float16, np.float32):
            for part in parts(array):
                features(part, name)
            return _not_empty(array, name)
        found = features(array, name)
        check_precision(array, name)
        return _not_empty(found, name)
    check_layout(array.shape, name)
    if array.ndim == 3:
        array = array[..., None]
    return _not_empty(array.astype(np.float32) if array.ndim == 2 else array, name)


def _is_mapped(given: npt.ArrayLike) -> bool:
    """Whether an array lies in a file that nobody can change through it; copies of one do not."""
    return isinstance(given, np.memmap) and given.mode == "r"


def _not_empty(array: np.ndarray, name: str) -> np.ndarray:
    """The array; UserError where it is none of examples."""
    if array.ndim not in (2, 4) or not len(array):
        raise UserError(f"{name} have shape {array.shape}: give [N, H, W, C] or [N, F], N > 0")
    return array


def labels(given: npt.ArrayLike, images: np.ndarray, name: str, least: int) -> np.ndarray:
    """Labels of `images`, int32 `[N]` of `least` or more, or maps uint8 `[N, H, W]`."""
    if np.ma.is_masked(given):
        raise UserError(f"{name} are masked: give -1 to those that are unknown")
    array, count = plain(given, name), len(images)
    if array.ndim == 3 and images.ndim == 4:
        if array.shape != images.shape[:3] or array.dtype != np.uint8:
            raise UserError(
                f"{name} are {array.dtype} {array.shape}: give maps of the images' size, uint8"
                f" {list(images.shape[:3])}"
            )
        return array
    if array.shape != (count,) or array.dtype.kind not in "iu":
        raise UserError(f"{name} are {array.dtype} {array.shape}: give whole numbers [{count}]")
    if array.size and array.min() < least:
        raise UserError(f"{name} hold {array.min()}: give {least} or more")
    if array.size and array.max() >= 2**31:
        raise UserError(f"{name} hold {array.max()}: give less than {2**31}")
    return array.astype(np.int32)


def highest(labels: np.ndarray) -> int:
    """The highest class, -1 where there is none."""
    if labels.ndim != 3:
        return int(np.max(labels, initial=-1))
    # uint8 + 1 wraps IGNORED to 0.
    values = (int((part + np.uint8(1)).max()) for part in parts(labels))
    return max(values, default=0) - 1


def check_texts(texts: Iterable[str]) -> None:
    """Raises UserError for an id or class name that no text file can hold.

    Names of files that are not UTF-8 come as surrogates.
    """
    for text in texts:
        try:
            str(text).encode()
        except UnicodeEncodeError as error:
            raise UserError(
                f"{str(text)!r} is an id or class name that no file can hold: rename it"
            ) from error
