"""Checkpoints: facts are checked as well as arrays, and a replica's file is its own."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxser.training.checkpoint import METADATA, Checkpoints
from jaxser.types import InputError

SHAPES = {"x": jax.ShapeDtypeStruct((2,), jnp.float32)}


def state(value: float) -> dict[str, jax.Array]:
    return {"x": jnp.full((3, 2), value, jnp.float32)}


def save(folder, *epochs: int) -> None:
    with Checkpoints(folder) as checkpoints:
        for epoch in epochs:
            facts = {"rows": 3, "indices": [0, 1, 2], "epoch": epoch, "wave": 0}
            assert checkpoints.save(state(epoch), facts, force=True)


def restore(folder):
    with Checkpoints(folder) as checkpoints:
        return checkpoints.restore(SHAPES)


def test_a_checkpoint_is_restored_with_its_facts(tmp_path):
    save(tmp_path / "checkpoints", 3, 4)
    facts, restored = restore(tmp_path / "checkpoints")
    assert facts == {"rows": 3, "indices": [0, 1, 2], "epoch": 4, "wave": 0}
    np.testing.assert_array_equal(restored["x"], np.full((3, 2), 4, np.float32))


@pytest.mark.parametrize(("before", "after"), [('"epoch":4', '"epoch":5'), ('"wave":0', '"wave":1')])
def test_a_checkpoint_with_changed_facts_falls_back_to_the_one_before(tmp_path, before, after):
    save(tmp_path / "checkpoints", 3, 4)
    path = tmp_path / "checkpoints/running/2" / METADATA / "metadata"
    text = path.read_text().replace(": ", ":")
    assert before in text
    path.write_text(text.replace(before, after))
    with pytest.warns(UserWarning, match="checkpoint 2 is damaged .its facts do not match their digest"):
        facts, restored = restore(tmp_path / "checkpoints")
    assert facts["epoch"] == 3
    np.testing.assert_array_equal(restored["x"], np.full((3, 2), 3, np.float32))


def test_the_file_of_another_replica_is_not_taken(tmp_path):
    folder = tmp_path / "checkpoints"
    with Checkpoints(folder) as checkpoints:
        for index in range(3):
            checkpoints.save_finished(index, {"x": np.full(2, index, np.float32)})
        assert [found["x"][0] for found in checkpoints.load_finished(3, SHAPES).values()] == [0, 1, 2]
        shutil.copy(folder / "ended/000000.npz", folder / "ended/000001.npz")
        with pytest.warns(UserWarning, match=r"000001.npz is damaged \(it is of another replica\)"):
            assert list(checkpoints.load_finished(3, SHAPES)) == [0, 2]
        wider = {"x": jax.ShapeDtypeStruct((4,), jnp.float32)}
        with pytest.warns(UserWarning, match="is missing or has another shape"):
            assert checkpoints.load_finished(1, wider) == {}


def test_checkpoints_are_not_written_through_a_link(tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run/checkpoints").symlink_to(tmp_path / "outside")
    with pytest.raises(InputError, match="'checkpoints' is a link"):
        Checkpoints(tmp_path / "run/checkpoints")
    assert not list((tmp_path / "outside").iterdir())
