"""Saving and restoring LoopState."""

import jax
import numpy as np
import pytest
from tavaal_jax.checkpoints import Checkpoints
from tavaal_jax.loop import start
from tavaal_jax.methods import METHODS

from configs import moons
from tavaal_jax import programs
from tavaal_jax.data import load
from tavaal_jax.errors import UserError


@pytest.fixture(scope="module")
def state():
    config = moons.get_config()
    dataset = load(config)
    run = programs.prepare(config, METHODS["tavaal"], dataset, dataset.on_device())
    return start(run, jax.random.key(0))


def saved(folder, *states):
    """Checkpoints of `states`, all written."""
    checkpoints = Checkpoints(folder)
    for each in states:
        checkpoints.save(each)
    checkpoints.close()
    return Checkpoints(folder)


def damage(folder):
    for file in (p for p in folder.rglob("*") if p.is_file()):
        file.write_bytes(b"\0" * 7)


def test_everything_comes_back(state, tmp_path):
    state = state.replace(cycle=1, stage=2, step=7)
    state.results[0] = 0.123456789
    checkpoints = saved(tmp_path, state)
    template = state.replace(cycle=0, stage=0, step=0, results=np.zeros_like(state.results))
    template = jax.tree.map(lambda x: x * 0, template)
    restored = checkpoints.restore(template)
    assert (restored.cycle, restored.stage, restored.step) == (1, 2, 7)
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    jax.tree.map(np.testing.assert_array_equal, restored, state)
    assert checkpoints.progress()["results"][0] == state.results[0].tolist()


def test_nothing_saved_is_none(state, tmp_path):
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.restore(state) is None
    assert checkpoints.progress() is None


def test_the_two_newest_are_kept_and_a_moment_is_saved_once(state, tmp_path):
    checkpoints = saved(tmp_path, *(state.replace(step=step) for step in (1, 2, 2, 3)))
    assert len([p for p in tmp_path.iterdir() if p.is_dir()]) == 2
    assert checkpoints.restore(state).step == 3


def test_a_damaged_newest_checkpoint_is_skipped_with_a_warning(state, tmp_path):
    saved(tmp_path / "checkpoints", *(state.replace(step=step) for step in (1, 2)))
    newest = max(
        (p for p in (tmp_path / "checkpoints").iterdir() if p.is_dir()), key=lambda p: int(p.name)
    )
    damage(newest)
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    with pytest.warns(UserWarning, match="skipping unreadable checkpoint"):
        assert checkpoints.restore(state).step == 1
    # It is moved away, and its moment can be saved again.
    checkpoints.save(state.replace(step=2))
    checkpoints.close()
    assert Checkpoints(tmp_path / "checkpoints").restore(state).step == 2
    assert len(list((tmp_path / "unreadable_checkpoints").iterdir())) == 1


def test_a_state_that_is_not_finite_is_not_saved(state, tmp_path):
    checkpoints = saved(tmp_path, state)
    params = jax.tree.map(lambda x: x * np.nan, state.task.learner_params)
    with pytest.raises(FloatingPointError, match="learner_params"):
        checkpoints.save(state.replace(step=5, task=state.task.replace(learner_params=params)))
    assert checkpoints.progress()["step"] == 0


def test_only_damaged_checkpoints_are_an_error(state, tmp_path):
    saved(tmp_path, state)
    damage(tmp_path)
    checkpoints = Checkpoints(tmp_path)
    with (
        pytest.warns(UserWarning, match="skipping unreadable checkpoint"),
        pytest.raises(UserError, match="delete it to start this run over"),
    ):
        checkpoints.restore(state)


def test_a_state_can_be_given_up_while_it_is_written(state, tmp_path):
    expected = jax.tree.map(np.array, state)
    mine = jax.tree.map(lambda x: jax.numpy.array(x) if isinstance(x, jax.Array) else x, state)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(mine)
    jax.jit(lambda tree: jax.tree.map(lambda x: x + 1, tree), donate_argnums=0)(mine.task)
    checkpoints.close()
    restored = Checkpoints(tmp_path).restore(state)
    jax.tree.map(np.testing.assert_array_equal, restored.task, expected.task)
