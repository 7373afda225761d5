"""Temperature of T's probabilities from the labelled images alone, without a validation set."""

import numpy as np

_MOST = 2000  # labelled images that are looked at, evenly over L
_SCALES = 2.0 ** np.arange(-2, 4.5, 0.5)
_PENALTIES = 10.0 ** np.arange(-4, 2)


def scale(points: np.ndarray, labels: np.ndarray | None, classes: int) -> float:
    """Scale of logits of unit root mean square under which predictions are calibrated.

    T has seen all of L, so its own confidence there says nothing. Instead each labelled image is
    predicted by a ridge classifier on `points z [L, E]` of all others (leave-one-out, in closed
    form; the penalty is the likeliest, too), these logits are brought to a root mean square of 1,
    and the returned scale makes `labels [L]` likeliest: the root mean square of T's logits at the
    temperature that uncertainty herding's paper asks for. This rule is ours. With embeddings that
    were trained on the same labels it is too sure of itself; with a frozen backbone it is not. The
    smallest scale, near to no certainty, is returned where there are no two classes, or no labels.
    """
    if labels is None or len(points) < 3:
        return float(_SCALES[0])
    if len(points) > _MOST:
        some = np.linspace(0, len(points) - 1, _MOST).astype(int)
        points, labels = points[some], labels[some]
    if len(np.unique(labels)) < 2:
        return float(_SCALES[0])
    points = points.astype(np.float64)
    centered = points - points.mean(0)
    target = np.eye(classes)[labels]
    left, singular, _ = np.linalg.svd(centered, full_matrices=False)
    along = left.T @ (target - target.mean(0))
    best, found = np.inf, _SCALES[0]
    for penalty in _PENALTIES * max(singular[0] ** 2, 1e-12):
        kept = singular**2 / (singular**2 + penalty)
        own = np.minimum(1 / len(points) + (left**2 @ kept), 1 - 1e-6)[:, None]
        fitted = target.mean(0) + left @ (kept[:, None] * along)
        logits = unit_size((fitted - own * target) / (1 - own))
        for factor in _SCALES:
            loss = -np.mean(_log_softmax(factor * logits)[np.arange(len(labels)), labels])
            if loss < best - 1e-9:
                best, found = loss, factor
    return float(found)


def margin(logits: np.ndarray, scale: float) -> np.ndarray:
    """Difference of the two highest probabilities of logits brought to a scale: `[M, K] -> [M]`."""
    probability = np.exp(_log_softmax(scale * unit_size(logits.astype(np.float64))))
    highest = np.partition(probability, -2, axis=1)[:, -2:]
    return highest[:, 1] - highest[:, 0]


def unit_size(logits: np.ndarray) -> np.ndarray:
    """Logits `[M, K]` less each row's mean, with a root mean square of 1 over all; or all 0."""
    centered = logits - logits.mean(1, keepdims=True)
    size = np.sqrt(np.mean(np.square(centered))) if centered.size else 0.0
    return centered / size if size > 0 else centered


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
