"""Settings of locales in which a program's files are to be the same."""

import pathlib
import shutil
import subprocess

import pytest

NAMES = ("C", "C.UTF-8", "Latin-1")


def settings(name: str, folder: pathlib.Path) -> dict[str, str]:
    """Environment variables of a locale; Latin-1 is made in `folder`, or the test skipped."""
    fixed = {"LC_ALL": name, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    if name != "Latin-1":
        return fixed
    if shutil.which("localedef") is None:
        pytest.skip("there is no localedef to make a Latin-1 locale")
    folder.mkdir(exist_ok=True)
    subprocess.run(
        ["localedef", "-i", "en_US", "-f", "ISO-8859-1", folder / "en_US"],
        capture_output=True, check=False,
    )  # fmt: skip
    if not (folder / "en_US").is_dir():
        pytest.skip("localedef has no ISO-8859-1")
    return {**fixed, "LC_ALL": "en_US", "LOCPATH": str(folder)}
