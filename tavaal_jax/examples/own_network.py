"""A network of one's own as task learner T: two convolutions and a linear layer.

    python -m tavaal_jax.examples.own_network

It is a row of NETWORKS: a Flax module that returns a TaskOutput.
"""

import jax
from flax import linen as nn
from ml_collections import ConfigDict
from sklearn.datasets import load_digits

import tavaal_jax as tv


class Tiny(nn.Module):
    """Logits, what the Ranker sees of two layers, and an embedding for methods that compare."""

    classes: int
    width: int

    @nn.compact
    def __call__(
        self, images: jax.Array, train: bool, dropout_keys: jax.Array | None = None
    ) -> tv.TaskOutput:
        """`[B, H, W, C]` to logits `[B, K]`; there is no dropout."""
        del train, dropout_keys
        first = nn.relu(nn.Conv(self.width, (3, 3))(images))
        second = nn.relu(nn.Conv(2 * self.width, (3, 3), strides=2)(first))
        embedding = second.mean((1, 2))
        return tv.TaskOutput(nn.Dense(self.classes)(embedding), (first, second), embedding)


def build(config: ConfigDict, classes: int, shape: tuple[int, ...], axis_name: str | None) -> Tiny:
    """A module as the config asks for."""
    del shape, axis_name
    return Tiny(classes, config.task.widths[0])


tv.NETWORKS["tiny"] = tv.Network(build)


def main(workdir: str = "runs/own_network", epochs: int = 40) -> list[dict]:
    """Runs two methods with it, one of which trains a Ranker on it; returns summary.csv's rows."""
    tv.check_network(tv.NETWORKS["tiny"])
    digits = load_digits()
    images, labels = digits.images.astype("uint8"), digits.target
    dataset = tv.Dataset.from_arrays(images[600:], labels[600:], images[:600], labels[:600])
    config = tv.load_config("digits", methods="random,learning_loss_v2", epochs=epochs)
    config.update(trials=1, cycles=2)
    config.task.update(network="tiny", widths=(32,))
    table = tv.run_study(config, workdir, dataset).table()
    for row in (row for row in table if "labelled" in row):  # The others are areas.
        print(f"{row['method']:16} {row['labelled']:4} labels: accuracy {row['mean']:.3f}")
    return table


if __name__ == "__main__":
    main()
