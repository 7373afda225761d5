"""The pool in two dimensions: principal components at once, t-SNE by scikit-learn."""

import numpy as np

from tavaal_jax.errors import UserError

_ROWS = 4096  # that are in float32 at once
_SAMPLE = 2**14  # rows that the axes of larger pools are taken from
_WIDE, _FEW = 2**11, 2**10  # of features wider than that, as pixels are, so few rows
_INPUTS = 50  # principal components that t-SNE is given
_PERPLEXITY = 30
_SMALL = 1e-20


def components(features: np.ndarray, count: int) -> np.ndarray:
    """Coordinates along the `count` first principal axes: `[N, F] -> [N, count]`, float32.

    The largest entry of an axis is positive. Axes of more than 2^14 images, or 2^10 where F is
    above 2^11, are those of as many, evenly spaced. Where there are fewer axes, the last
    coordinates are 0. No memory of F times F is needed where there are fewer images than that.
    """
    (size, width), found = features.shape, np.zeros((len(features), count), np.float32)
    if not size:
        return found
    most = _FEW if width > _WIDE else _SAMPLE
    sample = np.linspace(0, size - 1, min(size, most)).astype(int)
    parts = lambda rows: (rows[i : i + _ROWS] for i in range(0, len(rows), _ROWS))
    read = lambda rows: np.asarray(features[rows], np.float32)
    mean = sum(read(rows).sum(0, dtype=np.float64) for rows in parts(sample)) / len(sample)
    centred = lambda rows: read(rows) - mean.astype(np.float32)
    kept = min(count, max(len(sample) - 1, 1))
    last = lambda moments: np.linalg.eigh(moments)[1][:, ::-1][:, :kept]
    if len(sample) < width:
        some = centred(sample).astype(np.float64)
        axes = some.T @ last(some @ some.T)
        axes /= np.maximum(np.linalg.norm(axes, axis=0), _SMALL)
    else:
        axes = last(sum((x.T @ x).astype(np.float64) for x in map(centred, parts(sample))))
    largest = np.take_along_axis(axes, np.abs(axes).argmax(0)[None], 0)
    axes = (axes * np.where(largest < 0, -1, 1)).astype(np.float32)
    for rows in parts(np.arange(size)):
        found[rows, : axes.shape[1]] = centred(rows) @ axes
    return found


def pca(features: np.ndarray) -> np.ndarray:
    """Coordinates along the first two principal axes: `[N, F] -> [N, 2]`."""
    return components(features, 2)


def tsne(features: np.ndarray) -> np.ndarray:
    """t-SNE (van der Maaten and Hinton, JMLR 2008) from PCA: `[N, F] -> [N, 2]`, float32.

    Raises UserError where scikit-learn is missing. Four images or fewer lie as by :func:`pca`.
    """
    try:
        from sklearn.manifold import TSNE
    except ImportError as error:
        raise UserError(
            "the map by t-SNE needs scikit-learn: pip install scikit-learn, or take the map by PCA"
        ) from error
    size = len(features)
    if size <= 4:
        return pca(features)
    inputs = components(features, min(_INPUTS, features.shape[1]))
    perplexity = min(_PERPLEXITY, (size - 1) / 3)
    found = TSNE(init="pca", perplexity=perplexity, random_state=0).fit_transform(inputs)
    return np.asarray(found, np.float32)
