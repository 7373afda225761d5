"""Problems, classification and segmentation: augmentation, loss, metrics, uncertainties."""

import dataclasses
from collections.abc import Callable
from typing import ClassVar

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from ml_collections import ConfigDict

from tavaal_jax.algorithm import losses
from tavaal_jax.algorithm.state import Example

Votes = dict[str, jax.Array]
"""Means over passes with dropout, see `Classification.vote`."""


@dataclasses.dataclass(frozen=True)
class Classification:
    """One label per image; metrics: test accuracy, or others as well."""

    crop: ClassVar[int] = 0
    classes: int
    """K"""
    pad: int = 0
    """Pixels of zeros on each side before the random crop."""
    flip: bool = False
    """Horizontally, half of the time."""
    metrics: tuple[str, ...] = ("accuracy",)
    """Names of `accuracy`, `balanced_accuracy`, `macro_f1`, as `summarise` gives them."""

    @classmethod
    def of(cls, config: ConfigDict, classes: int) -> "Classification":
        """Problem of `classes` classes with a config's augmentation and metrics."""
        settings, metrics = config.augmentation, tuple(config.metrics.split(","))
        return cls(classes, settings.pad, settings.flip, metrics)

    def augment(self, example: Example, key: jax.Array) -> Example:
        """Crops at random from the padded image, then flips; the label stays."""
        crop_key, flip_key = jax.random.split(key)
        image, pad = example.image, self.pad
        if pad:
            padded = jnp.pad(image, ((pad, pad), (pad, pad), (0, 0)))
            crop_origin = jax.random.randint(crop_key, (2,), 0, 2 * pad + 1, jnp.int32)
            image = lax.dynamic_slice(padded, (*crop_origin, jnp.int32(0)), image.shape)
        if self.flip:
            image = jnp.where(
                jax.random.bernoulli(flip_key, jnp.float32(0.5)), image[:, ::-1], image
            )
        return example._replace(image=image)

    def crop_origin(self, shape: tuple[int, ...], key: jax.Array) -> jax.Array:
        """Origin of the crop, `-> [2]`; here always the corner, since all of an image is seen."""
        del shape, key
        return jnp.zeros(2, jnp.int32)

    def window(self, image: jax.Array, crop_origin: jax.Array) -> jax.Array:
        """Crop of an image that R sees in training: all of it."""
        del crop_origin
        return image

    def image_losses(self, logits: jax.Array, labels: jax.Array) -> jax.Array:
        """`l_i`: `logits [B, K], labels [B] -> [B]`, nats."""
        return losses.cross_entropy(logits, labels)

    def weights(self, labels: jax.Array) -> None:
        """Weights of images in a mean; None: all are equal."""
        del labels

    def latent_losses(self, logits: jax.Array, labels: jax.Array) -> jax.Array:
        """Losses of a classifier on latents: `logits [B, K], labels [B] -> [B]`, nats."""
        return losses.cross_entropy(logits, labels)

    def latent_weights(self, labels: jax.Array) -> None:
        """Weights of `latent_losses` in a mean; None: all are equal."""
        del labels

    def unknown(self, labels: jax.Array) -> jax.Array:
        """`PoolBatch.labels` of unlabelled images, of the shape of `labels`."""
        return jnp.full_like(labels, -1)

    def counts(self, logits: jax.Array, label: jax.Array) -> jax.Array:
        """Right predictions and examples, for the metrics: `logits [K], label [] -> int32 [2]`.

        For others than accuracy, right predictions, examples, predictions of each class, `[3, K]`.
        """
        chex.assert_rank([logits, label], [1, 0])
        choice = jnp.argmax(logits)
        right = choice == label
        if self.metrics == ("accuracy",):
            return jnp.stack([right, jnp.ones((), bool)]).astype(jnp.int32)
        one_hot = lambda number: jax.nn.one_hot(number, self.classes, dtype=jnp.int32)
        true, predicted = one_hot(label), one_hot(choice)
        return jnp.stack([jnp.where(right, true, 0), true, predicted])

    def summarise(self, counts: np.ndarray) -> np.ndarray:
        """Metrics, float32 `[metrics]`, from the sum of `counts` over a test set.

        Balanced accuracy is the mean over the classes in the test set, macro F1 over those there or
        predicted, as in scikit-learn.
        """
        if self.metrics == ("accuracy",):
            correct, total = counts
            return np.array([correct / total], np.float32)
        right, true, predicted = counts
        mean = lambda part, whole: np.mean(part[whole > 0] / whole[whole > 0])
        values = {
            "accuracy": right.sum() / true.sum(),
            "balanced_accuracy": mean(right, true),
            "macro_f1": mean(2 * right, true + predicted),
        }
        return np.array([values[name] for name in self.metrics], np.float32)

    def by_class(self, counts: np.ndarray) -> np.ndarray | None:
        """Metric of each class `[K]` from the same sum; here none."""
        del counts
        return None

    # Uncertainties of one image

    def confidence(self, logits: jax.Array) -> jax.Array:
        """Highest probability: `[K] -> []`."""
        return jnp.max(jax.nn.softmax(logits))

    def margin(self, logits: jax.Array) -> jax.Array:
        """Highest probability minus the second highest: `[K] -> []`."""
        highest = lax.top_k(jax.nn.softmax(logits), 2)[0]
        return highest[0] - highest[1]

    def entropy(self, logits: jax.Array) -> jax.Array:
        """Entropy of the prediction, nats: `[K] -> []`."""
        return _entropy(jax.nn.softmax(logits))

    def indicator(self, logits: jax.Array) -> jax.Array:
        """SRAAL's online uncertainty indicator, 0 (certain) to 1: `[K] -> []`.

        `1 - MINVar(p) / Var(p) * max(p)`, where MINVar is the variance of the probabilities `p` if
        all but the largest were equal, the least it can be (Zhang et al., CVPR 2020, section 3.3).
        Both variances are over K here, so that a certain prediction has none; the released code
        divides one of them by K - 1.
        """
        probability, classes = jax.nn.softmax(logits), len(logits)
        highest = jnp.max(probability)
        rest = (1.0 - highest) / (classes - 1)
        variance = jnp.mean(jnp.square(probability - 1 / classes))
        apart = jnp.square(highest - 1 / classes) + (classes - 1) * jnp.square(rest - 1 / classes)
        least = apart / classes
        # Where all probabilities are alike both are zero; rounding may put one above the other.
        ratio = jnp.where(variance > 0, least / jnp.where(variance > 0, variance, 1), 1)
        return 1.0 - jnp.clip(ratio, 0, 1) * highest

    def error(self, logits: jax.Array) -> jax.Array:
        """Gradient of the loss by the logits, T's choice as label: `p - onehot`, `[K] -> [K]`."""
        choice = jax.nn.one_hot(jnp.argmax(logits), len(logits), dtype=logits.dtype)
        return jax.nn.softmax(logits) - choice

    def vote(self, logits: jax.Array) -> Votes:
        """Output of one pass with dropout, to be averaged over passes.

        `logits [K] -> {"probability": [K], "entropy": [], "choice": [K]}`
        """
        probability = jax.nn.softmax(logits)
        choice = jax.nn.one_hot(jnp.argmax(logits), len(logits), dtype=logits.dtype)
        return {"probability": probability, "entropy": _entropy(probability), "choice": choice}

    def disagreement(self, measure: str, votes: Votes) -> jax.Array:
        """Uncertainty `[]` from the mean of the votes; all but `variation_ratios` in nats.

        `max_entropy` is the entropy H of the mean prediction, `bald` the mutual information of
        prediction and weights, H minus the mean entropy (Houlsby et al., arXiv:1112.5745),
        `variation_ratios` the share of passes that do not predict the most frequent class: eqs.
        (6) to (9) of "Deep Bayesian active learning with image data" (Gal et al., ICML 2017).
        """
        if measure == "variation_ratios":
            return 1.0 - jnp.max(votes["choice"])
        total = _entropy(votes["probability"])
        return total - votes["entropy"] if measure == "bald" else total


@dataclasses.dataclass(frozen=True)
class Segmentation:
    """A class per pixel; metrics: mean intersection over union and pixel accuracy.

    Both are taken over the whole test set, as Cityscapes defines them, without the pixels that have
    no label. An uncertainty is the mean over all pixels of an image: which of them will be labelled
    is unknown.
    """

    metrics: ClassVar[tuple[str, ...]] = ("mean_iou", "pixel_accuracy")
    classes: int
    """K"""
    crop: int = 0
    """Side of the random crops that T is trained on; 0: the whole image."""
    flip: bool = False
    """Horizontally, half of the time."""

    @classmethod
    def of(cls, config: ConfigDict, classes: int) -> "Segmentation":
        """Problem of `classes` classes with a config's augmentation."""
        return cls(classes, config.augmentation.crop, config.augmentation.flip)

    def augment(self, example: Example, key: jax.Array) -> Example:
        """Crops image and map alike at random, then flips both or neither."""
        crop_key, flip_key = jax.random.split(key)
        image, label = example
        crop_origin = self.crop_origin(image.shape, crop_key)
        image, label = (
            self.window(image, crop_origin),
            self._window(label, crop_origin, losses.IGNORED),
        )
        if self.flip:
            flip = jax.random.bernoulli(flip_key, jnp.float32(0.5))
            image, label = (jnp.where(flip, x[:, ::-1], x) for x in (image, label))
        return Example(image, label)

    def crop_origin(self, shape: tuple[int, ...], key: jax.Array) -> jax.Array:
        """Origin of a random crop of an image of `shape`: `-> [2]`."""
        most = jnp.array([max(0, side - (self.crop or side)) for side in shape[:2]], jnp.int32)
        return jax.random.randint(key, (2,), 0, most + 1, jnp.int32)

    def window(self, image: jax.Array, crop_origin: jax.Array) -> jax.Array:
        """Crop of an image that R sees in training: `[H, W, C], [2] -> [crop, crop, C]`."""
        return self._window(image, crop_origin, 0)

    def _window(self, array: jax.Array, crop_origin: jax.Array, fill: int) -> jax.Array:
        """Crop, padded below and to the right where the image is smaller; a crop stays as it is."""
        size = (self.crop, self.crop)
        if not self.crop or array.shape[:2] == size:
            return array
        missing = [(0, max(0, self.crop - side)) for side in array.shape[:2]]
        rest, corner = array.ndim - 2, jnp.zeros((), crop_origin.dtype)
        array = jnp.pad(array, (*missing, *((0, 0),) * rest), constant_values=fill)
        return lax.dynamic_slice(
            array, (*crop_origin, *(corner,) * rest), (*size, *array.shape[2:])
        )

    def image_losses(self, logits: jax.Array, labels: jax.Array) -> jax.Array:
        """`l_i`: `logits [B, H, W, K], maps [B, H, W] -> [B]`, nats; 0 without labelled pixels."""
        return losses.pixel_cross_entropy(logits, labels)

    def weights(self, labels: jax.Array) -> jax.Array:
        """Weights of images in a mean: 1 with a labelled pixel, else 0, `-> [B]`."""
        return jnp.any(labels != losses.IGNORED, (1, 2)).astype(jnp.float32)

    def latent_losses(self, logits: jax.Array, labels: jax.Array) -> jax.Array:
        """Losses of a classifier on latents that predicts the classes' shares of an image (ours).

        `logits [B, K], pixels per class [B, K] -> [B]`, nats
        """
        return losses.share_cross_entropy(logits, labels.astype(logits.dtype))

    def latent_weights(self, labels: jax.Array) -> jax.Array:
        """Weights of `latent_losses` in a mean, as `weights`: `pixels per class [B, K] -> [B]`."""
        return jnp.any(labels > 0, -1).astype(jnp.float32)

    def unknown(self, labels: jax.Array) -> jax.Array:
        """`PoolBatch.labels` of unlabelled images, of the shape of `labels`."""
        return jnp.zeros_like(labels)

    def counts(self, logits: jax.Array, label: jax.Array) -> jax.Array:
        """Pixels by class (rows) and prediction: `logits [H, W, K], map [H, W] -> int32 [K, K]`.

        Products of indicators, block by block, keep sums exact in float32 and memory small.
        """
        chex.assert_rank([logits, label], [3, 2])
        predicted = jnp.argmax(logits, -1).ravel()
        pixels = jnp.stack([label.ravel().astype(jnp.int32), predicted.astype(jnp.int32)])
        block = min(_BLOCK, pixels.shape[1])
        missing = -pixels.shape[1] % block
        pixels = jnp.pad(pixels, ((0, 0), (0, missing)), constant_values=losses.IGNORED)
        blocks = jnp.moveaxis(pixels.reshape(2, -1, block), 1, 0)

        def add(total: jax.Array, pixels: jax.Array) -> tuple[jax.Array, None]:
            true, predicted = jax.nn.one_hot(pixels, self.classes)
            return total + (true.T @ predicted).astype(jnp.int32), None

        return lax.scan(add, jnp.zeros((self.classes, self.classes), jnp.int32), blocks)[0]

    def summarise(self, counts: np.ndarray) -> np.ndarray:
        """Metrics, float32 `[metrics]`, from the sum of `counts` over a test set.

        A class that is neither present nor predicted is left out of the mean; 0 if all are.
        """
        by_class, total = self.by_class(counts), counts.sum()
        known = by_class[np.isfinite(by_class)]
        accuracy = np.trace(counts) / max(total, 1)
        return np.array([known.mean() if len(known) else 0.0, accuracy], np.float32)

    def by_class(self, counts: np.ndarray) -> np.ndarray:
        """Intersection over union of each class, float64 `[K]`; nan if absent."""
        both = np.diagonal(counts)
        union = counts.sum(0) + counts.sum(1) - both
        return np.where(union > 0, both / np.maximum(union, 1), np.nan)

    # Uncertainties of one image

    def _pixel_mean(
        self, function: Callable[[Classification, jax.Array], jax.Array], logits: jax.Array
    ) -> jax.Array:
        """Mean over all pixels of a method of `Classification`: `logits [H, W, K]`."""
        pixels = logits.reshape(-1, logits.shape[-1])
        return jnp.mean(jax.vmap(lambda x: function(Classification(self.classes), x))(pixels), 0)

    def confidence(self, logits: jax.Array) -> jax.Array:
        """Mean confidence: `[H, W, K] -> []`."""
        return self._pixel_mean(Classification.confidence, logits)

    def margin(self, logits: jax.Array) -> jax.Array:
        """Mean margin: `[H, W, K] -> []`."""
        return self._pixel_mean(Classification.margin, logits)

    def entropy(self, logits: jax.Array) -> jax.Array:
        """Mean entropy, nats: `[H, W, K] -> []`."""
        return self._pixel_mean(Classification.entropy, logits)

    def indicator(self, logits: jax.Array) -> jax.Array:
        """Mean of SRAAL's indicator: `[H, W, K] -> []`."""
        return self._pixel_mean(Classification.indicator, logits)

    def error(self, logits: jax.Array) -> jax.Array:
        """Mean error, as if all pixels had the pooled features (ours): `[H, W, K] -> [K]`."""
        return self._pixel_mean(Classification.error, logits)

    def vote(self, logits: jax.Array) -> Votes:
        """Output of one pass with dropout for each pixel: `[H, W, K] -> arrays [H, W, ...]`."""
        return jax.vmap(jax.vmap(Classification(self.classes).vote))(logits)

    def disagreement(self, measure: str, votes: Votes) -> jax.Array:
        """Mean over pixels of `Classification.disagreement`: `-> []`."""
        of_pixel = lambda votes: Classification(self.classes).disagreement(measure, votes)
        return jnp.mean(jax.vmap(jax.vmap(of_pixel))(votes))


Problem = Classification | Segmentation
_BLOCK = 2**16  # pixels whose indicators are in memory together


def of(config: ConfigDict, classes: int, has_maps: bool) -> Problem:
    """Problem of a config, for a data set whose labels are maps or not."""
    return (Segmentation if has_maps else Classification).of(config, classes)


def _entropy(probability: jax.Array) -> jax.Array:
    """Entropy in nats: `[K] -> []`."""
    return jnp.sum(jax.scipy.special.entr(probability))
