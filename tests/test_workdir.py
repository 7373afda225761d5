"""The files of a labelling workdir."""

from tavaal_jax import config as configs
from tavaal_jax.labelling.workdir import changed_among


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
