"""What is computed of one image to pick by: `(view, key) -> [] or a tree of arrays`.

A value is written for one image and vmapped over the pool. Everything is in evaluation mode, so a
value never depends on which images share its batch.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from tavaal_jax.algorithm.adversary import Adversary
from tavaal_jax.algorithm.learner import Learner, LearnerOutput, MissingComponent
from tavaal_jax.algorithm.problems import Problem
from tavaal_jax.algorithm.state import LearnerState


@dataclasses.dataclass(frozen=True)
class View:
    """All that a method may know of one image: what is not asked for is not computed."""

    image: jax.Array
    """Normalised, `[H, W, C]`, or features `[F]`."""
    learner: Learner
    learner_state: LearnerState
    adversary: Adversary | None = None
    adversary_state: Any = None
    predicted: jax.Array | None = None
    """R(x) `[]`; None for a method without a Ranker."""
    condition: Any = None
    """What the adversary is told of the image, arrays `[...]`."""
    passes: int = 1
    """Of Monte-Carlo dropout."""
    measure: str = "max_entropy"
    """Its uncertainty."""
    thumbnail: jax.Array | None = None
    """Normalised, what the VAE sees of a larger image, `[S, S, C]`."""

    @property
    def problem(self) -> Problem:
        """What T is trained for."""
        return self.learner.problem

    @functools.cached_property
    def _said(self) -> LearnerOutput:
        return self.learner.infer(self.learner_state, self.image[None])

    @property
    def logits(self) -> jax.Array:
        """T's `[K]`, or of pixels `[H, W, K]`."""
        return self._said.logits[0]

    @property
    def embedding(self) -> jax.Array:
        """T's penultimate features `[E]`."""
        return self._said.embedding[0]

    def dropped(self, key: jax.Array) -> jax.Array:
        """T's logits `[K]`, or of pixels `[H, W, K]`, with units dropped by `key`."""
        return self.dropout_logits()(key)

    def dropout_logits(self) -> Callable[[jax.Array], jax.Array]:
        """The same for many keys: what does not depend on them is done once."""
        drop = self.learner.dropout_logits(self.learner_state, self.image[None])
        return lambda key: drop(key[None])[0]

    @functools.cached_property
    def score(self) -> jax.Array:
        """The adversary's, equation (7): `[]`."""
        if self.adversary is None:
            raise MissingComponent("this method has no adversary: give it one, or another value")
        condition = jax.tree.map(lambda x: x[None], self.condition)
        image = self.image if self.thumbnail is None else self.thumbnail
        return self.adversary.score(self.adversary_state, image[None], condition)[0]


def uniform(view: View | None, key: jax.Array) -> jax.Array:
    """Uniform in [0, 1): picking the smallest is drawing without replacement."""
    del view
    return jax.random.uniform(key)


@functools.partial(jax.jit, static_argnums=1)
def uniform_pool(key: jax.Array, size: int) -> jax.Array:
    """What `uniform` gives for every image of a pool: `[N]`."""
    return jax.vmap(lambda i: uniform(None, jax.random.fold_in(key, i)))(jnp.arange(size))


def discriminator(view: View, key: jax.Array) -> jax.Array:
    """Equation (7): the logit of D(r, mu); the smallest looks least labelled."""
    del key
    return view.score


def predicted_loss(view: View, key: jax.Array) -> jax.Array:
    """R(x), the loss that the Ranker predicts."""
    del key
    if view.predicted is None:
        raise MissingComponent("R(x) needs a Ranker: give the method a ranking_loss")
    return view.predicted


def embedding(view: View, key: jax.Array) -> jax.Array:
    """T's penultimate features `[E]`."""
    del key
    return view.embedding


def least_confidence(view: View, key: jax.Array) -> jax.Array:
    """1 less the probability of the chosen class (Lewis and Gale, SIGIR 1994)."""
    del key
    return 1.0 - view.problem.confidence(view.logits)


def margin(view: View, key: jax.Array) -> jax.Array:
    """Difference of the two highest probabilities (Scheffer et al., IDA 2001)."""
    del key
    return view.problem.margin(view.logits)


def entropy(view: View, key: jax.Array) -> jax.Array:
    """Of the prediction, nats (Shannon 1948; Settles, "Active learning literature survey")."""
    del key
    return view.problem.entropy(view.logits)


def gradient_embedding(view: View, key: jax.Array) -> dict[str, jax.Array]:
    """The two factors of BADGE's gradient embedding: `{"error": [K], "embedding": [E]}`.

    The gradient of T's last layer, were its choice right, is their outer product `[K, E]` ("Deep
    batch active learning by diverse, uncertain gradient lower bounds", Ash et al., ICLR 2020),
    which is never formed.
    """
    del key
    return {"error": view.problem.error(view.logits), "embedding": view.embedding}


def mc_dropout(view: View, key: jax.Array) -> jax.Array:
    """Disagreement of passes with other units dropped ("Deep Bayesian active learning", Gal 2017).

    The passes are scanned: memory does not grow with their number.
    """

    drop = view.dropout_logits()

    def vote(number: jax.Array) -> dict[str, jax.Array]:
        return view.problem.vote(drop(jax.random.fold_in(key, number)))

    def add(votes: Any, number: jax.Array) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, votes, vote(number)), None

    numbers = jnp.arange(view.passes)
    shapes = jax.eval_shape(vote, numbers[0])
    empty = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    votes, _ = lax.scan(add, empty, numbers)
    votes = jax.tree.map(lambda x: x / view.passes, votes)
    return view.problem.disagreement(view.measure, votes)
