"""Every key of a config, and config files with what can be wrong with them."""

import sys

import pytest
from conftest import ROOT

from tavaal_jax import config as configs
from tavaal_jax import config_file, renamed_keys
from tavaal_jax.config import KEYS
from tavaal_jax.errors import UserError


def test_each_default_keeps_its_own_limit_and_has_a_comment():
    for name, key in KEYS.items():
        assert key.limit is None or key.limit(key.default) is None, name
        assert key.comment.strip(), name
        assert "\n" not in key.comment, name


def test_the_default_has_every_key_once_and_is_locked():
    config = configs.default()
    flat = configs.flat(config.to_dict())
    assert flat == {name: key.default for name, key in KEYS.items()}
    configs.check(config)
    with pytest.raises(AttributeError):
        config.lerning_rate = 1
    with pytest.raises(AttributeError):
        config.task.lerning_rate = 1
    config.task.learning_rate = 1.0
    assert configs.default().task.learning_rate == 0.1


# (key, values that break its limit, part of the message)
BROKEN = [
    ("seed", (-1, 2**31), "0 to less than"),
    ("cycles", (-1, -3), "at least 0"),
    ("subset", (-1,), "at least 0"),
    ("batch_size", (1,), "at least 2"),
    ("schedule", ("jiont",), "give joint, or else one of joint, two_phase"),
    ("dtype", ("float8",), "one of float32, bfloat16"),
    ("imbalance.ratio", (0,), "at least 1"),
    ("imbalance.classes", ((0.5,), ("a",)), "whole numbers"),
    ("normalisation.mean", (("a",),), "numbers"),
    ("task.widths", ((), (0,), (4, -1)), "one or more positive widths"),
    ("task.widths", ((4.5,),), "whole numbers"),
    ("task.learning_rate", (0.0, -1.0), "more than 0"),
    ("task.momentum", (1.1, -0.1), "a fraction between 0 and 1"),
    ("mc_dropout.rate", (1.0, -0.5), "0 to less than 1"),
    ("metrics", ("", "macro_f1", "accuracy,f1", "accuracy,accuracy"), "accuracy, and what"),
    ("vae.image_size", (12, 2, -4), "0 or a power of two from 4 upwards"),
]


@pytest.mark.parametrize(("name", "values", "mend"), BROKEN)
def test_a_value_that_breaks_its_limit_is_named_with_a_mend(name, values, mend):
    for value in values:
        config = configs.default()
        with config.ignore_type():
            config.update_from_flattened_dict({name: value})
        with pytest.raises(UserError) as error:
            configs.check(config)
        assert str(error.value).startswith(f"{name} is {value!r}: give ")
        assert mend in str(error.value)


def test_a_value_of_a_kind_that_cannot_be_compared_is_named():
    config = configs.default()
    with config.ignore_type():
        config.epochs = "many"
    with pytest.raises(UserError, match="epochs is 'many': give such as 200"):
        configs.check(config)


@pytest.mark.parametrize("name", ["epochs", "task.widths", "task"])
def test_a_config_that_lacks_a_key_is_refused(name):
    config = configs.default().unlock()
    *group, last = name.split(".")
    del (config[group[0]] if group else config)[last]
    with pytest.raises(UserError, match=rf"the config has no {name}.*config\.default\(\)"):
        configs.check(config)


# Files


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("[!_]*.py")), ids=lambda p: p.stem)
def test_every_config_of_the_clone_keeps_all_limits(path):
    config = config_file.load(path)
    configs.check(config)
    assert config.is_locked


@pytest.fixture
def file(tmp_path):
    """Writes a config file: `text -> path`."""

    def write(text):
        (tmp_path / "mine.py").write_text(text)
        return tmp_path / "mine.py"

    return write


GOOD = """
from tavaal_jax import config

def get_config(epochs=7):
    made = config.default()
    made.epochs = int(epochs)
    return made
"""


def test_overrides_flat_and_nested(file):
    path = file(GOOD)
    assert config_file.load(path).epochs == 7
    config = config_file.load(str(path), cycles=3, **{"vae.latent": 16, "task.widths": (8, 8)})
    assert (config.cycles, config.vae.latent, config.task.widths) == (3, 16, (8, 8))
    assert config.epochs == 7
    assert config_file.load(f"{path}:20").epochs == 20


def test_a_path_may_have_a_colon_in_it(tmp_path):
    path = tmp_path / "run_12:30" / "mine.py"
    path.parent.mkdir()
    path.write_text(GOOD, "utf-8")
    assert config_file.load(str(path)).epochs == 7
    assert config_file.load(f"{path}:20").epochs == 20
    assert config_file.stem(f"{path}:20") == config_file.stem("mine:20") == "mine"
    with pytest.raises(UserError, match=r"there is no config file .*/run_12:30/yours.py: give"):
        config_file.load(str(path.with_name("yours.py")))


def test_a_file_finds_its_own_neighbours(tmp_path):
    before = list(sys.path)
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "neighbour.py").write_text(GOOD.replace("7", str(number + 1)), "utf-8")
        (folder / "mine.py").write_text("from neighbour import get_config", "utf-8")
        assert config_file.load(folder / "mine.py").epochs == number + 1
    assert sys.path == before
    assert "neighbour" not in sys.modules


def test_a_file_of_the_clone_finds_its_neighbours_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    assert config_file.load(ROOT / "configs" / "smoke.py").dataset == "digits"
    assert sys.path == before


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"lerning_rate": 1.0}, "the config has no lerning_rate"),
        ({"vae.latents": 3}, "the config has no vae.latents"),
        ({"tusk.widths": (4,)}, "the config has no tusk.widths"),
        ({"epochs": "many"}, "epochs is 'many': "),
        ({"vae.latent": 2.5}, "vae.latent is 2.5: "),
        ({"vae": 3}, "vae is 3: "),
        ({"task": {"widths": (8,)}}, "task is {'widths': (8,)}: give its keys by their dotted"),
        ({"dataset.name": "x"}, "the config has no dataset.name"),
        ({"epochs.task": 3}, "the config has no epochs.task"),
    ],
)  # fmt: skip
def test_a_wrong_override_is_one_line(file, overrides, message):
    with pytest.raises(UserError) as error:
        config_file.load(file(GOOD), **overrides)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"there is no config file .*no_such\.py: give a file"):
        config_file.load(tmp_path / "no_such.py")
    with pytest.raises(UserError, match="there is no config file"):
        config_file.load(tmp_path)


def test_a_file_that_is_not_python(tmp_path):
    (tmp_path / "mine.txt").write_text("epochs = 3")
    with pytest.raises(UserError, match=r"mine\.txt is no Python file"):
        config_file.load(tmp_path / "mine.txt")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\nraise ValueError('first\\nsecond')\n", "line 2: ValueError: first second"),
        ("\n\ndef get_config():\n    return 1 / 0\n", "line 4: ZeroDivisionError: division by"),
        ("x = 1\ndef get_config(:\n", "line 2: SyntaxError: "),
        ("import no_such_package\n", "line 1: ModuleNotFoundError: No module named"),
        ("x = 1\n", "AttributeError: module '_config_mine' has no attribute 'get_config'"),
        ("def get_config():\n    return None\n", "AttributeError: "),
        ("def get_config():\n    raise KeyError\n", "line 2: KeyError: no message"),
    ],
)
def test_what_a_file_raises_is_one_line_with_file_and_line(file, text, message):
    path, before = file(text), list(sys.path)
    with pytest.raises(UserError) as error:
        config_file.load(path)
    assert str(error.value).startswith(f"{path}")
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert sys.path == before


def test_a_users_fault_in_a_file_stays_as_it_is(file):
    text = "from tavaal_jax.errors import UserError\ndef get_config():\n    raise UserError('mine')"
    with pytest.raises(UserError) as error:
        config_file.load(file(text))
    assert str(error.value) == "mine"


# Differences


def test_only_keys_that_change_results_are_differences():
    before, now = configs.plain(configs.default()), configs.default()
    for name, key in KEYS.items():
        if key.neutral:
            other = "other" if isinstance(key.default, str) else key.default + 1
            with now.ignore_type():
                now.update_from_flattened_dict({name: other})
    assert list(configs.differences(before, configs.plain(now))) == []
    now.epochs, now.task.widths = 7, (1, 2)
    assert list(configs.differences(before, configs.plain(now))) == [
        "epochs (200 -> 7)",
        "task.widths ([64, 128, 256, 512] -> [1, 2])",
    ]


def test_a_key_that_an_older_version_did_not_have_had_its_default():
    before, now = configs.plain(configs.default()), configs.plain(configs.default())
    del before["rank_to_decoder"], before["sraal"]
    assert list(configs.differences(before, now)) == []
    now["rank_to_decoder"] = "none"
    expected = ["rank_to_decoder (normalised -> none)"]
    assert list(configs.differences(before, now)) == expected
    before["gone"] = 1
    assert list(configs.differences(before, now)) == ["gone (1 -> None)", *expected]


def test_neutral_keys_are_the_ones_that_say_how_and_how_much_is_run():
    assert {name for name, key in KEYS.items() if key.neutral} == {
        "data_dir", "backbone.weights", "backbone.features", "methods", "trials",
        "first_trial", "data_placement", "parallel", "workers", "ray.address", "ray.share",
        "steps_per_call", "seconds_per_call", "log_every_steps", "checkpoint_every_steps",
        "cityscapes.folder", "cityscapes.cache", "labelled_folder.path", "maps_folder.images",
        "maps_folder.maps", "maps_folder.train", "maps_folder.test", "maps_folder.cache",
        "folder.images", "folder.follow_links", "folder.suggest", "folder.request_parts",
        "folder.label_studio_images", "folder.label_studio_root", "folder.poll_seconds",
    }  # fmt: skip


def test_the_configs_default_is_the_packages():
    assert config_file.load(ROOT / "configs" / "default.py") == configs.default()


# Names of an earlier version

OLD = {
    "ranker.until_fraction": ("ranker.active_fraction", 0.8),
    "ranker.after": ("ranker.when_inactive", "freeze"),
    "ranker.eta": ("ranker.loss_weight", 0.5),
    "feed": ("data_placement", "streamed"),
    "folder.bad": ("folder.exclude_answers", ("no",)),
    "folder.parts": ("folder.request_parts", 3),
}


def test_every_renamed_key_is_one_of_today():
    assert {old: new for old, (new, _) in OLD.items()} == renamed_keys.KEYS
    assert set(renamed_keys.KEYS.values()) <= set(KEYS)
    assert not set(renamed_keys.KEYS) & set(KEYS)


@pytest.mark.parametrize("old", OLD)
def test_an_old_key_is_read_and_says_the_new_one(old):
    new, value = OLD[old]
    *groups, name = old.split(".")
    by_update, by_attribute = configs.default(), configs.default()
    with pytest.warns(FutureWarning, match=f"{old} is called {new} now"):
        configs.override(by_update, **{old: value})
    group = by_attribute[groups[0]] if groups else by_attribute
    with pytest.warns(FutureWarning):
        setattr(group, name, value)
    with pytest.warns(FutureWarning):
        assert getattr(group, name) == value
    assert configs.flat(configs.plain(by_update)) == configs.flat(configs.plain(by_attribute))
    assert by_update[new] == value
    with pytest.warns(FutureWarning):
        assert renamed_keys.present_flag(f"--config.{old}=x") == f"--config.{new}=x"


def test_old_values_are_read_and_say_the_new_ones():
    config = configs.default()
    with pytest.warns(FutureWarning, match="dataset='folder' is called 'people' now"):
        config.dataset = "folder"
    with pytest.warns(FutureWarning, match="parallel='data' is called 'devices' now"):
        config.parallel = "data"
    assert (config.dataset, config.parallel) == ("people", "devices")


def test_a_config_that_an_earlier_version_wrote_is_that_of_today():
    now = configs.default()
    configs.override(now, **dict(OLD.values()), dataset="people")
    old = configs.plain(now)
    for name, (new, _) in OLD.items():
        place = old if "." not in name else old[name.split(".")[0]]
        place[name.split(".")[-1]] = place.pop(new.split(".")[-1])
    old["dataset"], old["parallel"] = "folder", "data"
    old["tensorboard"], old["cityscapes"]["through"] = True, "tfds"  # Keys that are gone.
    assert renamed_keys.present_record(old) == configs.plain(now)
