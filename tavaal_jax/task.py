"""Task learner T and Ranker R: total loss (2), train step, prediction."""

import chex
import jax
import jax.numpy as jnp
from jax import lax

from tavaal_jax import optim, parallel
from tavaal_jax.models.outputs import TaskOutput
from tavaal_jax.state import Stream, TaskState, derive

METRICS = ("task_loss", "ranking_loss")
"""What :func:`train_step` measures; the second one only with a Ranker."""


def init(run, key: jax.Array, cycle, example: jax.Array) -> TaskState:
    """Fresh weights for a cycle; T's are the same for every method. `example [1, ...]` gives
    shapes."""
    learner, ranker = run.networks.learner, run.networks.ranker
    variables = learner.init(derive(key, Stream.LEARNER, cycle), example, train=False)
    params, stats = variables["params"], variables.get("batch_stats", {})
    optimiser = optim.optimiser(run.config.task)
    state = TaskState(params, stats, optimiser.init(params), None, None)
    if run.method.ranking_loss is None:
        return state
    taps = learner.apply(variables, example, train=False).taps
    ranker_params = ranker.init(derive(key, Stream.RANKER, cycle), taps)["params"]
    return state.replace(
        ranker_params=ranker_params, ranker_optimiser=optimiser.init(ranker_params)
    )


def train_step(
    run, state: TaskState, images, labels, shared, dropout_keys=None
) -> tuple[TaskState, dict]:
    """One update of T and R with equation (2) on augmented `images [B, ...]` and `labels`.

    `shared` has the scalars `learning_rate` and `ranker_active`; while the latter is False, R is
    not updated ("freeze") or does not reach into T ("detach"), as `ranker.after` says. With
    `dropout_keys [B]` T drops units.
    """
    chex.assert_equal_shape_prefix([images, labels], 1)
    chex.assert_rank([shared["learning_rate"], shared["ranker_active"]], 0)
    learner, ranker, ranking_loss = (
        run.networks.learner,
        run.networks.ranker,
        run.method.ranking_loss,
    )
    detach = run.config.ranker.after == "detach"

    def total_loss(params):
        variables = {"params": params["learner"], "batch_stats": state.learner_stats}
        output, updated = learner.apply(
            variables, images, train=True, dropout_keys=dropout_keys, mutable=["batch_stats"]
        )
        image_losses = run.problem.image_losses(output.logits, labels)
        loss = jnp.mean(image_losses)
        metrics = {"task_loss": loss}
        if ranking_loss is not None:
            taps = output.taps
            if detach:
                taps = tuple(_connected_if(shared["ranker_active"], tap) for tap in taps)
            predicted = ranker.apply({"params": params["ranker"]}, taps)
            metrics["ranking_loss"] = ranking_loss(predicted, image_losses)
            loss = loss + run.config.ranker.eta * metrics["ranking_loss"]
        return loss, (updated.get("batch_stats", {}), metrics)

    params: dict = {"learner": state.learner_params}
    if ranking_loss is not None:
        params["ranker"] = state.ranker_params
    (_, (stats, metrics)), gradients = jax.value_and_grad(total_loss, has_aux=True)(params)
    gradients, metrics = parallel.mean((gradients, metrics))

    update = lambda *args: optim.update(run.config.task, shared["learning_rate"], *args)
    learner_params, learner_optimiser = update(
        gradients["learner"], state.learner_optimiser, state.learner_params
    )
    state = state.replace(
        learner_params=learner_params, learner_stats=stats, learner_optimiser=learner_optimiser
    )
    if ranking_loss is not None:
        old = state.ranker_params, state.ranker_optimiser
        new = update(gradients["ranker"], state.ranker_optimiser, state.ranker_params)
        if not detach:
            new = optim.keep_if(shared["ranker_active"], new, old)
        state = state.replace(ranker_params=new[0], ranker_optimiser=new[1])
    return state, metrics


def predict(
    run, state: TaskState, images: jax.Array, dropout_keys: jax.Array | None = None
) -> TaskOutput:
    """T in evaluation mode: `images [B, ...] -> logits, taps, embedding`; with `dropout_keys [B]`
    it still drops units, as Monte-Carlo dropout does."""
    variables = {"params": state.learner_params, "batch_stats": state.learner_stats}
    return run.networks.learner.apply(variables, images, train=False, dropout_keys=dropout_keys)


def predict_loss(run, state: TaskState, images: jax.Array) -> jax.Array:
    """R(x) in evaluation mode, not normalised: `images [B, ...] -> [B]`."""
    return predicted_loss_of(run, state, predict(run, state, images))


def predicted_loss_of(run, state: TaskState, output: TaskOutput) -> jax.Array:
    """R(x) from what T made of the images: `-> [B]`."""
    return run.networks.ranker.apply({"params": state.ranker_params}, output.taps)


def _connected_if(condition, x):
    """`x`, through which gradients flow only where the scalar `condition` holds."""
    return lax.stop_gradient(x) + condition.astype(x.dtype) * (x - lax.stop_gradient(x))
