"""What a user can get wrong: one clear line, exit code 2, nothing lost."""

import concurrent.futures
import json
import os
import shutil
import signal

import jax
import pytest
from conftest import METHOD

from tavaal_jax import main
from tavaal_jax.data.sets import tfds
from tavaal_jax.report import files


@pytest.fixture
def call(monkeypatch, capsys, tmp_path, request):
    """Calls `main` in this process, which has 4 devices: `-> exit code, lines of stderr`."""
    monkeypatch.chdir(request.config.rootpath)

    def run(*arguments, config="configs/smoke.py", workdir=tmp_path / "study"):
        code = main.main(["main", f"--config={config}", f"--workdir={workdir}", *arguments])
        return code, capsys.readouterr().err.strip().splitlines()

    return run


WRONG = {
    "unknown key": (["--config.lerning_rate=1"], "lerning_rate"),
    "unknown group": (["--config.tusk.widths=(4,)"], "tusk"),
    "a key like none": (["--config.foo=1"], "config.foo: the config has no foo; tavaal_jax/config"),
    "a group like none": (["--config.foo.bar=1"], "config.foo.bar: the config has no foo; tavaal"),
    "wrong type": (["--config.epochs=many"], "epochs"),
    "unknown flag": (["--wrokdir=x"], "wrokdir"),
    "stray argument": (["digits"], "unknown argument 'digits'"),
    "misspelt method": (["--config.methods=random,tavall"], "did you mean tavaal?"),
    "no method": (["--config.methods=,"], "name one or more of"),
    "method twice": (["--config.methods=random,random"], "name each method once"),
    "unknown data set": (["--config.dataset=digit"], "did you mean digits?"),
    "misspelt schedule": (["--config.schedule=jiont"], "is 'jiont': give joint, or else one of"),
    "unknown dtype": (["--config.dtype=float8"], "dtype is 'float8': give"),
    "misspelt freeze": (
        ["--config.ranker.when_inactive=freezes"],
        "when_inactive is 'freezes': give freeze",
    ),
    "no cycles": (["--config.cycles=0"], "cycles is 0: give at least 1"),
    "no trials": (["--config.trials=0"], "trials is 0: give at least 1"),
    "first trial": (["--config.first_trial=5"], "first_trial is 5: give less than trials = 1"),
    "measure": (["--config.mc_dropout.measure=bold"], "mc_dropout.measure is 'bold': give bald"),
    "dropout rate": (["--config.mc_dropout.rate=1.0"], "rate is 1.0: give 0 to less than 1"),
    "no passes": (["--config.mc_dropout.passes=0"], "mc_dropout.passes is 0: give at least 1"),
    "negative epochs": (["--config.epochs=-1"], "epochs is -1: give at least 1"),
    "more than the pool": (["--config.budget=1000"], "2032 is more than the 1297 training images"),
    "subset below budget": (["--config.subset=10"], "subset is 10, less than budget = 16"),
    "odd batch": (["--config.batch_size=9"], "batch_size is 9: give an even number"),
    "batch for the devices": (["--config.batch_size=12"], "give a multiple of 8, twice the 4"),
    "batch above initial": (["--config.batch_size=64"], "64, more than initial = 32"),
    "learning rate": (
        ["--config.task.learning_rate=0.0"],
        "learning_rate is 0.0: give more than 0",
    ),
    "fraction": (["--config.ranker.active_fraction=1.5"], "give a fraction between 0 and 1"),
    "widths": (["--config.task.widths=()"], "give one or more positive widths"),
    "stages": (["--config.task.widths=(4,4,4)"], "3 stages and task.blocks 2"),
    "image size": (["--config.vae.image_size=12"], "12: give 0 or a power of two"),
    "vae for images": (["--config.vae.network=mlp"], "which needs feature vectors"),
    "whole numbers": (["--config.task.widths=(4.5,4)"], "give whole numbers"),
    "seed": (["--config.seed=4294967296"], "seed is 4294967296: give 0 to less than"),
    "classes": (
        ["--config.imbalance.ratio=2", "--config.imbalance.classes=(0,10)"],
        "give labels from 0 to 9",
    ),
    "images for moons": (["--config.dataset=moons"], "2 features: choose one of mlp, linear"),
    "crops of features": (
        ["--config.dataset=moons", "--config.task.network=mlp", "--config.vae.network=mlp"],
        "give pad = 0 and flip = False",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_is_one_line_and_exit_code_2(name, call, tmp_path):
    if jax.device_count() == 1 and "devices" in name:
        pytest.skip("one device takes any even batch")
    arguments, expected = WRONG[name]
    code, lines = call(*arguments)
    assert code == 2
    (line,) = lines
    assert line.startswith("error: ")
    assert expected in line
    assert not (tmp_path / "study").exists()


def test_missing_config_file(call):
    code, lines = call(config="configs/no_such.py")
    assert code == 2
    assert len(lines) == 1
    assert "no_such.py" in lines[0]


def test_the_home_folder_may_be_written_as_a_tilde(call, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.py").write_text(
        "from configs import smoke\n\nget_config = smoke.get_config\n"
    )
    code, lines = call("--config.epochs=-1", config="~/mine.py")
    assert (code, lines) == (2, ["error: epochs is -1: give at least 1"])


def test_config_that_lacks_a_key(call, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from configs import smoke\n\ndef get_config():\n    config = smoke.get_config().unlock()\n"
        "    del config.task.widths\n    return config\n"
    )
    code, lines = call(config=path)
    assert code == 2
    assert lines == [
        "error: the config has no task.widths: build it from tavaal_jax.config.default()"
    ]


FAULTS = {
    "a name": ("import math\n\n\ndef get_config():\n    return maths.pi\n", ", line 5: NameError"),
    "syntax": ("def get_config():\n    return (\n", ", line 2: SyntaxError"),
    "an import": ("import no_such_package\n", ", line 1: ModuleNotFoundError"),
    "a file": ("open('/no/such/file')\n", ", line 1: FileNotFoundError"),
    "no function": ("config = 3\n", ": AttributeError"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_in_a_config_file_is_named_with_file_and_line(name, call, tmp_path):
    text, expected = FAULTS[name]
    path = tmp_path / "mine.py"
    path.write_text(text)
    code, lines = call(config=path)
    assert code == 2
    (line,) = lines
    assert line.startswith(f"error: {path}{expected}")


def test_no_config_at_all(run_main, capsys):
    assert main.main(["main"]) == 2
    assert "--config is missing" in capsys.readouterr().err


def test_unwritable_workdir(call, tmp_path):
    (tmp_path / "file").write_text("in the way")
    code, lines = call(workdir=tmp_path / "file" / "study")
    assert code == 2
    assert len(lines) == 1
    assert "give another --workdir" in lines[0]


def test_workdir_in_use(call, tmp_path):
    with files.claim(tmp_path / "study"):
        code, lines = call()
    assert code == 2
    assert "another process is running" in lines[0]


def test_workdir_of_another_config(call, tmp_path):
    (tmp_path / "study").mkdir()
    from configs import smoke

    old = json.loads(smoke.get_config().to_json())
    old["task"]["learning_rate"] = 0.2
    old["steps_per_call"] = 7  # changes no result, and so is no difference
    record = {"format": 2, "config": old, "data": None, "versions": {}, "git_revision": None}
    (tmp_path / "study" / "config.json").write_text(json.dumps(record))
    code, lines = call()
    assert code == 2
    assert "task.learning_rate (0.2 -> 0.1)" in lines[0]
    assert "steps_per_call" not in lines[0]


def test_workdir_of_an_earlier_version(call, tmp_path):
    from configs import smoke

    (tmp_path / "study").mkdir()
    record = {"config": json.loads(smoke.get_config().to_json()), "versions": {}}
    (tmp_path / "study" / "config.json").write_text(json.dumps(record))
    code, lines = call()
    assert code == 2
    assert "was begun by another version of tavaal_jax (format 1, this one writes 2)" in lines[0]


def test_unreadable_config_json(call, tmp_path):
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "config.json").write_text("{")
    code, lines = call()
    assert code == 2
    assert "cannot be read" in lines[0]


def test_missing_data_set(call, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(tfds.urllib.request, "urlopen", refuse)
    monkeypatch.setattr(tfds.importlib.util, "find_spec", lambda name: "installed")
    code, lines = call(
        "--config.batch_size=128", f"--config.data_dir={tmp_path}", config="configs/cifar10.py"
    )
    assert code == 2
    assert len(lines) == 1
    assert "cifar-10-binary.tar.gz" in lines[0]


def test_data_dir_that_cannot_be_written(call, tmp_path):
    (tmp_path / "file").write_text("in the way")
    code, lines = call(f"--config.data_dir={tmp_path / 'file'}", config="configs/cifar10.py")
    assert code == 2
    assert "set --config.data_dir" in lines[0]


def test_imbalance_that_leaves_too_few_images(call, tmp_path):
    code, lines = call("--config.imbalance.ratio=100", "--config.budget=600", "--config.subset=0")
    assert code == 2
    assert "training images of digits" in lines[0]
    # The folder is not spoilt for the mended command.
    assert not (tmp_path / "study" / "config.json").exists()


@pytest.mark.slow
def test_nan_stops_its_trial_with_cycle_and_step_and_keeps_the_last_good_checkpoint(
    run_main, tmp_path
):
    flags = ("--config.methods=random,vaal", "--config.trials=1", "--config.cycles=2")
    flags += ("--config.epochs=3", "--config.vae.learning_rate=1e20", "--config.vae.optimiser=sgd")
    flags += ("--config.checkpoint_every_steps=1",)
    done = run_main("moons", tmp_path, *flags)
    assert done.returncode == 2
    line = done.stderr.strip().splitlines()[-1]
    assert "is not finite in cycle 0" in line or "is nan in cycle 0, stage joint" in line
    assert "step" in line
    kept = tmp_path / "vaal" / "trial_0" / "checkpoints"
    assert f"the last good checkpoint is kept in {kept}: lower the learning rates" in line
    assert any(kept.iterdir())
    # The other trial is finished all the same.
    assert (tmp_path / "random" / "trial_0" / "model" / "model.json").exists()
    assert "the other trials go on" in done.stdout
    # The same command, where the checkpoints were damaged in the meantime.
    for folder in kept.iterdir():
        shutil.rmtree(folder / "arrays")
        shutil.rmtree(folder / "counters")
    done = run_main("moons", tmp_path, *flags)
    assert done.returncode == 2, done.stderr
    assert "none of the checkpoints in" in done.stderr.strip().splitlines()[-1]
    assert kept.exists()


@pytest.mark.slow
def test_a_value_that_is_not_finite_is_not_blamed_on_the_training(run_main, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(METHOD.format(body="return jnp.log(-jnp.ones(()))"))
    done = run_main(path, tmp_path / "study")
    assert done.returncode == 2, done.stderr
    line = done.stderr.strip().splitlines()[-1]
    assert "mine trial 0: in cycle 0, value of 100 of 100 images is not finite" in line
    assert "mend the method's value" in line


def test_a_fault_in_a_method_keeps_its_traceback(run_main, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(METHOD.format(body="return view.label"))
    done = run_main(path, tmp_path / "study")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert f'File "{path}", line 7, in value' in done.stderr
    assert "'View' object has no attribute 'label'" in done.stderr
    assert not (tmp_path / "study" / "mine").exists()  # It was seen before any training.


@pytest.mark.slow
def test_a_full_disk_is_named_and_the_same_command_continues(call, tmp_path, monkeypatch):
    import errno

    flags = ("--config.methods=random", "--config.trials=1", "--config.cycles=2")
    replace = os.replace

    def full(source, target):
        if str(target).endswith("picks.csv"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        code, lines = call(*flags, "--config.batch_size=8")
    assert code == 2
    assert "picks.csv (No space left on device): free some space" in lines[-1]
    assert call(*flags, "--config.batch_size=8")[0] == 0


def test_an_error_of_ours_keeps_its_traceback(call, monkeypatch):
    from tavaal_jax.study.parallel import runner

    def broken(*_):
        raise OSError("from deep within")

    monkeypatch.setattr(runner.setup, "place", broken)
    with pytest.raises(OSError, match="from deep within"):
        call("--config.methods=random")


@pytest.mark.slow
def test_distributed_on_one_machine(run_main, tmp_path):
    done = run_main("smoke", tmp_path, "--distributed")
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: --distributed cannot join other processes")


def test_data_prepared_in_another_format(call, tmp_path):
    folder = tmp_path / "cifar10" / "3.0.2"
    folder.mkdir(parents=True)
    info = {"name": "cifar10", "version": "3.0.2", "fileFormat": "tfrecord"}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    (folder / "features.json").write_text("{}")
    code, lines = call(f"--config.data_dir={tmp_path}", config="configs/cifar10.py")
    assert code == 2
    assert "give --config.data_dir a folder of its own" in lines[0]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU])
def test_signals_that_a_batch_system_warns_by_are_asked_to_stop_by(number):
    with main.Signals() as signals:
        signal.raise_signal(number)
    assert signals.received == number
    assert signal.getsignal(number) == signal.SIG_DFL


def test_a_signal_that_something_else_listens_to_is_left_alone():
    heard = []
    before = signal.signal(signal.SIGUSR1, lambda number, frame: heard.append(number))
    try:
        with main.Signals() as signals:
            signal.raise_signal(signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert heard == [signal.SIGUSR1]
    assert signals.received is None


def test_another_thread_runs_without_handling_signals():
    def enter():
        with main.Signals() as signals:
            return signals.received

    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        assert thread.submit(enter).result() is None
