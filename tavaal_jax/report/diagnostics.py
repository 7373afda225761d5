"""Diagnostics of the picks from the true labels, which a simulation knows and a method never sees.

`choice_figures` compares the picks of one cycle with the subset they were picked from; `rows` joins
that with the log of training and the times of the stages into diagnostics.csv.
"""

import itertools
from typing import Any, NamedTuple

import numpy as np
import scipy

LogRecord = dict[str, Any]
"""A line of metrics.jsonl: `stage`, `cycle`, `step`, `seconds` and figures."""
ALWAYS = ("cycle", "labelled", "picks_class_entropy")  # A row without one of these is damaged.
FIELDS = (
    "cycle",
    "labelled",  # images in L when the choice was made
    "reconstruction",  # these four: means over the last logged steps of training
    "kl",
    "discriminator_loss",
    "discriminator_accuracy",
    "discriminator_auc",  # of D, in evaluation mode, L against the subset
    "discriminator_mean",  # of sigmoid(D) over the subset
    "discriminator_deviation",  # its standard deviation, the spread of Figure 7(b)
    "spearman",  # correlation of R(x) with the true loss over the subset
    "subset_loss",  # mean true loss, nats
    "picks_loss",
    "picks_class_entropy",  # of the class counts, nats: Figure 7(a)
    "labelled_class_entropy",
    "overlap_highest_predicted",  # share of the picks among as many with the highest R(x)
    "overlap_highest_loss",  # ... with the highest true loss
    "overlap_random",  # ... that `random` would have picked
    "picks_boundary_distance",  # points of the plane only: mean distance to T's boundary
    "picks_spread",  # points of the plane only: mean distance between two picks
    "seconds_train",
    "seconds_evaluate",
    "seconds_select",  # ranks (if any), values and choice
    "seconds_select_per_pick",
)
_LOGGED = ("reconstruction", "kl", "discriminator_loss", "discriminator_accuracy")
_TRAINING = ("solve", "task", "joint", "adversary")


class ChoiceDiagnosis(NamedTuple):
    """Picks of a cycle and the subset they were picked from."""

    indices: np.ndarray
    """Pool indices of the subset `[M]`."""
    picked: np.ndarray
    """bool `[M]`"""
    losses: np.ndarray
    """True losses of the subset `[M]`; those of images without a label are ignored."""
    predicted: np.ndarray | None
    """R(x) of the subset `[M]`."""
    logits: np.ndarray | None
    """D's logits of the subset `[M]`."""
    labelled_logits: np.ndarray | None
    """D's logits of L."""
    random: np.ndarray
    """Uniform values of the subset `[M]`: `random` picks the smallest."""


def choice_figures(
    choice: ChoiceDiagnosis, counts: np.ndarray, labelled_counts: np.ndarray
) -> dict[str, float]:
    """Columns of `FIELDS` from `counts`, images or pixels per class `[M, K]`, and those of L."""
    picked, known = choice.picked, counts.any(1)
    losses, picked_known = choice.losses[known], picked[known]
    values: dict[str, float | None] = {
        "subset_loss": _mean(losses),
        "picks_loss": _mean(losses[picked_known]),
        "picks_class_entropy": class_entropy(counts[picked]),
        "labelled_class_entropy": class_entropy(labelled_counts),
        "overlap_highest_loss": _overlap(picked_known, losses),
        "overlap_random": _overlap(picked, -choice.random),
    }
    if choice.predicted is not None:
        values["overlap_highest_predicted"] = _overlap(picked, choice.predicted)
        predicted = choice.predicted[known]
        if len(losses) and np.ptp(predicted) > 0 and np.ptp(losses) > 0:
            values["spearman"] = scipy.stats.spearmanr(predicted, losses).statistic
    if choice.logits is not None and choice.labelled_logits is not None:
        from sklearn import metrics

        likelihood = 1 / (1 + np.exp(-choice.logits.astype(np.float64)))
        values["discriminator_mean"] = likelihood.mean()
        values["discriminator_deviation"] = likelihood.std()
        both = np.concatenate([choice.labelled_logits, choice.logits])
        values["discriminator_auc"] = metrics.roc_auc_score(
            np.arange(len(both)) < len(choice.labelled_logits), both
        )
    return {name: float(value) for name, value in values.items() if value is not None}


def _mean(values: np.ndarray) -> float | None:
    """Mean; None of an empty array."""
    return float(values.mean()) if len(values) else None


def _overlap(picked: np.ndarray, values: np.ndarray) -> float | None:
    """Share of picks, bool `[M]`, among as many with the highest values `[M]`; None of none."""
    highest = np.argsort(-values, kind="stable")[: picked.sum()]
    return _mean(picked[highest])


def class_entropy(counts: np.ndarray) -> float:
    """Entropy, in nats, of the classes in counts per image `[n, K]`.

    log K where all classes are equally frequent; 0 without any count.
    """
    by_class = counts.sum(0, dtype=np.int64)
    return float(scipy.stats.entropy(by_class[by_class > 0])) if by_class.any() else 0.0


class Plane(NamedTuple):
    """T's predictions on a grid of points of the plane."""

    x: np.ndarray
    """First coordinates of the grid `[n]`."""
    y: np.ndarray
    """Second coordinates `[m]`."""
    classes: np.ndarray
    """T's prediction at each point `[m, n]`."""

    @classmethod
    def around(cls, points: np.ndarray, side: int = 100, margin: float = 0.3) -> "Plane":
        """A grid of `side` x `side` points around `points [N, 2]`, not yet classified."""
        low, high = points.min(0) - margin, points.max(0) + margin
        x, y = (np.linspace(low[i], high[i], side, dtype=np.float32) for i in range(2))
        return cls(x, y, np.zeros((side, side), np.int32))

    @property
    def points(self) -> np.ndarray:
        """Points of the grid `[m n, 2]`."""
        return np.stack(np.meshgrid(self.x, self.y), -1).reshape(-1, 2)

    def boundary(self) -> np.ndarray:
        """Midpoints `[b, 2]` between neighbours of the grid with different predictions."""
        grid, classes = self.points.reshape(*self.classes.shape, 2), self.classes
        across, along = classes[:, 1:] != classes[:, :-1], classes[1:] != classes[:-1]
        return np.concatenate(
            [
                (grid[:, 1:][across] + grid[:, :-1][across]) / 2,
                (grid[1:][along] + grid[:-1][along]) / 2,
            ]
        )


def plane_figures(plane: Plane, picks: np.ndarray) -> dict[str, float]:
    """Distances of `picks [b, 2]` to T's decision boundary and to each other, Figure 1.

    Both are mean Euclidean distances; there is no boundary where T predicts a single class.
    """
    values = {}
    boundary = plane.boundary()
    if len(boundary):
        distances, _ = scipy.spatial.KDTree(boundary).query(picks)
        values["picks_boundary_distance"] = float(distances.mean())
    if len(picks) > 1:
        values["picks_spread"] = float(scipy.spatial.distance.pdist(picks).mean())
    return values


def rows(records: list[LogRecord], every: int) -> list[dict[str, float]]:
    """Rows of diagnostics.csv from the records of metrics.jsonl: one per diagnosed cycle.

    Figures of training are means over the last `every` steps or fewer: those after the last
    multiple of `every` before the end, in however many records.
    """
    found = []
    for record in (r for r in records if r["stage"] == "diagnose"):
        cycle = record["cycle"]
        mine = [r for r in records if r["cycle"] == cycle]
        seconds = lambda *stages, mine=mine: sum(r["seconds"] for r in mine if r["stage"] in stages)
        row: dict[str, float] = {"cycle": cycle, "labelled": int(record["labelled"])}
        for stage in ("joint", "adversary"):
            row |= _last([r for r in mine if r["stage"] == stage], every)
        row |= {name: record[name] for name in FIELDS if name in record and name not in row}
        row |= {
            "seconds_train": seconds(*_TRAINING),
            "seconds_evaluate": seconds("evaluate"),
            "seconds_select": seconds("select"),
            "seconds_select_per_pick": seconds("select") / record["picks"],
        }
        found.append(row)
    return found


def _last(training: list[LogRecord], every: int) -> dict[str, float]:
    """Means over a stage's last steps, from records that hold means since the one before."""
    if not training:
        return {}
    begin = (training[-1]["step"] - 1) // every * every
    steps = [0, *(record["step"] for record in training)]
    counts = [
        now - max(before, begin) for before, now in itertools.pairwise(steps)
    ]  # No record reaches over a multiple of `every`.
    last = [(record, count) for record, count in zip(training, counts, strict=True) if count > 0]
    total = sum(count for _, count in last)
    return {
        name: sum(count * record[name] for record, count in last) / total
        for name in _LOGGED
        if all(name in record for record, _ in last)
    }
