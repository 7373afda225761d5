"""Networks from outside the package: one row trains with every method; faults are one line."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import tavaal_jax
from configs import moons, scenes, smoke
from tavaal_jax import models
from tavaal_jax.algorithm.methods import METHODS
from tavaal_jax.algorithm.problems import Classification
from tavaal_jax.engine import components
from tavaal_jax.errors import UserError
from tavaal_jax.models import NETWORKS, Network, TaskOutput, layers
from tavaal_jax.study.checks import config as checks

SHAPE, CLASSES = (6, 6, 1), 3

CONFIG = '''
import tavaal_jax as tv
from configs import smoke
from flax import linen as nn


class Tiny(nn.Module):
    """A convolution for each tap, and a linear layer."""

    classes: int
    axis_name: str | None

    @nn.compact
    def __call__(self, images, train, dropout_keys=None):
        first = nn.relu(nn.Conv(4, (3, 3), strides=2)(images))
        norm = nn.BatchNorm(not train, axis_name=self.axis_name)
        second = nn.relu(norm(nn.Conv(6, (3, 3))(first)))
        embedding = second.mean((1, 2))
        kept = tv.models.dropout(embedding, dropout_keys, rate=0.5)
        return tv.TaskOutput(nn.Dense(self.classes)(kept), (first, second), embedding)


def build(config, classes, shape, axis_name):
    return Tiny(classes, axis_name)


tv.NETWORKS["tiny"] = tv.Network(build)


def get_config():
    config = smoke.get_config()
    config.update(trials=1, cycles=2, initial=8, budget=4, subset=12, epochs=1, batch_size=8)
    config.score_batch_size, config.diagnostics = 8, False
    config.task.network = "tiny"
    config.vae.update(image_size=4, widths=(4,), latent=4)
    config.discriminator.hidden = config.sraal.hidden = (4,)
    return config
'''


@pytest.fixture
def config_file(tmp_path, monkeypatch):
    """A config file that adds a network, which is gone after the test."""
    monkeypatch.setitem(NETWORKS, "tiny", None)
    del NETWORKS["tiny"]
    path = tmp_path / "mine.py"
    path.write_text(CONFIG)
    return path


@pytest.fixture(scope="module")
def dataset():
    images = np.random.default_rng(0).integers(0, 256, (40, *SHAPE), np.uint8)
    labels = np.arange(40) % CLASSES
    return tavaal_jax.Dataset.from_arrays(
        images[:30], labels[:30], images[30:], labels[30:], name="mine"
    )


def picked(result, method):
    """How many different images a method has picked in its only choice."""
    return len(set(result.picks(method).index))


NEED_HEAD = ("drop_query", "alfa_mix")
"""Methods that need a network's last layer, which this one does not tell apart."""


def test_a_network_of_a_config_file_trains_and_its_model_is_one(
    config_file, dataset, tmp_path, monkeypatch
):
    config = tavaal_jax.load_config(config_file, methods="learning_loss")
    result = tavaal_jax.run_study(config, tmp_path / "study", dataset)
    assert picked(result, "learning_loss") == 4
    folder = result.model_folder("learning_loss")
    model = tavaal_jax.load_model(folder)
    images = dataset.test_images
    assert model.predict_proba(images).shape == (len(images), CLASSES)
    assert model.embed(images).shape == (len(images), 6)
    assert np.isfinite(model.predicted_loss(images)).all()
    other = Network(lambda config, classes, shape, axis_name: Fine(classes))
    monkeypatch.setitem(NETWORKS, "tiny", other)
    with pytest.raises(UserError, match="the model's weights do not fit the network 'tiny' that"):
        tavaal_jax.load_model(folder)
    monkeypatch.delitem(NETWORKS, "tiny")
    with pytest.raises(
        UserError, match=r"network is 'tiny', and NETWORKS has resnet, drn, mlp(, \w+)*: "
    ):
        tavaal_jax.load_model(folder)


@pytest.mark.slow
def test_methods_of_every_kind_train_a_network_of_a_config_file(config_file, dataset, tmp_path):
    """By each of its outputs, by R and by each adversary; test_method_checks.py has every row."""
    names = ("mc_dropout", "uherding", "badge", "tavaal", "sraal")
    config = tavaal_jax.load_config(config_file, methods=",".join(names))
    result = tavaal_jax.run_study(config, tmp_path / "study", dataset)
    assert [picked(result, name) for name in names] == [4] * len(names)


@pytest.mark.parametrize("method", NEED_HEAD)
def test_a_network_without_a_head_is_refused_where_a_method_needs_it(method, config_file, dataset):
    config = tavaal_jax.load_config(config_file, methods=method)
    with pytest.raises(
        UserError, match=f"has no method head, its last layer, which {method} needs"
    ):
        checks.check(config, 1, dataset)


@pytest.mark.slow
def test_workers_get_a_network_of_a_config_file(config_file, dataset, tmp_path):
    config = tavaal_jax.load_config(config_file, methods="random,tavaal")
    config.update(parallel="trials", workers=2)
    result = tavaal_jax.run_study(config, tmp_path / "study", dataset)
    for name in ("random", "tavaal"):
        assert picked(result, name) == 4


def test_an_unknown_network_is_one_line_with_the_nearest_name(dataset):
    config = smoke.get_config()
    config.task.network = "resnett"
    with pytest.raises(UserError, match=r"task.network is 'resnett' \(did you mean resnet\?\): ch"):
        checks.check(config, 1)


OURS = {
    "resnet": (smoke, (8, 8, 1)),
    "drn": (scenes, (8, 12, 3)),
    "mlp": (moons, (2,)),
    "linear": (moons, (2,)),
}


def test_there_is_a_config_for_each_network_that_a_config_shapes():
    """Of the others there are test_backbones.py and test_efficientnet.py."""
    fixed = [name for name, row in NETWORKS.items() if row.published and row.published.frozen]
    assert [name for name in NETWORKS if name not in fixed] == list(OURS)


@pytest.mark.parametrize("dtype", ["float32", pytest.param("bfloat16", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", OURS)
def test_our_networks_pass_the_check(name, dtype):
    module, shape = OURS[name]
    config = module.get_config()
    config.dtype = dtype
    with jax.numpy_dtype_promotion("standard"):  # Flax's BatchNorm mixes both types.
        found = tavaal_jax.check_network(NETWORKS[name], config, shape, 4)
    assert found.logits == ((*shape[:2], 4) if name == "drn" else (4,))
    assert found.drops
    assert len(found.taps) == {"resnet": 2, "drn": 4}.get(name, 1)
    assert found.parameters > 0


class Fine(nn.Module):
    """A network that does what it should; those below differ in one thing each."""

    classes: int
    axis_name: str | None = None

    def output(self, logits, taps, embedding, features=None):
        return TaskOutput(logits, taps, embedding, features)

    def normed(self, x, train):
        return nn.BatchNorm(not train, axis_name=self.axis_name)(x)

    def dropped(self, x, keys):
        return layers.dropout(x, keys, 0.5)

    @nn.compact
    def __call__(self, images, train, dropout_keys=None):
        hidden = self.normed(nn.Conv(4, (3, 3))(images), train)
        embedding = hidden.mean((1, 2))
        logits = nn.Dense(self.classes)(self.dropped(embedding, dropout_keys))
        return self.output(logits, (hidden,), embedding)


class WithoutKeys(nn.Module):
    classes: int
    axis_name: str | None = None

    def __call__(self, images, train):
        raise NotImplementedError


class Tuple(Fine):
    def output(self, *parts):
        return parts


class ManyClasses(Fine):
    def output(self, logits, *rest):
        return TaskOutput(logits[:, :-1], *rest)


class HalfLogits(Fine):
    def output(self, logits, *rest):
        return TaskOutput(logits.astype(jnp.bfloat16), *rest)


class NoTaps(Fine):
    def output(self, logits, taps, embedding):
        return TaskOutput(logits, (), embedding)


class FlatTap(Fine):
    def output(self, logits, taps, embedding):
        return TaskOutput(logits, (taps[0][..., 0],), embedding)


class MapEmbedding(Fine):
    def output(self, logits, taps, embedding):
        return TaskOutput(logits, taps, taps[0])


class OtherCollection(Fine):
    def normed(self, x, train):
        self.variable("cache", "mean", jnp.mean, x)
        return x


class HalfParameters(Fine):
    def normed(self, x, train):
        return nn.Dense(4, param_dtype=jnp.float16, dtype=jnp.float32)(x)


class FlaxDropout(Fine):
    def dropped(self, x, keys):
        return nn.Dropout(0.5, deterministic=keys is None)(x)


class TrainedShape(Fine):
    def output(self, logits, taps, embedding):
        return TaskOutput(logits, taps, embedding, None)

    def normed(self, x, train):
        return x[:, ::2, ::2] if train else x


class PromisesHead(Fine):
    dropout: models.Dropout = models.Dropout("head")


class WrongHead(PromisesHead):
    def output(self, logits, taps, embedding):
        return TaskOutput(logits, taps, embedding, embedding)

    def head(self, features, dropout_keys, size):
        return features


class BatchMean(Fine):
    def normed(self, x, train):
        return x - x.mean(0, keepdims=True)


class OneKey(Fine):
    def dropped(self, x, keys):
        return x if keys is None else x * jax.random.normal(keys[-1], x.shape[1:])[None]


class OwnDevice(Fine):
    def normed(self, x, train):
        return nn.BatchNorm(not train)(x)


class NoParameters(Fine):
    @nn.compact
    def __call__(self, images, train, dropout_keys=None):
        mean = images.mean((1, 2))
        return TaskOutput(jnp.repeat(mean, self.classes, 1), (mean,), mean)


WRONG = {
    WithoutKeys: "its __call__ has no dropout_keys: take (images, train, dropout_keys=None)",
    Tuple: "it returns a tuple: return tavaal_jax.TaskOutput(logits, taps, embedding)",
    ManyClasses: "its logits are float32[4, 2]: give float32[4, 3] for 4 images",
    HalfLogits: "its logits are bfloat16[4, 3]: give float32[4, 3]",
    NoTaps: "its taps are no tuple of one or more arrays",
    FlatTap: "its tap 0 is float32[4, 6, 6]: give maps [4, H, W, C] or features [4, C]",
    MapEmbedding: "its embedding is float32[4, 6, 6, 4]: give float32[4, E]",
    OtherCollection: "it has the collection 'cache', which is not kept",
    HalfParameters: "is float16: give float32",
    FlaxDropout: "it asks for a random stream of Flax's, as nn.Dropout does",
    TrainedShape: "its output with train=True has other shapes or types",
    PromisesHead: "its attribute dropout has the place 'head', and it lacks the method head",
    WrongHead: "its head gives float32[4, 4]: give its logits, float32[4, 3]",
    NoParameters: "it has no parameters to train: add a layer",
}
DEPENDS = {
    BatchMean: "its output for an image depends on the other images of the batch with train=False:",
    OneKey: "of the batch with train=False and dropout_keys: draw from each image's own key",
    OwnDevice: "its training depends on how a batch is divided among devices: give axis_name",
}


def row(module):
    return Network(lambda config, classes, shape, axis_name: module(classes, axis_name))


def one_line(error):
    text = str(error.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("module", [*WRONG, *DEPENDS], ids=lambda module: module.__name__)
def test_a_wrong_network_is_one_line(module):
    with pytest.raises(UserError) as error:
        tavaal_jax.check_network(row(module), smoke.get_config(), SHAPE, CLASSES)
    text = one_line(error)
    assert text.startswith("the network cannot be used, it")
    assert (WRONG | DEPENDS)[module] in text


def test_a_network_that_does_what_it_should_passes_with_its_size():
    found = tavaal_jax.check_network(row(Fine), smoke.get_config(), SHAPE, CLASSES)
    assert found == (4 * 10 + 8 + 5 * 3, (3,), ((6, 6, 4),), 4, True)


def config_of(dataset, **changes):
    config = smoke.get_config()
    config.update(cycles=2, initial=8, budget=4, subset=0)
    config.update_from_flattened_dict({"task.network": "mine", **changes})
    return config


@pytest.mark.parametrize("module", [Tuple, FlatTap], ids=lambda module: module.__name__)
def test_a_wrong_network_stops_a_study_before_anything_is_run(module, dataset, monkeypatch):
    monkeypatch.setitem(NETWORKS, "mine", row(module))
    with pytest.raises(UserError) as error:
        checks.check(config_of(dataset), 1, dataset)
    assert one_line(error).startswith(f"NETWORKS has 'mine', and {WRONG[module]}")


def test_what_a_network_itself_raises_keeps_its_traceback(dataset, monkeypatch):
    class Broken(Fine):
        def normed(self, x, train):
            raise ZeroDivisionError("mine")

    monkeypatch.setitem(NETWORKS, "mine", row(Broken))
    with pytest.raises(ZeroDivisionError, match="mine"):
        checks.check(config_of(dataset), 1, dataset)


def test_monte_carlo_dropout_needs_a_network_that_drops_units(dataset, monkeypatch):
    class Dropless(Fine):
        def dropped(self, x, keys):
            return x

    monkeypatch.setitem(NETWORKS, "mine", row(Dropless))
    checks.check(config_of(dataset, methods="random,badge,tavaal"), 1, dataset)
    with pytest.raises(UserError, match="NETWORKS has 'mine', and it drops no units, as mc_drop"):
        checks.check(config_of(dataset, methods="random,mc_dropout"), 1, dataset)


def test_a_row_says_what_it_fits_and_what_it_asks_for(dataset, monkeypatch):
    asks = lambda config, shape: None if shape[0] > 6 else f"images have side {shape[0]}: give 7"
    monkeypatch.setitem(NETWORKS, "mine", row(Fine)._replace(check=asks))
    with pytest.raises(UserError, match=r"^images have side 6: give 7$"):
        checks.check(config_of(dataset), 1, dataset)
    for kinds in ({"inputs": ("features",)}, {"maps": True}):
        monkeypatch.setitem(NETWORKS, "mine", row(Fine)._replace(**kinds))
        with pytest.raises(UserError, match=r": choose one of resnet, mlp(, \w+)*$"):
            checks.check(config_of(dataset), 1, dataset)


def test_weights_are_for_rows_that_have_published_ones(dataset, monkeypatch, tmp_path):
    file = tmp_path / "mine.npz"
    np.savez(file, bias=np.full(CLASSES, 7, np.float32))
    changes = {"task.pretrained": str(file)}
    monkeypatch.setitem(NETWORKS, "mine", row(Fine))
    with pytest.raises(UserError, match="there are such weights for resnet, drn, "):
        checks.check(config_of(dataset, **changes), 1, dataset)

    def load(tensors, network, params, stats):
        assert isinstance(network, Fine)
        last = {**params["Dense_0"], "bias": jnp.asarray(tensors["bias"])}
        return {**params, "Dense_0": last}, stats

    published = row(Fine)._replace(published=models.Published(load))
    monkeypatch.setitem(NETWORKS, "mine", published)
    config = config_of(dataset, **changes)
    checks.check(config, 1, dataset)
    built = components.build(config, METHODS["random"], SHAPE, Classification(CLASSES))
    state = built.learner.init(jax.random.key(0), jnp.zeros((1, *SHAPE)))
    filled = components.load_pretrained(built, config)(state)
    np.testing.assert_array_equal(filled.params["learner"]["Dense_0"]["bias"], [7, 7, 7])
