"""The files of a labelling workdir."""

import hashlib
import json

from tavaal_jax import config as configs
from tavaal_jax.labelling.workdir import LabellingWorkdir, changed_among


def model(folder, content, backbone=True):
    """A folder of a model whose backbone's weights are a file of `content`."""
    folder.mkdir()
    sha256 = hashlib.sha256(content).hexdigest()
    record = {"backbone": {"file": "dino.pth", "sha256": sha256}} if backbone else {}
    (folder / "model.json").write_text(json.dumps(record))
    return folder


def test_weights_that_were_put_into_a_model_stay_when_it_is_replaced(tmp_path):
    workdir = LabellingWorkdir(tmp_path)
    for number, (content, is_kept) in enumerate(((b"a", True), (b"b", False), (b"a", False))):
        workdir.replace_model(model(tmp_path / f"new_{number}", content))
        (workdir.model / "note.txt").write_text("of this model alone")
        if number == 0:
            (workdir.model / "dino.pth").write_bytes(b"a")
        found = (workdir.model / "dino.pth").exists()
        assert found == is_kept, content
    (workdir.model / "dino.pth").write_bytes(b"a")
    for _ in range(2):
        workdir.replace_model(model(tmp_path / "new", b"a"))
        assert (workdir.model / "dino.pth").read_bytes() == b"a"
        assert not (workdir.model / "note.txt").exists()
    workdir.model.rename(tmp_path / ".model.old")  # A process was killed between two renames.
    workdir.replace_model(model(tmp_path / "new", b"a"))
    assert (workdir.model / "dino.pth").read_bytes() == b"a"
    workdir.replace_model(model(tmp_path / "new", b"", backbone=False))
    assert not (workdir.model / "dino.pth").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_a_key_that_an_earlier_version_did_not_have_had_its_default():
    config = configs.default()
    record = {"config": configs.plain(config)}
    del record["config"]["metrics"]
    keys = ("seed", "metrics", "folder.image_size")
    assert changed_among(record, config, keys) == []
    config.metrics, config.seed = "accuracy,macro_f1", 3
    assert changed_among(record, config, keys) == [
        "seed (0 -> 3)", "metrics (accuracy -> accuracy,macro_f1)",
    ]  # fmt: skip
