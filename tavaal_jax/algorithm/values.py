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
    return view.problem.disagreement(view.measure, votes)
