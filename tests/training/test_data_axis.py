"""One replica's batches spread over devices: the same gradients, and nothing gathered that is worked on."""

import re

import jax
import numpy as np
import pytest

from helpers import tiny
from jaxser.data.batch_schedule import Plan
from jaxser.evaluation import run_folder
from jaxser.layers import recurrent
from jaxser.training.loop import train
from jaxser.training.mesh import compile_over_replicas
from jaxser.training.replica import gather
from jaxser.training.sweep import grid
from training.test_sweep import SILENT

NETS = {
    "toy": None,
    "mcsan": tiny.model(),
    "mcsan, both in a row": tiny.model(arrangement="cross_then_self"),
}


@pytest.fixture(scope="module")
def data():
    return tiny.dataset()


def sweep_of(data, strategy, devices, net=None):
    return tiny.sweep(data, strategy=strategy, devices=devices, replicas=grid(2, range(1), {}), net=net)


def gradients(sweep):
    """Loss and gradients of every replica's first step."""
    trainer = sweep.trainer
    train, _ = sweep.plans(0)
    widths = dict(trainer.widths[int(train[0].bucket[0])])

    def of_one(state, own, order, data):
        plan = Plan(*order, *own[0])
        batch = gather(data, plan.rows[0], plan.weight[0], widths, state.normalisation)

        def loss(params):
            output, _ = trainer.apply(params, {}, batch, state.hyper, train=True, key=state.key)
            return trainer.model.loss(output, batch, state.class_weights, params, state.hyper)

        return jax.value_and_grad(loss)(state.params)

    arguments = (sweep.begin(), *sweep._put_plans(train), sweep.data)
    program = compile_over_replicas(of_one, arguments, sweep.mesh, sweep.strategy, num_shared=2)
    return jax.device_get(program(*arguments)), program.as_text()


@pytest.mark.parametrize(
    "net", [pytest.param(name, marks=[pytest.mark.slow] * (name != "toy")) for name in NETS]
)
def test_gradients_are_those_of_one_device(data, net):
    one, _ = gradients(sweep_of(data, "map", 1, NETS[net]))
    spread, program = gradients(sweep_of(data, "data", 4, NETS[net]))
    assert "all-reduce" in program
    for found, expected in zip(jax.tree.leaves(spread), jax.tree.leaves(one), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "net", [pytest.param(name, marks=[pytest.mark.slow] * (name != "toy")) for name in NETS]
)
def test_frames_stay_where_they_are(data, net, monkeypatch):
    """As on a GPU or TPU, where steps and utterances are two axes: no features are gathered from other devices."""
    monkeypatch.setattr(recurrent, "_rows", lambda x: x)
    _, program = gradients(sweep_of(data, "data", 4, NETS[net]))
    shapes = re.findall(r"= (\S+)\[([\d,]*)\]\S* (?:all-gather|all-to-all|collective-permute)\(", program)
    assert not [shape for kind, shape in shapes if kind == "f32" and shape.count(",") > 1]


def test_a_run_comes_to_what_one_device_comes_to(data, tmp_path):
    one = train(sweep_of(data, "map", 1), tmp_path / "one", **SILENT)
    spread = train(sweep_of(data, "data", 4), tmp_path / "spread", **SILENT)
    np.testing.assert_allclose(spread.best.loss, one.best.loss, rtol=1e-4)
    first, second = (run_folder.read_epochs(tmp_path / name) for name in ("one", "spread"))
    for a, b in zip(first, second, strict=True):
        assert a["train_loss"] == pytest.approx(b["train_loss"], rel=1e-4)
        assert (a["fold"], a["epoch"], a["real_share"]) == (b["fold"], b["epoch"], b["real_share"])
