"""README's Python blocks run as printed, one after the other; its links lead somewhere."""

import os
import re
import subprocess
import sys

import pytest
from conftest import ROOT

STUDIES = [str(p.relative_to(ROOT)) for p in ROOT.glob("benchmarks/studies/**/README.md")]
TEXTS = ("README.md", "tavaal_jax/README.md", "configs/README.md", "benchmarks/README.md",
         "CONTRIBUTING.md", "CHANGELOG.md", *sorted(STUDIES))  # fmt: skip
ANCHORED = [text for text in TEXTS if text != "CHANGELOG.md"]


def blocks(language):
    """Contents of README's blocks in a language."""
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


@pytest.mark.slow
def test_python_blocks_run(compiled, tmp_path):
    script = "\n".join(blocks("python"))
    assert "run_study" in script
    assert "query" in script
    for table in ("METHODS", "NETWORKS", "SETS", "adversary="):
        assert table in script
    flags = os.environ["XLA_FLAGS"].replace("count=4", "count=1")
    cache = {"JAX_COMPILATION_CACHE_DIR": str(compiled)}
    environment = {**os.environ, "XLA_FLAGS": flags, **cache}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "accuracy" in done.stdout


def test_two_set_up_commands():
    commands = [block for block in blocks("bash") if "venv" in block]
    assert len(commands) == 2
    assert "--config=digits" in commands[0]
    assert commands[1].rstrip().endswith("pytest")


@pytest.mark.parametrize("text", TEXTS)
def test_links_lead_somewhere(text):
    path = ROOT / text
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text())
    missing = [link for link in links if "://" not in link and not (path.parent / link).exists()]
    assert not missing
    assert links or text not in ("README.md", "benchmarks/README.md", "CONTRIBUTING.md")


@pytest.mark.parametrize("text", ANCHORED)
def test_links_to_a_heading_find_it(text):
    path = ROOT / text
    for link, anchor in re.findall(r"\]\(([^)#\s]*)#([^)\s]+)\)", path.read_text()):
        target = path.parent / link if link else path
        if "://" not in link and target.suffix == ".md":
            heads = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", head).lower().replace(" ", "-") for head in heads}
            assert anchor in anchors, f"{text}: {link}#{anchor}"
