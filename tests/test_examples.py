"""The examples run as their first lines say, are short, and the notebook is the first of them."""

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest
from conftest import QUICK_COMPILATION, ROOT

EXAMPLES = ROOT / "tavaal_jax" / "examples"
NOTEBOOK = EXAMPLES / "label_folder.ipynb"
NAMES = sorted(path.stem for path in EXAMPLES.glob("[!_]*.py"))


def test_there_are_three_short_ones():
    assert NAMES == ["label_folder", "own_method", "own_network"]
    for name in NAMES:
        text = (EXAMPLES / f"{name}.py").read_text()
        assert len(text.splitlines()) <= 60
        assert f"python -m tavaal_jax.examples.{name}\n" in text


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_they_run(name, compiled, tmp_path):
    # They train, which optimised code does in a fifth of the time.
    flags = os.environ["XLA_FLAGS"].replace("count=4", "count=1").replace(QUICK_COMPILATION, "")
    environment = {
        **os.environ, "XLA_FLAGS": flags, "JAX_COMPILATION_CACHE_DIR": str(compiled),
        "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", f"tavaal_jax.examples.{name}"], cwd=tmp_path, env=environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    accuracies = [float(x) for x in re.findall(r"accuracy (\d\.\d+)", done.stdout)]
    assert max(accuracies) > 0.6
    assert os.listdir(tmp_path) == ["runs"]


def test_the_notebook_is_executed_and_of_no_machine():
    text = NOTEBOOK.read_text()
    assert len(text) < 200_000
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert outputs
    assert not any(output["output_type"] == "error" for output in outputs)
    assert not re.search(r"/(home|root|tmp|usr|work|mnt)/", text)
    assert str(pathlib.Path.home()) not in text or str(pathlib.Path.home()) == "/"
    # What it defines is what the script does, word for word.
    script = (EXAMPLES / "label_folder.py").read_text()
    for name in ("write_photos", "answer"):
        function = re.search(rf"def {name}\(.*?\n\n\n", script, re.DOTALL).group().strip()
        assert any(function in "".join(cell["source"]) for cell in cells)
