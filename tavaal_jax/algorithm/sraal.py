"""SRAAL: an adversary for whose D images that T is certain of count as labelled.

"State-relabeling adversarial active learning" (Zhang et al., CVPR 2020), reference [43].

* Unified representation (section 3.2): one encoder; a decoder rebuilds the image from one half of
  the latent, a classifier predicts the labelled images' class from the other half. D sees both.
* State relabelling (section 3.3): D's target for an unlabelled image is not 0 but 1 minus T's
  uncertainty (`Classification.indicator`); in Algorithm 1's first epoch, when T is
  untrained, it is 0, as VAAL's.
* Acquisition (section 3.4): the images whose predicted state is farthest from labelled.

What the paper leaves open, and its log(u - D(U)), which has no value where D is above u, are taken
from its authors' code: cross-entropy with the soft target, halves of equal size, the classifier's
layers, its loss weighing as much as the reconstruction. Unlike there, (5) makes both pools look
labelled to D, not unlabelled; the weights of KL and (5) are those of the other adversaries; D
sees latents recomputed after the VAE's step; learning rates are constant, VAE and D take turns one
to one. Its own choice of the first labelled images is left out: all methods begin alike.
"""

import dataclasses

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from tavaal_jax import models
from tavaal_jax.algorithm import losses, optim
from tavaal_jax.algorithm.adversary import Adversary, Rank, Settings
from tavaal_jax.algorithm.optim import Metrics
from tavaal_jax.algorithm.problems import Problem
from tavaal_jax.algorithm.state import AdversaryState, Condition, Params, PoolBatch


@dataclasses.dataclass(frozen=True, kw_only=True)
class Relabelling(Adversary):
    """VAE and D of SRAAL; the condition is T's uncertainties `[B]`, 0 to 1."""

    problem: Problem
    eta: float = 1.0
    """Weight of the classifier's loss."""

    def initial_condition(self, keys: jax.Array) -> jax.Array:
        """Uncertainties of 1: `keys [B] -> [B]`."""
        return jnp.ones(len(keys), jnp.float32)

    def rank(self, condition: Condition) -> Rank:
        """No ranks: the condition is in D's target alone."""
        del condition
        return Rank()

    def step(
        self, state: AdversaryState, labelled: PoolBatch, unlabelled: PoolBatch,
        mean: optim.Mean = optim.alone,
    ) -> tuple[AdversaryState, Metrics]:  # fmt: skip
        """Updates VAE and D; the classifier's loss leaves out images without a labelled pixel."""
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
        """Loss of the classifier, of classes or of their shares of a map, on latents `[B, Z]`."""
        assert labelled.labels is not None
        logits = jnp.asarray(self.vae.apply({"params": params}, latent, method="classify"))
        found, weights = self.problem.latent_losses(logits, labelled.labels), labelled.weights
        loss = jnp.mean(found if weights is None else weights * found)
        return self.eta * loss, {"latent_task_loss": loss}

    def state_loss(
        self, labelled_logits: jax.Array, unlabelled_logits: jax.Array, unlabelled: PoolBatch
    ) -> jax.Array:
        """(6) with relabelled states: `logits [B], [B] -> []`."""
        uncertainty = jnp.asarray(unlabelled.condition)
        return losses.relabelled_discriminator(labelled_logits, unlabelled_logits, uncertainty)


def sraal(
    config: ConfigDict, problem: Problem, shape: tuple[int, ...], axis_name: str | None = None
) -> Adversary:
    """SRAAL's, with T's uncertainties as the condition."""
    return Relabelling(
        models.build_unified_vae(config, problem.classes, shape, axis_name),
        models.build_discriminator(config),
        lambda output: jax.vmap(problem.indicator)(output.logits),
        Settings.of(config),
        problem=problem,
        eta=config.sraal.eta,
    )
