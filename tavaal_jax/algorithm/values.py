"""Values, what a method computes from one image to pick by: `(view, key) -> [] or tree of arrays`.

A value is written for one image and vmapped over the pool. Everything is in evaluation mode, so a
value never depends on which images share its batch.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Protocol

import jax
import jax.numpy as jnp
from jax import lax

from tavaal_jax.algorithm.adversary_like import AdversaryLike
from tavaal_jax.algorithm.learner import Learner, LearnerOutput, MissingComponent
from tavaal_jax.algorithm.problems import Problem, Votes
from tavaal_jax.algorithm.state import AdversaryVariables, ArrayTree, Condition, LearnerState


@dataclasses.dataclass(frozen=True)
class View:
    """One image and the networks, all that a value may use; computed when it is asked for."""

    image: jax.Array
    """Normalised, `[H, W, C]`, or features `[F]`."""
    learner: Learner
    learner_state: LearnerState
    adversary: AdversaryLike | None = None
    adversary_state: AdversaryVariables = None
    predicted: jax.Array | None = None
    """R(x) `[]`; None for a method without a Ranker."""
    condition: Condition = None
    """The adversary's, arrays `[...]` without a batch."""
    passes: int = 1
    """Number of passes of Monte-Carlo dropout."""
    measure: str = "max_entropy"
    """Uncertainty of Monte-Carlo dropout, see `Classification.disagreement`."""
    thumbnail: jax.Array | None = None
    """The VAE's input where the image is larger, normalised, `[S, S, C]`."""

    @property
    def problem(self) -> Problem:
        """Problem that T solves, with its uncertainties."""
        return self.learner.problem

    @functools.cached_property
    def _output(self) -> LearnerOutput:
        return self.learner.infer(self.learner_state, self.image[None])

    @property
    def logits(self) -> jax.Array:
        """T's logits `[K]`, or per pixel `[H, W, K]`."""
        return self._output.logits[0]

    @property
    def embedding(self) -> jax.Array:
        """T's penultimate features `[E]`."""
        return self._output.embedding[0]

    def last_layer(self) -> tuple[jax.Array, Callable[[jax.Array], jax.Array]]:
        """T's features of the image before its last layer, and that layer, `features -> logits`."""
        features, layer = self.learner.last_layer(self.learner_state, self.image[None])
        return features[0], lambda changed: layer(changed[None])[0]

    def dropout_logits(self) -> Callable[[jax.Array], jax.Array]:
        """Makes `key -> logits` of T with dropout; layers before the first dropout run once."""
        drop = self.learner.dropout_logits(self.learner_state, self.image[None])
        return lambda key: drop(key[None])[0]

    @functools.cached_property
    def score(self) -> jax.Array:
        """The adversary's score, equation (7): `[]`."""
        if self.adversary is None:
            raise MissingComponent("this method has no adversary: give it one, or another value")
        condition = jax.tree.map(lambda x: x[None], self.condition)
        image = self.image if self.thumbnail is None else self.thumbnail
        return self.adversary.score(self.adversary_state, image[None], condition)[0]


class Value(Protocol):
    """Computes from one image what a method picks by: `-> []` or a tree of arrays.

    Must be traceable by `jax.vmap`; `key` is the image's own.
    """

    def __call__(self, view: View, key: jax.Array, /) -> ArrayTree:
        """Value of one image."""


def uniform(view: View | None, key: jax.Array) -> jax.Array:
    """Uniform number in [0, 1): picking the smallest is drawing without replacement."""
    del view
    return jax.random.uniform(key, (), jnp.float32)


@functools.partial(jax.jit, static_argnums=1)
def uniform_pool(key: jax.Array, size: int) -> jax.Array:
    """Values of `uniform` for every image of a pool: `[N]`."""
    return jax.vmap(lambda i: uniform(None, jax.random.fold_in(key, i)))(jnp.arange(size))


def discriminator(view: View, key: jax.Array) -> jax.Array:
    """Logit of D(r, mu), equation (7); the smallest is the least like L."""
    del key
    return view.score


def predicted_loss(view: View, key: jax.Array) -> jax.Array:
    """Loss R(x) that the Ranker predicts."""
    del key
    if view.predicted is None:
        raise MissingComponent("R(x) needs a Ranker: give the method a ranking_loss")
    return view.predicted


def embedding(view: View, key: jax.Array) -> jax.Array:
    """T's penultimate features `[E]`."""
    del key
    return view.embedding


def direction(view: View, key: jax.Array) -> jax.Array:
    """T's penultimate features `[E]` on unit length."""
    del key
    return _unit(view.embedding)


def _unit(vector: jax.Array) -> jax.Array:
    """The vector on unit length; of length 0 as it is."""
    length = jnp.sqrt(jnp.sum(jnp.square(vector)))
    return vector / jnp.where(length > 0, length, 1)


def least_confidence(view: View, key: jax.Array) -> jax.Array:
    """1 minus the highest probability (Lewis and Gale, SIGIR 1994)."""
    del key
    return 1.0 - view.problem.confidence(view.logits)


def margin(view: View, key: jax.Array) -> jax.Array:
    """Difference of the two highest probabilities (Scheffer et al., IDA 2001)."""
    del key
    return view.problem.margin(view.logits)


def entropy(view: View, key: jax.Array) -> jax.Array:
    """Entropy of the prediction, nats (Settles, "Active learning literature survey", 2009)."""
    del key
    return view.problem.entropy(view.logits)


def gradient_embedding(view: View, key: jax.Array) -> dict[str, jax.Array]:
    """Factors of BADGE's gradient embedding: `{"error": [K], "embedding": [E]}`.

    The gradient of T's last layer, with T's prediction as the label, is their outer product `[K,
    E]` ("Deep batch active learning by diverse, uncertain gradient lower bounds", Ash et al., ICLR
    2020), which is never formed.
    """
    del key
    return {"error": view.problem.error(view.logits), "embedding": view.embedding}


def mc_dropout(view: View, key: jax.Array) -> jax.Array:
    """Disagreement of passes with dropout ("Deep Bayesian active learning", Gal et al., ICML 2017).

    The passes are scanned: memory does not grow with their number.
    """
    return _disagreement(view, key, view.measure)


def bald(view: View, key: jax.Array) -> jax.Array:
    """Mutual information of prediction and weights, nats: `mc_dropout` by the measure "bald"."""
    return _disagreement(view, key, "bald")


def _disagreement(view: View, key: jax.Array, measure: str) -> jax.Array:
    drop = view.dropout_logits()

    def vote(number: jax.Array) -> Votes:
        return view.problem.vote(drop(jax.random.fold_in(key, number)))

    def add(votes: Votes, number: jax.Array) -> tuple[Votes, None]:
        return jax.tree.map(jnp.add, votes, vote(number)), None

    numbers = jnp.arange(view.passes)
    shapes = jax.eval_shape(vote, numbers[0])
    empty = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    votes, _ = lax.scan(add, empty, numbers)
    votes = jax.tree.map(lambda x: x / view.passes, votes)
    return view.problem.disagreement(measure, votes)


def power_margin(view: View, key: jax.Array) -> jax.Array:
    """Power acquisition of 1 - margin: the largest are a batch drawn without replacement.

    The values `log s + Gumbel(0, 1)` of scores s have as their largest a draw with probabilities in
    proportion to s, as their second a draw from the rest, and so on ("Stochastic batch
    acquisition", Kirsch et al., TMLR 2023, with the exponent 1).
    """
    return _power(1.0 - margin(view, key), key)


def power_bald(view: View, key: jax.Array) -> jax.Array:
    """Power acquisition of `bald`, see `power_margin`."""
    return _power(bald(view, key), key)


def _power(score: jax.Array, key: jax.Array) -> jax.Array:
    # The passes with dropout fold small numbers into the same key.
    gumbel = jax.random.gumbel(jax.random.fold_in(key, 2**31 - 1), (), score.dtype)
    return jnp.log(jnp.maximum(score, jnp.finfo(score.dtype).tiny)) + gumbel


def embedding_and_prediction(view: View, key: jax.Array) -> dict[str, jax.Array]:
    """Input of uncertainty herding: `{"embedding": [E], "logits": [K]}`, the first on unit length.

    For maps, whose logits are many, T's margin `[]`, "certainty", takes the place of the logits.
    """
    embedded = direction(view, key)
    if view.logits.ndim > 1:
        return {"embedding": embedded, "certainty": margin(view, key)}
    return {"embedding": embedded, "logits": view.logits}


_DROPPED = 0.75  # share of the features
_DROPS = 3  # passes


def disagreement(view: View, key: jax.Array) -> dict[str, jax.Array]:
    """Input of DropQuery: `{"embedding": [E], "disagreement": []}`, the first on unit length.

    The share of 3 passes, each with 0.75 of the features before T's last layer dropped (the others
    are scaled up), that predict another class than T; for maps, the share of pixels, too.
    """
    features, layer = view.last_layer()
    predicted = jnp.argmax(view.logits, -1)

    def differs(number: jax.Array) -> jax.Array:
        drop = jax.random.fold_in(key, number)
        kept = jax.random.bernoulli(drop, jnp.float32(1 - _DROPPED), features.shape)
        logits = layer(jnp.where(kept, features / (1 - _DROPPED), 0))
        return jnp.mean((jnp.argmax(logits, -1) != predicted).astype(jnp.float32))

    share = jnp.mean(lax.map(differs, jnp.arange(_DROPS, dtype=jnp.int32)))
    return {"embedding": direction(view, key), "disagreement": share}


def mixing(view: View, key: jax.Array) -> dict[str, jax.Array]:
    """Input of ALFA-Mix: `{"features": [F], "logits": [K], "slope": [K]}`.

    `slope` is the change of the logits for a step of length 1 from the features along the gradient
    of the loss, T's choice being the label.
    """
    del key
    features, layer = view.last_layer()
    logits, pull = jax.vjp(layer, features)
    (gradient,) = pull(view.problem.error(logits))
    _, slope = jax.jvp(layer, (features,), (_unit(gradient),))
    wide = lambda x: x.astype(jnp.float32)
    return {"features": wide(features), "logits": wide(logits), "slope": wide(slope)}
