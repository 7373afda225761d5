"""A method of one's own: images of which T is uncertain, and which are far from each other.

    python -m tavaal_jax.examples.own_method

It is a row of METHODS: a value of one image, and a pick from the values of all.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from sklearn.datasets import load_digits

import tavaal_jax as tv


def value(view: tv.values.View, key: jax.Array) -> dict[str, jax.Array]:
    """A value of one image: Gini's impurity of T's prediction, and T's embedding."""
    del key
    impurity = 1 - jnp.sum(jnp.square(jax.nn.softmax(view.logits)))
    return {"impurity": impurity, "embedding": view.embedding}


def pick(
    values: dict[str, np.ndarray], count: int, key: jax.Array, labelled: ArrayLike | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Of the `4 * count` most uncertain images `count`, each the farthest from those before."""
    del key, labelled
    impurity = np.asarray(values["impurity"])
    best = np.argsort(-impurity, kind="stable")[: 4 * count]
    points = np.asarray(values["embedding"])[best]
    chosen, nearest = [0], np.full(len(best), np.inf)
    while len(chosen) < count:
        nearest = np.minimum(nearest, np.linalg.norm(points - points[chosen[-1]], axis=1))
        nearest[chosen] = -1  # Never again, where others are the same.
        chosen.append(int(nearest.argmax()))
    return best[chosen], impurity[best[chosen]]


tv.METHODS["uncertain_apart"] = tv.Method("uncertain_apart", value, pick)


def main(workdir: str = "runs/own_method", trials: int = 3) -> list[dict]:
    """Compares it with random picks; returns the rows of summary.csv."""
    tv.check_method(tv.METHODS["uncertain_apart"])
    images, labels = load_digits(return_X_y=True)
    dataset = tv.Dataset.from_features(images[600:], labels[600:], images[:600], labels[:600])
    config = tv.default_config()
    config.update(methods="random,uncertain_apart", trials=trials, cycles=4, initial=20, budget=20)
    config.update(subset=0, epochs=1, batch_size=16)
    config.task.network, config.vae.network = "linear", "mlp"
    config.augmentation.update(pad=0, flip=False)
    table = tv.run_study(config, workdir, dataset).table()
    for row in (row for row in table if "labelled" in row):  # The others are areas.
        print(f"{row['method']:16} {row['labelled']:4} labels: accuracy {row['mean']:.3f}")
    return table


if __name__ == "__main__":
    main()
