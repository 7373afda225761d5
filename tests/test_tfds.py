"""The real TFDS builders on small archives in the upstream layouts, then the real command line."""

import importlib.util
import pathlib
import socket
import subprocess
import sys

import archives
import numpy as np
import pytest
from conftest import read_csv

from configs import cifar10, cifar100, svhn
from tavaal_jax.data import load
from tavaal_jax.data.sets import tfds
from tavaal_jax.errors import UserError

SMALL = (
    "--config.trials=1",
    "--config.cycles=2",
    "--config.epochs=1",
    "--config.batch_size=16",
    "--config.initial=32",
    "--config.budget=16",
    "--config.subset=64",
    "--config.task.widths=(4,4)",
    "--config.task.blocks=(1,1)",
    "--config.ranker.features=4",
    "--config.vae.widths=(4,4)",
    "--config.vae.image_size=8",
    "--config.vae.epochs=2",
    "--config.discriminator.hidden=(8,8)",
)


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    if importlib.util.find_spec("tensorflow") is None:
        pytest.skip("needs the extra tfds")
    folder = tmp_path_factory.mktemp("data")
    archives.cifar10(folder)
    archives.cifar100(folder)
    archives.svhn_cropped(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "method"),
    [("cifar10", "tavaal"), ("cifar10_released", "tavaal"), ("cifar10_imbalanced", "random"),
     ("cifar100", "random"), ("svhn", "random")],
)  # fmt: skip
def test_every_tfds_config_runs_to_its_end(config, method, data_dir, run_main, tmp_path):
    """Shrunk: results, picks, a figure. Where data alone are others, T alone sees them.

    Of `cifar100_vaal`, which is `cifar100` with other sizes, nothing is left when it is shrunk.
    """
    flags = (*SMALL, f"--config.data_dir={data_dir}", f"--config.methods={method}")
    done = run_main(config, tmp_path, *flags)
    assert done.returncode == 0, done.stderr
    rows = read_csv(tmp_path / "results.csv")
    assert [(r["method"], r["cycle"], r["labelled"]) for r in rows] == [
        (method, str(cycle), str(32 + 16 * cycle)) for cycle in (0, 1)
    ]
    picks = read_csv(tmp_path / method / "trial_0" / "picks.csv")
    assert len({p["index"] for p in picks}) == 16
    # A pool index means the same image everywhere: its number in upstream's order.
    if config != "cifar10_imbalanced":
        assert all(int(p["id"].rpartition("_")[2]) == int(p["index"]) for p in picks)
    assert (tmp_path / "accuracy.png").stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "classes", "digits"),
    [(cifar10, 10, 5), pytest.param(cifar100, 100, 5, marks=pytest.mark.slow), (svhn, 10, 6)],
)
def test_images_come_in_upstreams_order(config, classes, digits, data_dir):
    config = config.get_config()
    config.data_dir = str(data_dir)
    data = load(config)
    np.testing.assert_array_equal(data.train_images, archives.images(archives.CIFAR_TRAIN, 0))
    np.testing.assert_array_equal(data.test_images, archives.images(archives.CIFAR_TEST, 1))
    np.testing.assert_array_equal(data.train_labels, archives.labels(archives.CIFAR_TRAIN, classes))
    assert data.train_ids[7] == f"train_{7:0{digits}d}"
    assert data.classes == classes


@pytest.mark.slow
def test_training_never_imports_tensorflow(data_dir):
    script = (
        "import sys; from configs import cifar10; from tavaal_jax import data, main;"
        "from tavaal_jax.study import study; from tavaal_jax.study.notebook import query;"
        "config = cifar10.get_config(); config.data_dir = sys.argv[1]; data.load(config);"
        "sys.exit('tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(data_dir)], check=False)
    assert done.returncode == 0


def missing(tmp_path):
    config = cifar10.get_config()
    config.data_dir = str(tmp_path)
    return config


def pretend(monkeypatch, tensorflow):
    """That TensorFlow is installed, or not."""
    find = importlib.util.find_spec
    found = lambda name: tensorflow if name == "tensorflow" else find(name)
    monkeypatch.setattr(importlib.util, "find_spec", found)


def test_without_tensorflow_the_error_says_what_to_install(tmp_path, monkeypatch):
    pretend(monkeypatch, None)
    with pytest.raises(UserError, match=r"pip install 'tavaal_jax\[tfds\]'"):
        load(missing(tmp_path))


def test_without_a_network_the_error_says_which_file_to_place_where(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    pretend(monkeypatch, "installed")
    with pytest.raises(UserError) as error:
        load(missing(tmp_path))
    assert tfds.URLS["cifar10"][0] in str(error.value)
    assert str(pathlib.Path(tmp_path, "downloads", "manual")) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_a_damaged_file_gives_the_builders_reason(tmp_path, data_dir):
    manual = tmp_path / "downloads" / "manual"
    manual.mkdir(parents=True)
    (manual / "cifar-10-binary.tar.gz").write_bytes(b"not the archive")
    with pytest.raises(UserError, match="preparing cifar10 failed") as error:
        load(missing(tmp_path))
    assert "\n" not in str(error.value)
