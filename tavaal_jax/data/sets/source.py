"""DataSource, the rows of `SETS`: how a data set that a config names is loaded."""

import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from ml_collections import ConfigDict

from tavaal_jax.data import cache
from tavaal_jax.data.cache import New
from tavaal_jax.data.dataset import Dataset
from tavaal_jax.data.pool import StoredArray


class DataFacts(NamedTuple):
    """Size, classes and shape of a data set before it is loaded, from the config or a listing."""

    train_size: int
    """N before any imbalance; where only loading shows it, the largest it can be."""
    classes: int
    """K; where only loading shows it, the smallest it can be."""
    shape: tuple[int, ...]
    """Shape of an image, `(H, W, C)`, or of features, `(F,)`."""
    has_maps: bool = False
    """Whether a label is a map of a class per pixel."""


class Reader(Protocol):
    """Fills arrays named as the fields of `Dataset`, and `class_names`: see `cache.New`."""

    def __call__(self, config: ConfigDict, new: New) -> None: ...  # noqa: D102


def _always(config: ConfigDict) -> bool:
    del config
    return True


class DataSource(NamedTuple):
    """A row of `SETS`: how a data set that a config names is loaded.

    `tavaal_jax.SETS["mine"] = DataSource(load)` is all that one of your own needs. Worker processes
    load it again, so `load` gives the same arrays each time.
    """

    load: Callable[[ConfigDict], Dataset]
    """The data set, without any imbalance. UserError where it can neither be found nor be had."""
    facts: DataFacts | Callable[[ConfigDict], DataFacts] | None = None
    """Checked before anything is loaded; None: found by loading it, which is then done twice.

    A function also raises UserError for what this source cannot do with the config.
    """
    is_at_hand: Callable[[ConfigDict], bool] = _always
    """Whether `load` only reads what is there: no download, no decoding. Figures need that."""
    fingerprint: Callable[[ConfigDict], str] | None = None
    """Digest of files whose folder a config may change: a study is not continued on others."""
    has_statistics: bool = False
    """Whether image statistics are computed once and kept: for large images with maps, in files."""


def embedded(read: Reader, facts: DataFacts) -> DataSource:
    """A source that comes with an installed package: no download, no cache."""
    return DataSource(functools.partial(_load_embedded, read), facts)


def _load_embedded(read: Reader, config: ConfigDict) -> Dataset:
    return from_arrays(config, cache.in_memory(lambda new: read(config, new)))


def cached(read: Reader, facts: DataFacts) -> DataSource:
    """A source that is decoded once, into a cache of the data set's name."""
    return DataSource(functools.partial(_load_cached, read), facts, _is_cached)


def _load_cached(read: Reader, config: ConfigDict) -> Dataset:
    folder = cache.folder(config.data_dir, config.dataset)
    return from_arrays(config, cache.load_or_make(folder, lambda new: read(config, new)))


def _is_cached(config: ConfigDict) -> bool:
    return cache.folder(config.data_dir, config.dataset).exists()


def from_arrays(config: ConfigDict, arrays: Mapping[str, StoredArray]) -> Dataset:
    """A data set of the config's name from arrays named as its fields."""
    names = tuple(str(name) for name in arrays["class_names"][:])
    fields = {name: array for name, array in arrays.items() if name != "class_names"}
    return Dataset(config.dataset, class_names=names, **fields)  # type: ignore[arg-type]
