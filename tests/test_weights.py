"""Weights from files: what is read, what is refused, and that every cycle starts from them."""

import os
import subprocess
import sys
import textwrap

import jax
import numpy as np
import pytest
from safetensors import numpy as safetensors

import tavaal_jax
from configs import moons, smoke
from tavaal_jax.algorithm.methods import METHODS
from tavaal_jax.algorithm.problems import Classification
from tavaal_jax.engine import programs
from tavaal_jax.errors import UserError
from tavaal_jax.models import weights
from tavaal_jax.study.checks import config as checks

SHAPE, CLASSES = (8, 8, 1), 10


def tensors(classes=7):
    """Of a ResNet with two stages of 8 channels, as smoke's, under torchvision's names."""
    random = np.random.default_rng(0)
    shapes = {"conv1.weight": (8, 1, 3, 3), "fc.weight": (classes, 8), "fc.bias": (classes,)}
    norms = ["bn1"]
    for stage in (1, 2):
        for number in (1, 2):
            shapes[f"layer{stage}.0.conv{number}.weight"] = (8, 8, 3, 3)
            norms.append(f"layer{stage}.0.bn{number}")
    shapes["layer2.0.downsample.0.weight"] = (8, 8, 1, 1)
    for norm in [*norms, "layer2.0.downsample.1"]:
        kinds = ("weight", "bias", "running_mean", "running_var")
        shapes |= {f"{norm}.{kind}": (8,) for kind in kinds}
    return {
        name: random.uniform(0.5, 1, shape).astype(np.float32) for name, shape in shapes.items()
    }


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "resnet.npz"
    np.savez(path, **tensors())
    return path


def config_of(path, **changes):
    config = smoke.get_config()
    config.update_from_flattened_dict({"task.pretrained": str(path), **changes})
    return config


@pytest.mark.parametrize("kind", ["npz", "safetensors"])
def test_a_file_is_read_as_it_was_written(tmp_path, kind):
    path, given = tmp_path / f"mine.{kind}", tensors()
    np.savez(path, **given) if kind == "npz" else safetensors.save_file(given, path)
    found = weights.read(str(path))
    assert found.keys() == given.keys()
    for name, tensor in given.items():
        np.testing.assert_array_equal(found[name], tensor)


def test_every_cycle_starts_from_the_files_body_and_a_head_of_its_own(file):
    problem, given = Classification(CLASSES), tensors()
    built = {
        name: programs.build(config_of(file), METHODS[name], SHAPE, problem)
        for name in ("random", "tavaal")
    }
    states = {
        (name, cycle): made.init(jax.random.key(3), cycle)[0]
        for name, made in built.items()
        for cycle in (0, 1)
    }
    for state in states.values():
        mine = state.params["learner"]
        kernel = np.moveaxis(given["conv1.weight"], (0, 1), (-1, -2))
        np.testing.assert_array_equal(mine["Conv_0"]["kernel"], kernel)
        variance = state.stats["BasicBlock_1"]["BatchNorm_2"]["var"]
        np.testing.assert_array_equal(variance, given["layer2.0.downsample.1.running_var"])
    head = lambda *place: np.asarray(states[place].params["learner"]["Dense_0"]["kernel"])
    np.testing.assert_array_equal(head("random", 0), head("tavaal", 0))
    assert not np.array_equal(head("random", 0), head("random", 1))
    without = programs.build(config_of(""), METHODS["tavaal"], SHAPE, problem)
    fresh = without.init(jax.random.key(3), 0)[0]
    same = np.testing.assert_array_equal
    jax.tree.map(same, fresh.params["ranker"], states["tavaal", 0].params["ranker"])
    same(fresh.params["learner"]["Dense_0"]["kernel"], head("tavaal", 0))


def test_a_head_for_as_many_classes_is_left_in_the_file(tmp_path):
    given = tensors(CLASSES)
    np.savez(tmp_path / "all.npz", **given)
    made, without = (
        programs.build(config_of(path), METHODS["random"], SHAPE, Classification(CLASSES))
        for path in (tmp_path / "all.npz", "")
    )
    heads = [
        one.init(jax.random.key(0), 0)[0].params["learner"]["Dense_0"] for one in (made, without)
    ]
    jax.tree.map(np.testing.assert_array_equal, *heads)
    assert not np.array_equal(heads[0]["bias"], given["fc.bias"])


@pytest.mark.slow
def test_a_study_learns_from_a_file_and_its_model_needs_it_no_more(tmp_path, file):
    config = config_of(file, methods="random", trials=1, cycles=1)
    result = tavaal_jax.run_study(config, tmp_path / "study")
    file.unlink()
    model = tavaal_jax.load_model(result.model_folder("random"))
    assert model.predict(np.zeros((3, *SHAPE), np.uint8)).shape == (3,)


def other(name, change):
    """A file in which one tensor is another one."""

    def write(folder):
        path, given = folder / "other.npz", tensors()
        change(given, name)
        np.savez(path, **given)
        return path

    return write


def cut(folder):
    path = folder / "cut.npz"
    np.savez(path, **tensors())
    path.write_bytes(path.read_bytes()[:900])
    return path


def damaged(folder):
    path = folder / "damaged.safetensors"
    path.write_bytes(b"\0" * 30)
    return path


def of_pytorch(folder):
    path = folder / "drn_d_22.pth"
    path.touch()
    return path


def of_keras(folder):
    path = folder / "weights.h5"
    path.touch()
    return path


def of_one_array(folder):
    path = folder / "array.npz"
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    return path


def of_bfloat16(folder):
    path = folder / "half.safetensors"
    header = b'{"a":{"dtype":"BF16","shape":[1],"data_offsets":[0,2]}}'
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(2))
    return path


def pickled(folder):
    path = folder / "objects.npz"
    np.savez(path, **{"conv1.weight": np.array([{}])})
    return path


WRONG = {
    "missing": (lambda folder: folder / "none.npz", "there is no such file: name one"),
    "of PyTorch": (of_pytorch, "which cannot be read (Ran out of input): get or convert it anew"),
    "of Keras": (of_keras, "weights.h5: give .npz, .safetensors, .pth, .pt or .bin"),
    "cut": (cut, "cannot be read"),
    "damaged": (damaged, "cannot be read"),
    "with programs in it": (pickled, "cannot be read"),
    "of one array": (of_one_array, "cannot be read (it holds one array without a name"),
    "of bfloat16": (of_bfloat16, "16, no number of numpy's): get or convert it anew"),
    "of text": (
        other("conv1.weight", lambda given, n: given.update({n: np.array(["a"])})),
        "cannot be read (conv1.weight is <U1, no number of numpy's)",
    ),
    "a shape": (
        other("layer1.0.conv2.weight", lambda given, n: given.update({n: given[n][:4]})),
        "layer1.0.conv2.weight is [4, 8, 3, 3], and the network needs [8, 8, 3, 3]",
    ),
    "a gap": (
        other("layer2.0.bn1.bias", lambda given, n: given.pop(n)), "layer2.0.bn1.bias is missing",
    ),
    "too much": (
        other("layer3.0.conv1.weight", lambda given, n: given.update({n: np.zeros((8, 8, 3, 3))})),
        "layer3.0.conv1.weight [8, 8, 3, 3] has no place in the network",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", WRONG)
def test_a_wrong_file_is_one_clear_line_before_anything_is_run(fault, tmp_path):
    make, line = WRONG[fault]
    config = config_of(make(tmp_path))
    with pytest.raises(UserError) as raised:
        checks.check(config, 1)
    text = str(raised.value)
    assert line in text
    assert "task.pretrained is " in text
    assert "\n" not in text


def test_a_file_is_checked_without_starting_a_device(file):
    """Devices may belong to workers (`parallel="trials"`), or be of another machine."""
    config = config_of(file, parallel="trials").to_json()
    program = """
        import json, sys
        from tavaal_jax.config import default
        from tavaal_jax.study.checks import config as checks
        config = default()
        config.update(json.loads(sys.argv[1]))
        checks.check(config, 1)
    """
    environment = {**os.environ, "JAX_PLATFORMS": "none_such"}
    subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), config], check=True, env=environment
    )


def test_there_are_no_such_weights_for_an_mlp(file):
    config = moons.get_config()
    config.task.pretrained = str(file)
    with pytest.raises(UserError, match="there are such weights for resnet, drn, "):
        checks.check(config, 1)
