"""benchmarks/on_gpu.py with tiny networks: killed at any moment, it goes on to the same results."""

import itertools
import json
import os
import random
import subprocess
import sys
import tarfile
import time

import numpy as np
import pytest
from conftest import ROOT, read_csv
from PIL import Image


@pytest.fixture
def tar(tmp_path):
    """Mosaics of random images, 16 of each of 10 classes, in a tar."""
    generator, path = np.random.default_rng(0), tmp_path / "cifar10.tar"
    with tarfile.open(path, "w") as packed:
        for split, name in itertools.product(("train", "test"), "abcdefghij"):
            file = tmp_path / "mosaic.jpg"
            pixels = generator.integers(0, 256, (4 * 32, 4 * 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(file)
            packed.add(file, f"{split}/{name}.jpg")
    return path


def command(tar, out):
    return [
        sys.executable, ROOT / "benchmarks" / "on_gpu.py", "--tiny", "--points=trials",
        "--methods=random", f"--data={tar}", f"--out={out}", "--minutes=600",
    ]  # fmt: skip


ENVIRONMENT = {**os.environ, "XLA_FLAGS": ""}  # One device.


def results(out):
    """What is the same in each run: all of trial 0 but seconds. A finished one begins trial 1."""
    return [
        [
            {name: value for name, value in row.items() if not name.startswith("seconds")}
            for row in read_csv(out / file)
            if row["trial"] == "0"
        ]
        for file in ("results.csv", "picks.csv", "diagnostics.csv")
    ]


@pytest.mark.slow
def test_killed_at_random_moments_it_goes_on_to_the_same_results(tar, tmp_path):
    begin = time.monotonic()
    subprocess.run(command(tar, tmp_path / "whole"), env=ENVIRONMENT, check=True)
    longest = time.monotonic() - begin
    moments = [random.uniform(0.1, 0.4) * longest for _ in range(2)]
    for moment in moments:
        process = subprocess.Popen(command(tar, tmp_path / "cut"), env=ENVIRONMENT)
        try:
            process.wait(moment)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    subprocess.run(command(tar, tmp_path / "cut"), env=ENVIRONMENT, check=True)
    assert results(tmp_path / "cut") == results(tmp_path / "whole"), moments
    rows = results(tmp_path / "cut")[0]
    assert {row["condition"] for row in rows} == {"balanced", "thinned_100"}
    assert len(rows) == 2 * 3
    units = json.loads((tmp_path / "whole" / "timings.json").read_text())
    assert [unit["point"] for unit in units] == ["trials", "trials"]


@pytest.mark.slow
def test_nothing_is_begun_without_time(tar, tmp_path):
    begun = [*command(tar, tmp_path), "--minutes=0"]
    done = subprocess.run(begun, env=ENVIRONMENT, check=True, capture_output=True, text=True)
    assert "not begun" in done.stdout
    assert not (tmp_path / "results.csv").exists()
