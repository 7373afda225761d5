"""Saving and restoring LoopState."""

import concurrent.futures
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from trials import KEY, prepared

from tavaal_jax.errors import TrialError, UserError
from tavaal_jax.report import checkpoints as module
from tavaal_jax.report.checkpoints import Checkpoints
from tavaal_jax.study import cycle


@pytest.fixture(scope="module")
def started():
    return cycle.start(prepared("tavaal"), KEY)


@pytest.fixture
def state(started):
    """With arrays of its own in host memory."""
    return started.replace(results=started.results.copy())


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


def numbers(folder):
    return sorted(int(p.name) for p in folder.iterdir() if p.is_dir())


def test_everything_comes_back(state, tmp_path):
    state = state.replace(cycle=1, stage="evaluate", step=7)
    state.results[0] = 0.123456789
    checkpoints = saved(tmp_path, state)
    template = cycle.template(prepared("tavaal"))
    restored = checkpoints.restore(template)
    assert (restored.cycle, restored.stage, restored.step) == (1, "evaluate", 7)
    assert type(restored.stage) is str
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    jax.tree.map(np.testing.assert_array_equal, restored, state)
    for name in ("learner", "adversary"):
        pairs = zip(
            jax.tree.leaves(getattr(restored, name)), jax.tree.leaves(getattr(state, name)),
            strict=True,
        )  # fmt: skip
        assert all(a.sharding == b.sharding and a.dtype == b.dtype for a, b in pairs)


def test_a_method_without_an_adversary_comes_back(tmp_path):
    state = cycle.start(prepared("random"), KEY)
    restored = saved(tmp_path, state).restore(cycle.template(prepared("random")))
    assert restored.adversary is None
    jax.tree.map(np.testing.assert_array_equal, restored, state)


def test_nothing_saved_is_none(state, tmp_path):
    assert Checkpoints(tmp_path).restore(state) is None


def test_the_two_newest_are_kept_and_a_moment_is_saved_once(state, tmp_path):
    checkpoints = saved(tmp_path, *(state.replace(step=step) for step in (1, 2, 2, 3)))
    assert numbers(tmp_path) == [1, 2]
    assert checkpoints.restore(state).step == 3


def test_the_same_step_of_another_stage_is_another_moment(state, tmp_path):
    stages = [state.replace(stage=stage) for stage in ("evaluate", "select")]
    assert saved(tmp_path, *stages).restore(state).stage == "select"
    assert numbers(tmp_path) == [0, 1]


def test_numbering_goes_on_after_a_restore(state, tmp_path):
    saved(tmp_path, *(state.replace(step=step) for step in (1, 2)))
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(checkpoints.restore(state))  # This moment was saved last.
    checkpoints.save(state.replace(step=3))
    checkpoints.close()
    assert numbers(tmp_path) == [1, 2]
    assert Checkpoints(tmp_path).restore(state).step == 3


def test_a_damaged_newest_checkpoint_is_skipped_with_a_warning(state, tmp_path):
    folder = tmp_path / "checkpoints"
    saved(folder, *(state.replace(step=step) for step in (1, 2)))
    damage(folder / str(numbers(folder)[-1]))
    checkpoints = Checkpoints(folder)
    with pytest.warns(UserWarning, match="skipping unreadable checkpoint"):
        assert checkpoints.restore(state).step == 1
    # It is moved away, and its moment can be saved again.
    checkpoints.save(state.replace(step=2))
    checkpoints.close()
    assert Checkpoints(folder).restore(state).step == 2
    assert len(list((tmp_path / "unreadable_checkpoints").iterdir())) == 1


def test_a_state_that_is_not_finite_is_not_saved(state, tmp_path):
    checkpoints = saved(tmp_path, state)
    params = jax.tree.map(lambda x: x * np.nan, state.learner.params)
    bad = state.replace(step=5, learner=state.learner.replace(params=params))
    with pytest.raises(FloatingPointError, match=r"learner.*params.* is not finite"):
        checkpoints.save(bad)
    checkpoints.close()
    assert Checkpoints(tmp_path).restore(state).step == 0


def test_results_that_are_not_there_yet_are_no_fault(state, tmp_path):
    assert np.isnan(state.results).all()
    np.testing.assert_array_equal(saved(tmp_path, state).restore(state).results, state.results)


def test_only_damaged_checkpoints_are_an_error(state, tmp_path):
    saved(tmp_path, state)
    damage(tmp_path)
    checkpoints = Checkpoints(tmp_path)
    with (
        pytest.warns(UserWarning, match="skipping unreadable checkpoint"),
        pytest.raises(TrialError, match=r"delete it to go on from picks\.csv") as error,
    ):
        checkpoints.restore(state)
    assert str(tmp_path) in str(error.value)
    assert numbers(tmp_path) == [0]  # Where a copy can be put back.


def test_checkpoints_of_another_method_are_not_taken_for_this_ones(state, tmp_path):
    checkpoints = saved(tmp_path, cycle.start(prepared("random"), KEY))
    with (
        pytest.warns(UserWarning, match="skipping unreadable checkpoint"),
        pytest.raises(TrialError, match="none of the checkpoints"),
    ):
        checkpoints.restore(state)


def test_two_threads_save_at_the_same_time(state, tmp_path):
    """What Orbax counts its saves with is one number of the whole process."""

    def save_often(folder):
        saved(folder, *(state.replace(step=step) for step in range(8)))
        return numbers(folder)

    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        found = list(threads.map(save_often, [tmp_path / "one", tmp_path / "other"]))
    assert found == [[6, 7], [6, 7]]


def test_a_state_can_be_given_up_while_it_is_written(state, tmp_path):
    expected = jax.tree.map(np.array, state)
    mine = jax.tree.map(lambda x: jnp.array(x) if isinstance(x, jax.Array) else x, state)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(mine)
    more = lambda tree: jax.tree.map(lambda x: x + jnp.ones((), x.dtype), tree)
    jax.jit(more, donate_argnums=0)(mine.learner)
    checkpoints.close()
    restored = Checkpoints(tmp_path).restore(state)
    jax.tree.map(np.testing.assert_array_equal, restored.learner, expected.learner)


def test_a_finished_trial_removes_its_checkpoints(state, tmp_path):
    folder = tmp_path / "checkpoints"
    checkpoints = Checkpoints(folder)
    checkpoints.save(state)
    checkpoints.close()
    module.remove(folder)
    assert list(tmp_path.iterdir()) == []
    module.remove(folder)  # Nothing there is no fault.
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"cannot write .*file/checkpoints .*the same command"):
        Checkpoints(tmp_path / "file" / "checkpoints")


def test_a_folder_that_has_become_a_file_is_named(state, tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    (tmp_path / "checkpoints").rmdir()
    (tmp_path / "checkpoints").write_text("in the way")
    with pytest.raises(UserError, match=r"checkpoints \(Not a directory\): see to its folder"):
        checkpoints.restore(state)


@pytest.mark.parametrize(
    ("is_moved", "fault", "told"),
    [
        (False, "Error writing file [OS error 28: ENOSPC No space]", UserError),
        (True, "NOT_FOUND: Error opening the driver", UserError),
        (False, "a bug", ValueError),
    ],
)
def test_a_save_that_fails_blames_the_disk_where_it_is_to_blame(tmp_path, is_moved, fault, told):
    folder = tmp_path / "checkpoints"
    checkpoints = Checkpoints(folder)

    def fail():
        if is_moved:  # TensorStore makes it anew.
            folder.rename(tmp_path / "elsewhere")
            folder.mkdir()
        raise ValueError(fault)

    checkpoints._opened = types.SimpleNamespace(wait_until_finished=fail)
    with pytest.raises(ValueError, match=r"No such file|No space left|^a bug$") as error:
        checkpoints.wait()
    assert type(error.value) is told
    assert told is ValueError or str(folder) in str(error.value)


def test_a_folder_that_was_moved_away_is_not_made_anew(state, tmp_path):
    checkpoints = Checkpoints(tmp_path / "study" / "checkpoints")
    checkpoints.save(state)
    checkpoints.wait()
    (tmp_path / "study").rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"study/checkpoints \(No such file or directory\)"):
        checkpoints.save(state.replace(step=1))
    assert not (tmp_path / "study").exists()
