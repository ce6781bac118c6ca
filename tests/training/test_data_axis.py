"""Batches of a replica sharded over devices: the same gradients, without gathering features."""

import re

import jax
import numpy as np
import pytest

from helpers import tiny
from helpers.sweeps import SILENT
from jaxser.data.batch_schedule import BatchSchedule
from jaxser.data.device import gather
from jaxser.evaluation import run_folder
from jaxser.layers import recurrent
from jaxser.training.data_source import put_schedules
from jaxser.training.loop import train_sweep
from jaxser.training.programs import compile_over_replicas
from jaxser.training.sweep import grid

NETS = {
    "toy": None,
    "mcsan": tiny.model(),
    "mcsan, both in a row": tiny.model(arrangement="cross_then_self"),
}


def sweep_of(data, strategy, devices, net=None):
    return tiny.sweep(data, strategy=strategy, devices=devices, replicas=grid(2, range(1), {}), net=net)


def gradients(sweep):
    """Loss and gradients of every replica's first step, and the compiled program."""
    trainer = sweep.trainer
    train = sweep.schedules(0).train
    widths = dict(trainer.widths[int(train[0].bucket[0])])

    def of_one(state, own, order, data):
        schedule = BatchSchedule(*order, *own[0])
        batch = gather(data, schedule.rows[0], schedule.weight[0], widths, state.normalisation)

        def loss(params):
            output, _ = trainer.apply(params, {}, batch, state.hyper, train=True, key=state.key)
            return trainer.model.loss(output, batch, state.class_weights, params, state.hyper)

        return jax.value_and_grad(loss)(state.params)

    arguments = (sweep.initial_state(), *put_schedules(sweep.mesh, train), sweep.source.on_devices)
    program = compile_over_replicas(of_one, arguments, sweep.mesh, sweep.strategy, num_shared=2)
    return jax.device_get(program(*arguments)), program.as_text()


@pytest.mark.parametrize(
    "net", [pytest.param(name, marks=[pytest.mark.slow] * (name != "toy")) for name in NETS]
)
def test_gradients_equal_those_of_one_device(data, net):
    one, _ = gradients(sweep_of(data, "map", 1, NETS[net]))
    spread, program = gradients(sweep_of(data, "data", 4, NETS[net]))
    assert "all-reduce" in program
    for actual, expected in zip(jax.tree.leaves(spread), jax.tree.leaves(one), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "net", [pytest.param(name, marks=[pytest.mark.slow] * (name != "toy")) for name in NETS]
)
def test_features_are_not_gathered_from_other_devices(data, net, monkeypatch):
    """With steps and utterances on two axes, as on a GPU or TPU."""
    monkeypatch.setattr(recurrent, "_rows", lambda x: x)
    _, program = gradients(sweep_of(data, "data", 4, NETS[net]))
    shapes = re.findall(r"= (\S+)\[([\d,]*)\]\S* (?:all-gather|all-to-all|collective-permute)\(", program)
    assert not [shape for kind, shape in shapes if kind == "f32" and shape.count(",") > 1]


def test_a_run_is_close_to_that_of_one_device(data, tmp_path):
    one = train_sweep(sweep_of(data, "map", 1), tmp_path / "one", **SILENT)
    spread = train_sweep(sweep_of(data, "data", 4), tmp_path / "spread", **SILENT)
    np.testing.assert_allclose(spread.best.loss, one.best.loss, rtol=1e-4)
    first, second = (run_folder.read_epochs(tmp_path / name) for name in ("one", "spread"))
    for a, b in zip(first, second, strict=True):
        assert a.train_loss == pytest.approx(b.train_loss, rel=1e-4)
        assert (a.fold, a.epoch, a.valid_frame_fraction) == (b.fold, b.epoch, b.valid_frame_fraction)
