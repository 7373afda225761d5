"""The benchmark scripts run and keep their promise of one JSON object on the last line."""

import json
import pathlib
import subprocess
import sys

import pytest

FOLDER = pathlib.Path(__file__).parent.parent / "benchmarks"


def last_line(script, *flags):
    command = [sys.executable, str(FOLDER / script), *flags, "--json"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(result.stdout.splitlines()[-1])


@pytest.mark.slow
def test_kcenter_gives_its_ratio_on_the_last_line():
    result = last_line("kcenter.py", "--subset=200", "--labelled=10", "--picks=20", "--rounds=2")
    assert result["ratio"] > 0
    assert len(result["seconds"]["ours"]) == 2


def test_each_states_its_claim():
    for path in FOLDER.glob("*.py"):
        text = path.read_text()
        shared = path.name in (
            "harness.py", "torch_peer.py", "torch_networks.py", "mosaics.py", "packed.py",
            "feature_files.py",
        )  # fmt: skip
        study = path.stem in (
            "ablation", "overview", "stop_hint", "scaling", "picks", "features",
            "methods_on_features", "tables", "bounds", "which_method", "cifar10_small",
            "camvid_small", "on_gpu", "near_duplicates", "label_film", "feature_pool",
        )  # fmt: skip
        assert shared or text.startswith('"""Claim: '), path.name
        assert shared or study or "`ratio`" in text, path.name


@pytest.mark.slow
def test_the_peer_answers_one_line_per_run():
    pytest.importorskip("torch")
    arguments = json.dumps({"batch_size": 4, "latent": 8, "hidden": 2})
    command = [sys.executable, str(FOLDER / "torch_peer.py"), "reduced", arguments]
    turns = '{"timed": 2}\n{"untimed": 1}\n'
    result = subprocess.run(command, input=turns, capture_output=True, text=True, check=True)
    about, *runs = [json.loads(line) for line in result.stdout.splitlines()]
    assert about["memory_format"] in ("channels_last", "contiguous")
    # Three passes over 2 batches, and the encoder once more: (3 x 1.0 + 0.2) GFLOP per image.
    assert 20 < about["gflop"] < 30
    assert len(runs) == 2
