"""`check_method`: every row of METHODS passes, every wrong row gets one line."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import moons, smoke
from tavaal_jax import METHODS, Method, UserError, check_method, losses, picks, values
from tavaal_jax.algorithm.adversary import tavaal, vaal
from tavaal_jax.algorithm.problems import Classification, Segmentation
from tavaal_jax.study.checks import methods as method_checks

METHOD = Method("mine", values.entropy, picks.largest)
RANKED = METHOD._replace(ranking_loss=losses.ranking)


def small(images=False):
    config = (smoke if images else moons).get_config()
    config.batch_size = 8
    return config


COMPILED_LONG = ("bald", "power_bald", "typiclust", "max_herding", "drop_query", "alfa_mix")


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow) if n in COMPILED_LONG else n for n in METHODS],
)
def test_every_method_passes(name):
    check_method(METHODS[name], small(), (2,), classes=3)


@pytest.mark.parametrize("name", ["badge", "sraal"])
def test_methods_pass_for_images_thumbnails_and_maps(name):
    row = METHODS[name]
    check_method(row, small(images=True), (8, 8, 1), classes=3)
    config = small(images=True)
    method_checks.check_shapes(config, row, (16, 16, 1), Classification(3), thumbnail=8)
    config.task.update(network="drn", widths=(4,) * 8, blocks=(1,) * 8)
    method_checks.check_shapes(config, row, (32, 32, 1), Segmentation(3), thumbnail=8)


@dataclasses.dataclass
class Changed:
    """VAAL's or TA-VAAL's adversary with something else in its place."""

    rest: object
    changes: dict

    def __getattr__(self, name):
        if name in self.changes and self.changes[name] is None:
            raise AttributeError(name)
        return self.changes.get(name) or getattr(self.rest, name)


def adversarial(factory=vaal, **changes):
    make = lambda config, problem, shape, axis_name=None: Changed(
        factory(config, problem, shape, axis_name), changes
    )
    loss = losses.ranking if factory is tavaal else None
    return METHOD._replace(adversary=make, ranking_loss=loss)


def ends_at_once(values, count, key, labelled=None):
    return np.zeros(count, int), np.zeros(count, np.float32)


def unseeded(values, count, key, labelled=None):
    drawn = np.random.default_rng().permutation(len(values))[:count]
    return drawn, values[drawn]


def growing(state, labelled, unlabelled, mean=None):
    return {"state": state, "more": jnp.zeros(2)}, {"loss": jnp.zeros(())}


def unaveraged(state, labelled, unlabelled, mean=None):
    return state, {"loss": jnp.zeros(8)}


WRONG = {
    "no function": (METHOD._replace(value=3), "its value is 3, no function: take (view, key)"),
    "no adversary": (METHOD._replace(value=values.discriminator), "this method has no adversary"),
    "no Ranker": (METHOD._replace(value=values.predicted_loss), "R(x) needs a Ranker: give the"),
    "labels": (METHOD._replace(value=lambda view, key: view.label), "its value raises Attribute"),
    "NumPy": (
        METHOD._replace(value=lambda view, key: np.asarray(view.logits).max()),
        "its value raises TracerArrayConversionError",
    ),
    "no value": (METHOD._replace(value=lambda view, key: None), "its value returns nothing: "),
    "a value per class": (METHOD._replace(value=lambda view, key: view.logits), "its pick raises"),
    "positions twice": (METHOD._replace(pick=ends_at_once), "has a position twice: pick each"),
    "too many": (
        METHOD._replace(pick=lambda x, count, key, labelled: picks.smallest(x, 5, key)),
        "its pick of 1 among 9 different values returns (5,) positions and (5,) scores",
    ),
    "out of range": (
        METHOD._replace(pick=lambda x, n, key, labelled: (np.arange(n) + 9, np.zeros(n))),
        "has the position 9: return integers from 0 to 8",
    ),
    "not finite": (
        METHOD._replace(pick=lambda x, n, key, labelled: (np.arange(n), np.full(n, np.nan))),
        "has a score that is not finite",
    ),
    "no scores": (
        METHOD._replace(pick=lambda x, n, key, labelled: np.arange(n)),
        "return (positions, sc",
    ),
    "unseeded": (METHOD._replace(pick=unseeded), "differs from call to call: draw from its key"),
    "core-set without L": (
        METHOD._replace(value=values.embedding, pick=picks.core_set),
        "compares",
    ),
    "a loss per pair": (
        METHOD._replace(ranking_loss=lambda predicted, losses: predicted[:4]),
        "its ranking_loss returns float32[4] for R(x) and losses float32[8]: return a scalar",
    ),
    "gradient into T": (
        METHOD._replace(ranking_loss=lambda predicted, losses: jnp.mean((predicted - losses) ** 2)),
        "a gradient into the task losses",
    ),
    "no gradient": (
        METHOD._replace(ranking_loss=lambda predicted, losses: jnp.mean(jnp.sign(predicted))),
        "has the gradient 0 into R(x)",
    ),
    "no factory": (
        METHOD._replace(adversary=lambda config: None),
        "its adversary raises TypeError",
    ),
    "no step": (adversarial(step=None), "of class Changed, has no step: give it condition_of"),
    "no weights": (
        adversarial(init=lambda key, images, cycle=0: {}),
        "init that returns no arrays",
    ),
    "another state": (adversarial(step=growing), "has a step that changes the shapes of its state"),
    "another metric": (adversarial(step=unaveraged), "has the metric loss float32[8]: give its m"),
    "a score per batch": (
        adversarial(score=lambda state, images, condition=None: jnp.zeros(())),
        "scores 8 images by float32[]: return float32[8]",
    ),
    "another first condition": (
        adversarial(tavaal, initial_condition=lambda keys: jnp.zeros(len(keys))),
        "has an initial_condition float32[8]: return, as condition_of does, float32[8, 1], float3",
    ),
    "a condition per batch": (
        adversarial(condition_of=lambda output: jnp.mean(output.logits)),
        "has a condition float32[] for 8 images: return arrays with one row per image",
    ),
}


@pytest.mark.parametrize("fault", WRONG)
def test_a_wrong_row_gets_one_line(fault):
    row, line = WRONG[fault]
    with pytest.raises(UserError, match=re.escape(line)) as caught:
        check_method(row, small(), (2,), classes=3)
    assert str(caught.value).startswith("method 'mine' cannot be used, ")
    assert "\n" not in str(caught.value)


def test_what_a_function_of_the_row_raises_is_the_cause():
    def broken(view, key):
        raise ZeroDivisionError("of mine")

    with pytest.raises(
        UserError, match=r"its value raises ZeroDivisionError \(of mine\)"
    ) as caught:
        check_method(METHOD._replace(value=broken), small(), (2,))
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_the_default_config_and_images_are_tried():
    check_method(Method("mine", lambda view, key: jnp.max(view.logits), picks.smallest))
    with pytest.raises(UserError, match="its value raises TypeError"):
        check_method(METHOD._replace(value=lambda view, key: jax.lax.add(view.logits, view.image)))
