"""The command line of the live page."""

import json
import pathlib

import pytest

from tavaal_jax import label
from tavaal_jax.errors import UserError


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working directory with two folders called photos."""
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        (tmp_path / name / "photos").mkdir(parents=True)
    return tmp_path


def begun(workdir, images):
    workdir.mkdir(parents=True)
    config = {"config": {"folder": {"images": str(images)}}}
    (workdir / "config.json").write_text(json.dumps(config))


def test_without_a_workdir_it_is_called_like_the_folder(place):
    command = label.parse(["label", str(place / "a" / "photos"), "--port=0"])
    assert command.study.workdir == pathlib.Path("runs/photos")
    assert command.study.config.folder.images == str(place / "a" / "photos")


def test_the_workdir_of_another_folder_of_the_same_name_is_refused(place):
    begun(place / "runs" / "photos", place / "a" / "photos")
    assert label.parse(["label", "a/photos"]).study.workdir.name == "photos"
    with pytest.raises(UserError, match=r"has the labels of .*a/photos, not of b/photos"):
        label.parse(["label", "b/photos"])
    assert label.parse(["label", "b/photos", "--workdir=mine"]).study.workdir.name == "mine"


def test_a_folder_that_was_moved_goes_on(place):
    begun(place / "runs" / "photos", place / "a" / "photos")
    (place / "a" / "photos").rename(place / "photos")
    assert label.parse(["label", "photos"]).study.workdir.name == "photos"
