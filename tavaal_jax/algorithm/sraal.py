"""SRAAL: an adversary whose D is told that what T is certain of is as good as labelled.

"State-relabeling adversarial active learning" (Zhang et al., CVPR 2020), reference [43].

* Unified representation (section 3.2): one encoder; a decoder rebuilds the image from one half of
  the latent, a classifier tells the labelled images' class from the other half. D sees all of it.
* State relabelling (section 3.3): D's target for an unlabelled image is not 0 but one less T's
  uncertainty (`Classification.indicator`); in Algorithm 1's first epoch, when T knows nothing, it
  is 0, as VAAL's.
* Acquisition (section 3.4): the images whose predicted state is farthest from labelled.

What the paper leaves open, and its log(u - D(U)), which has no value where D is above u, are taken
from ml_collections import ConfigDict
from its authors' code: cross-entropy with the soft target, halves of equal size, the classifier's
layers, its loss weighing as much as the reconstruction. Unlike there (5) draws both pools to where
D says labelled, not unlabelled; the weights of KL and (5) are those of the other adversaries; D
sees latents recomputed after the VAE's step; learning rates are constant, VAE and D take turns one
to one. Its own choice of the first labelled images is left out: all methods begin alike.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from tavaal_jax import models
from tavaal_jax.algorithm import losses, optim
from tavaal_jax.algorithm.adversary import Adversary, Metrics, Rank, Settings
from tavaal_jax.algorithm.problems import Problem
from tavaal_jax.algorithm.state import AdversaryState, Params, PoolBatch


@dataclasses.dataclass(frozen=True, kw_only=True)
class Relabelling(Adversary):
    """VAE and D of SRAAL; it is told T's uncertainties `[B]`."""

    problem: Problem
    eta: float = 1.0
    """Weight of the classifier's loss."""

    def initial_condition(self, keys: jax.Array) -> jax.Array:
        """No image is certain yet: `keys [B] -> [B]`."""
        return jnp.ones(len(keys))

    def rank(self, condition: Any) -> Rank:
        """Decoder and D see nothing of it: it is in D's target alone."""
        del condition
        return Rank()

    def step(
        self, state: AdversaryState, labelled: PoolBatch, unlabelled: PoolBatch,
        mean: optim.Mean = optim.alone,
    ) -> tuple[AdversaryState, Metrics]:  # fmt: skip
        """Of an image without a labelled pixel the classifier has nothing to tell."""
        assert labelled.labels is not None
        weights = self.problem.latent_weights(labelled.labels)
        if weights is not None:
            share = mean(jnp.mean(weights))
            labelled = labelled._replace(weights=weights / jnp.where(share > 0, share, 1))
            unlabelled = unlabelled._replace(weights=jnp.zeros_like(weights))
        return super().step(state, labelled, unlabelled, mean)

    def annotation_loss(
        self, params: Params, latent: jax.Array, labelled: PoolBatch
    ) -> tuple[jax.Array, Metrics]:
        """The class, or the classes' shares of a map, told from L's latents `[B, Z]`."""
        assert labelled.labels is not None
        logits: Any = self.vae.apply({"params": params}, latent, method="classify")
        each, weights = self.problem.latent_losses(logits, labelled.labels), labelled.weights
        loss = jnp.mean(each if weights is None else weights * each)
        return self.eta * loss, {"latent_task_loss": loss}

    def state_loss(
        self, labelled_logits: jax.Array, unlabelled_logits: jax.Array, unlabelled: PoolBatch
    ) -> jax.Array:
        """(6) with relabelled states: `logits [B], [B] -> []`."""
        return losses.relabelled_discriminator(
            labelled_logits, unlabelled_logits, unlabelled.condition
        )


def sraal(
    config: ConfigDict, problem: Problem, shape: tuple[int, ...], axis_name: str | None = None
) -> Adversary:
    """SRAAL's: told how uncertain T is of an image."""
    return Relabelling(
        models.build_unified_vae(config, problem.classes, shape, axis_name),
        models.build_discriminator(config),
        lambda said: jax.vmap(problem.indicator)(said.logits),
        Settings.of(config),
        problem=problem,
        eta=config.sraal.eta,
    )
