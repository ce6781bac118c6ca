"""What is equal to what: replicas and single runs, devices, strategies, interruption; and no collectives."""

import re

import jax
import numpy as np
import pytest

import tiny
from jaxser import results
from jaxser.sweep import Replica, grid, status
from jaxser.types import NOT_FINITE, RUNNING, STOPPED

SILENT = {"say": lambda text: None}


def leaves(state):
    """Every leaf of a state as numpy, keys as their data."""
    plain = jax.tree.map(
        lambda x: jax.random.key_data(x) if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) else x, state
    )
    return {
        jax.tree_util.keystr(path): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(plain)
    }


def assert_same(found, expected, rows=slice(None)):
    found, expected = leaves(found), leaves(expected)
    assert found.keys() == expected.keys()
    for path, value in expected.items():
        np.testing.assert_array_equal(found[path], value[rows], err_msg=path)


@pytest.fixture(scope="module")
def data():
    return tiny.dataset()


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """The grid of 3 folds x 2 seeds, trained on one device, one replica after the other."""
    folder = tmp_path_factory.mktemp("whole")
    sweep = tiny.sweep(data)
    return sweep, sweep.train(folder, **SILENT), folder


def test_a_replica_is_its_single_run(whole, data, tmp_path):
    _, state, _ = whole
    chosen = 3  # fold 1, seed 1
    alone = tiny.sweep(data, replicas=(Replica(1, 1, {}),)).train(tmp_path, **SILENT)
    assert status(alone).tolist() == [RUNNING, STOPPED]  # the second fills the device up
    assert_same(jax.tree.map(lambda x: x[:1], alone), state, slice(chosen, chosen + 1))


def test_four_devices_are_one(whole, data, tmp_path):
    """Six replicas on four devices: two places are filled up and stand still."""
    _, state, _ = whole
    spread = tiny.sweep(data, devices=4).train(tmp_path, **SILENT)
    assert len(status(spread)) == 8
    assert (status(spread)[6:] == STOPPED).all()
    cut = jax.tree.map(lambda x: x[:6], jax.device_put(spread, jax.devices()[0]))
    assert_same(cut, state)


def test_interrupted_is_uninterrupted(whole, data, tmp_path):
    """Killed before the third epoch, lines of an unfinished epoch and all; then on another number of devices."""
    _, state, folder = whole

    class Killed(Exception):
        pass

    begun = tiny.sweep(data)
    run_epoch = begun._epoch
    object.__setattr__(
        begun, "_epoch", lambda run, s, e: run_epoch(run, s, e) if e < 2 else (_ for _ in ()).throw(Killed)
    )
    with pytest.raises(Killed):
        begun.train(tmp_path, **SILENT)
    results.append_epochs(tmp_path, [{"epoch": 2, "fold": "s0"}])
    resumed = tiny.sweep(data).train(tmp_path, **SILENT)
    assert_same(resumed, state)
    lines = [
        [{k: v for k, v in row.items() if k != "seconds"} for row in results.read_epochs(f)]
        for f in (tmp_path, folder)
    ]
    assert lines[0] == lines[1]


def test_learns_and_logs(whole):
    sweep, state, folder = whole
    rows = results.read_epochs(folder)
    assert [(r["epoch"], r["fold"], r["seed"]) for r in rows[:3]] == [
        (0, "s0", 0),
        (0, "s0", 1),
        (0, "s1", 0),
    ]
    assert len(rows) == 4 * 6
    last = [r["validation"]["ua"] for r in rows if r["epoch"] == 3]
    assert np.mean(last) > 0.8
    assert all(0.3 < r["real_share"] <= 1 for r in rows)
    best = {
        (r["fold"], r["seed"]): r
        for r in sorted(rows, key=lambda r: (r["validation"]["ua"], -r["validation"]["loss"]))
    }
    for replica, epoch in zip(sweep.replicas, np.asarray(state.best.epoch), strict=True):
        assert best[sweep.folds[replica.fold].name, replica.seed]["epoch"] == epoch - 1


def test_predictions_are_of_the_selected_epoch(whole):
    sweep, state, _ = whole
    for r, found in enumerate(sweep.predict(state, sweep.folds)):
        fold = sweep.folds[sweep.replicas[r].fold]
        np.testing.assert_array_equal(found.rows, np.r_[fold.validation, fold.test])
        np.testing.assert_allclose(np.exp(found.log_probs).sum(1), 1, rtol=1e-5)
        label = sweep.dataset.label[fold.validation]
        guess = found.log_probs[: found.validation].argmax(1)
        recalls = [(guess[label == c] == c).mean() for c in range(3)]
        assert np.mean(recalls) == pytest.approx(float(state.best.metric[r]), abs=1e-6)


def test_one_step_under_vmap_is_the_single_step(data):
    """Loss and gradients of one step, replica by replica, within 1e-5 relative."""
    sweep = tiny.sweep(data)
    trainer, state = sweep.trainer, sweep.begin()
    from jaxser.train import gather

    plan = sweep.plans(0)[0][0]
    widths = dict(trainer.widths[int(plan.bucket[0])])

    def step(one):
        batch = gather(sweep.data, plan.rows[0], plan.weight[0], widths, one.normalisation)

        def loss(params):
            output, _ = trainer.apply(params, {}, batch, one.hyper, train=True, key=one.key)
            return trainer.model.loss(output, batch, one.class_weights, params, one.hyper)

        return jax.value_and_grad(loss)(one.params)

    together = jax.jit(jax.vmap(step))(state)
    single = jax.jit(step)
    for r in range(6):
        expected = single(jax.tree.map(lambda x, r=r: x[r], state))
        for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a[r], b, rtol=1e-5, atol=1e-5 * max(np.abs(b).max(), 1e-6))


@pytest.mark.parametrize("strategy", ["map", "vmap"])
def test_no_collectives_in_the_compiled_sweep(data, strategy):
    sweep = tiny.sweep(data, devices=2, strategy=strategy)
    program = sweep.compile_epoch(sweep.begin()).as_text()
    assert not re.findall(r"all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter", program)


def test_a_replica_that_is_not_finite_harms_no_other(whole, data, tmp_path):
    _, state, _ = whole
    broken = (*grid(3, range(2), {})[:2], Replica(0, 0, {"learning_rate": float("inf")}))
    found = tiny.sweep(data, replicas=broken).train(tmp_path, **SILENT)
    assert status(found).tolist() == [RUNNING, RUNNING, NOT_FINITE]
    assert int(found.best.epoch[2]) == 0
    assert_same(jax.tree.map(lambda x: x[:2], found), state, slice(0, 2))


def test_patience_stops_a_replica_and_freezes_it(data, tmp_path):
    sweep = tiny.sweep(
        data,
        replicas=(Replica(0, 0, {}), Replica(1, 0, {})),
        epochs=12,
        patience=2,
        hyper={"learning_rate": 0.0, "dropout_rate": 0.0},
    )
    state = sweep.train(tmp_path, **SILENT)
    rows = results.read_epochs(tmp_path)
    assert (status(state) == STOPPED).all()
    for r, replica in enumerate(sweep.replicas):
        own = [row for row in rows if row["fold"] == sweep.folds[replica.fold].name]
        assert len(own) == int(state.best.epoch[r]) + 2 == int(state.epoch[r]) == 3
        assert [row["status"] for row in own] == ["running"] * (len(own) - 1) + ["stopped"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "fields", [{}, {"modalities": ("audio",)}, {"arrangement": "self_then_cross"}], ids=str
)
def test_mcsan_is_the_same_alone_and_on_four_devices(data, tmp_path, fields):
    """The network itself, whose program is some twenty times the toy's."""
    net = tiny.model(**fields)
    state = tiny.sweep(data, net=net, epochs=2).train(tmp_path / "whole", **SILENT)
    spread = tiny.sweep(data, net=net, epochs=2, devices=4).train(tmp_path / "spread", **SILENT)
    assert_same(jax.tree.map(lambda x: x[:6], jax.device_put(spread, jax.devices()[0])), state)
    alone = tiny.sweep(data, net=net, epochs=2, replicas=(Replica(1, 1, {}),)).train(
        tmp_path / "alone", **SILENT
    )
    assert_same(jax.tree.map(lambda x: x[:1], alone), state, slice(3, 4))


def test_the_grid_has_every_fold_seed_and_setting():
    points = grid(2, (0, 1), {"learning_rate": (0.1, 0.2), "alpha": (0.0,)})
    assert len(points) == 8
    assert points[1] == Replica(0, 0, {"learning_rate": 0.2, "alpha": 0.0})


def test_a_damaged_checkpoint_falls_back_to_the_one_before(whole, data, tmp_path):
    _, state, _ = whole
    tiny.sweep(data, epochs=4).train(tmp_path, **SILENT)
    folder = tmp_path / results.CHECKPOINTS
    newest = max(folder.iterdir(), key=lambda p: int(p.name) if p.name.isdigit() else -1)
    files = sorted((newest / "state").rglob("d/*"), key=lambda p: p.stat().st_size)
    content = bytearray(files[-1].read_bytes())
    content[len(content) // 2] ^= 1
    files[-1].write_bytes(content)
    with pytest.warns(UserWarning, match="checkpoint of epoch 4 is damaged"):
        resumed = tiny.sweep(data, epochs=4).train(tmp_path, **SILENT)
    assert_same(resumed, state)
