"""Claim: the linear T is as accurate as scikit-learn's logistic regression with C by folds.

Within half a point, mean over draws, with 20 to 1,000 labels; `ratio` is scikit-learn's error over
ours, mean over all rows.

    python benchmarks/head.py FEATURES.npz... [--labels=20,60,180,500,1000] [--draws=20]

A file has `features [N, F]`, `labels [N]`, and may have `test`, a mask of images that are not to be
labelled. Labels are drawn at random, accuracy is that of all other images. Peers, on the same
features: `LogisticRegression` with C = 1, and with C of eight between 1e-4 and 1e3 by the accuracy
of five folds (`GridSearchCV`). Seconds are of a fit, ours after compilation.
"""

import json
import pathlib
import time
import warnings

import harness
import jax
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold

from tavaal_jax.algorithm import logistic
from tavaal_jax.data.pool import Normaliser

FIT = jax.jit(logistic.fit, static_argnums=1)


def ours(features, labels, classes):
    """`-> z -> classes`, and the seconds of the second call."""
    count, length = len(labels), max(32, 1 << (len(labels) - 1).bit_length())
    rows = np.resize(np.arange(count), length)
    weights = (np.arange(length) < count).astype(np.float32)
    examples = logistic.Examples(features[rows], labels[rows], weights)
    jax.block_until_ready(FIT(examples, classes))
    start = time.perf_counter()
    head, _ = jax.device_get(FIT(examples, classes))
    seconds = time.perf_counter() - start
    return lambda z: np.argmax(z @ head.kernel + head.bias, 1), seconds


def fixed(features, labels, classes):
    """scikit-learn's defaults, C = 1."""
    del classes
    start = time.perf_counter()
    model = LogisticRegression(max_iter=1000).fit(features, labels)
    return model.predict, time.perf_counter() - start


def by_folds(features, labels, classes):
    """scikit-learn with C by cross-validation."""
    folds = min(5, np.bincount(labels, minlength=classes).max())
    if folds < 2:
        return fixed(features, labels, classes)
    grid = {"C": np.logspace(-4, 3, 8)}
    search = GridSearchCV(LogisticRegression(max_iter=1000), grid, cv=StratifiedKFold(folds))
    start = time.perf_counter()
    return search.fit(features, labels).predict, time.perf_counter() - start


def draw(data, count, seed):
    """Accuracies and seconds, `[peer, 2]`, of one draw of labels; ours is the first."""
    features, labels = data["features"].astype(np.float32), data["labels"].astype(np.int32)
    pool = ~data["test"] if "test" in data else np.ones(len(labels), bool)
    there = np.random.default_rng(seed).permutation(np.flatnonzero(pool))[:count]
    others = np.setdiff1d(np.arange(len(labels)), there)
    classes = int(labels.max()) + 1
    normalise = Normaliser.of_features(features[pool])
    scaled = (features - normalise.mean) / normalise.std
    found = []
    for fit, given in ((ours, scaled), (by_folds, features), (fixed, features)):
        predict, seconds = fit(given[there], labels[there], classes)
        found.append((np.mean(predict(given[others]) == labels[others]), seconds))
    return np.array(found)


def main():
    """Command line."""
    flags = harness.parser(__doc__, rounds=1)
    flags.add_argument("files", nargs="+", type=pathlib.Path)
    flags.add_argument("--labels", default="20,60,180,500,1000")
    flags.add_argument("--draws", type=int, default=20)
    given = flags.parse_args()
    warnings.simplefilter("ignore")  # Folds without a class, and scikit-learn's steps at their end.
    rows = []
    print("| data | labels | n | linear T | C by folds | C = 1 | T - by folds | seconds |")
    print("|---|---|---|---|---|---|---|---|")
    for path in given.files:
        with np.load(path) as file:
            data = dict(file)
        for count in map(int, given.labels.split(",")):
            found = np.stack([draw(data, count, seed) for seed in range(given.draws)])
            accuracies, seconds = np.moveaxis(found, -1, 0)
            means, gain = accuracies.mean(0), accuracies[:, 0] - accuracies[:, 1]
            cells = [
                f"{mean:.3f} ({d:.3f})" for mean, d in zip(means, accuracies.std(0), strict=True)
            ]
            spread = gain.std(ddof=1) if len(gain) > 1 else 0.0
            cells += [f"{gain.mean():+.3f} ({spread:.3f})"]
            cells += [", ".join(f"{x:.2f}" for x in np.median(seconds, 0))]
            print("|", " | ".join([path.stem, str(count), str(len(gain)), *cells]), "|", flush=True)
            rows.append({"data": path.stem, "labels": count, "accuracy": means.tolist()})
    ratio = np.mean([(1 - row["accuracy"][1]) / (1 - row["accuracy"][0]) for row in rows])
    print(f"ratio {ratio:.2f}; {harness.machine()}")
    if given.json:
        print(json.dumps({"ratio": float(ratio), "rows": rows}))


if __name__ == "__main__":
    main()
