"""Claim: in the drawn set `scenes` it matters which images are labelled.

A random forest on colours stands in for the learner, so that the set can be judged without training
a network. Random images are compared with those of an oracle, which knows the labels and takes the
images with most pixels of rare classes, and with all images; each seed draws another set.

    python benchmarks/scenes_proxy.py [--json]

prints two tables in some minutes: mean IoU with standard errors, and the IoU of each class. With
--json the last line is one object; its `ratio` is the oracle's mean IoU over that of random images,
at the largest of --sizes.
"""

import argparse
import json

import numpy as np
from scipy import ndimage
from sklearn import ensemble, metrics

from tavaal_jax.data.pool import IGNORED
from tavaal_jax.data.sets.scenes import scenes

PIXELS_PER_CLASS = 5000
TESTED = 0.25  # of the validation pixels


def features(images: np.ndarray) -> np.ndarray:
    """Colour, its mean and deviation in 5x5 and 11x11 pixels, position. `[N, H, W, 17]`"""
    colours = images.astype(np.float32)
    parts = [colours]
    for size in (5, 11):
        window = (1, size, size, 1)
        mean = ndimage.uniform_filter(colours, window, mode="nearest")
        square = ndimage.uniform_filter(colours * colours, window, mode="nearest")
        parts += [mean, np.sqrt(np.maximum(square - mean * mean, 0))]
    position = np.moveaxis(np.mgrid[: images.shape[1], : images.shape[2]], 0, -1)
    parts.append(np.broadcast_to(position.astype(np.float32), (*images.shape[:3], 2)))
    return np.concatenate(parts, axis=-1)


def oracle(labels: np.ndarray, classes: int, count: int) -> np.ndarray:
    """Images that between them have most pixels of each class. `[N, H, W] -> [count]`

    The next image is always that which makes the sum of the logarithms largest.
    """
    pixels = np.stack([(labels == number).sum((1, 2)) for number in range(classes)], axis=1)
    shares, have, picked = pixels / pixels.sum(0), np.full(classes, 1e-3), []
    for _ in range(count):
        gain = np.log(have + shares).sum(1)
        gain[picked] = -np.inf
        picked.append(int(gain.argmax()))
        have += shares[picked[-1]]
    return np.array(picked)


def fit(points: np.ndarray, labels: np.ndarray, seed: int) -> ensemble.RandomForestClassifier:
    """A forest; frequent classes are thinned out and count as much as they did."""
    random = np.random.default_rng(seed)
    taken, weights = [], []
    for number in np.setdiff1d(labels, [IGNORED]):
        (found,) = np.nonzero(labels == number)
        kept = random.permutation(found)[:PIXELS_PER_CLASS]
        taken.append(kept)
        weights.append(np.full(len(kept), len(found) / len(kept)))
    taken, weights = np.concatenate(taken), np.concatenate(weights)
    forest = ensemble.RandomForestClassifier(
        20, min_samples_leaf=2, max_samples=0.7, n_jobs=2, random_state=seed
    )
    return forest.fit(points[taken], labels[taken], sample_weight=weights)


def score(forest: ensemble.RandomForestClassifier, points: np.ndarray, labels: np.ndarray):
    """IoU of each class. `[P, F], [P] -> [K]`"""
    counts = metrics.confusion_matrix(labels, forest.predict(points))
    hit = np.diag(counts)
    return hit / (counts.sum(0) + counts.sum(1) - hit)


def judge(seed: int, sizes: list[int]) -> dict[str, np.ndarray]:
    """IoU of each class by what was labelled, for the set of one seed."""
    arrays = scenes.arrays(seed)
    labels, tested = arrays["train_labels"], arrays["test_labels"].ravel()
    points = features(arrays["train_images"])
    random = np.random.default_rng(seed)
    test = np.nonzero((tested != IGNORED) & (random.random(tested.size) < TESTED))[0]
    test_points = features(arrays["test_images"]).reshape(-1, points.shape[-1])[test]
    orders = {
        "random": random.permutation(len(labels)),
        "oracle": oracle(labels, len(arrays["class_names"]), max(sizes)),
    }
    picked = {f"{name} {n}": order[:n] for n in sizes for name, order in orders.items()}
    picked["all"] = np.arange(len(labels))
    return {
        name: score(
            fit(points[order].reshape(-1, points.shape[-1]), labels[order].ravel(), seed),
            test_points, tested[test],
        )
        for name, order in picked.items()
    }  # fmt: skip


def table(header: list[str], rows: list[list[str]]) -> str:
    """In markdown."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows))


def shown(values: np.ndarray) -> str:
    """Mean and standard error over the seeds."""
    return f"{np.mean(values):.3f} ± {np.std(values, ddof=1) / np.sqrt(len(values)):.3f}"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5, help="two at least")
    parser.add_argument("--sizes", type=int, nargs="+", default=[24, 72], help="labelled images")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    results = [judge(seed, arguments.sizes) for seed in range(arguments.seeds)]
    each = {name: np.stack([result[name] for result in results]) for name in results[0]}
    mean = {name: values.mean(1) for name, values in each.items()}
    rows = [["all", shown(mean["all"]), "", ""]]
    for n in reversed(arguments.sizes):
        random, best = mean[f"random {n}"], mean[f"oracle {n}"]
        rows.insert(0, [str(n), shown(random), shown(best), shown(best - random)])
    print(table(["labelled", "random", "oracle", "oracle - random"], rows), end="\n\n")
    classes = [
        [title, *(f"{values[:, number].mean():.2f}" for values in each.values())]
        for number, title in enumerate(scenes.CLASSES.values())
    ]
    print(table(["IoU", *each], classes))
    if arguments.json:
        n = max(arguments.sizes)
        ratio = mean[f"oracle {n}"].mean() / mean[f"random {n}"].mean()
        print(json.dumps({"ratio": ratio, "miou": {k: v.tolist() for k, v in mean.items()}}))


if __name__ == "__main__":
    main()
