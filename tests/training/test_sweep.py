"""Equal results of sweeps and single runs, devices, strategies and resumed runs; no collectives."""

import dataclasses
import re

import jax
import numpy as np
import pytest

from helpers import tiny
from helpers.sweeps import SILENT, Killed, assert_same, kill, log
from jaxser.data.device import gather
from jaxser.evaluation import run_folder
from jaxser.evaluation.records import EpochRecord
from jaxser.training import checkpoint
from jaxser.training.loop import predict_sweep, train_sweep
from jaxser.training.sweep import GridPoint, grid, status_of
from jaxser.types import Status


def test_a_replica_equals_its_single_run(reference, data, tmp_path):
    _, trained, folder = reference
    chosen = 3  # fold 1, seed 1
    alone = train_sweep(tiny.sweep(data, replicas=(GridPoint(1, 1, {}),)), tmp_path, **SILENT)
    assert_same(alone, trained, slice(chosen, chosen + 1))
    assert log(tmp_path) == [record for record in log(folder) if (record.fold, record.seed) == ("s1", 1)]


def test_four_devices_give_the_results_of_one(reference, data, tmp_path):
    """Six replicas on four devices take eight rows, two of them stopped padding."""
    _, trained, folder = reference
    sweep = tiny.sweep(data, devices=4)
    initial = sweep.initial_state()
    assert status_of(initial).tolist() == [Status.RUNNING] * 6 + [Status.STOPPED] * 2
    assert_same(train_sweep(sweep, tmp_path, **SILENT), trained)
    assert log(tmp_path) == log(folder)


@pytest.mark.parametrize("devices", [1, 2])
def test_a_resumed_run_equals_an_uninterrupted_one(reference, data, tmp_path, devices):
    """Killed before the third epoch, with a line of it in the log; resumed on the same or more devices."""
    _, trained, folder = reference
    with pytest.raises(Killed):
        train_sweep(kill(tiny.sweep(data), 2), tmp_path, **SILENT)
    run_folder.append_epochs(tmp_path, [EpochRecord(2, "s0", 0, "", 1.0, 1.0, {"ua": 0.5}, 0.1, "running")])
    messages = []
    resumed = train_sweep(tiny.sweep(data, devices=devices), tmp_path, messages.append)
    assert messages[0].startswith("resuming after epoch ")
    assert_same(resumed, trained)
    assert log(tmp_path) == log(folder)


def test_a_sweep_learns_and_logs_its_epochs(reference):
    sweep, trained, folder = reference
    records = run_folder.read_epochs(folder)
    assert [(r.epoch, r.fold, r.seed) for r in records[:3]] == [(0, "s0", 0), (0, "s0", 1), (0, "s1", 0)]
    assert len(records) == 4 * 6
    assert np.mean([r.validation["ua"] for r in records if r.epoch == 3]) > 0.8
    assert all(0.3 < r.valid_frame_fraction <= 1 for r in records)
    best = {
        (r.fold, r.seed): r for r in sorted(records, key=lambda r: (r.validation["ua"], -r.validation_loss))
    }
    for replica, epoch in zip(sweep.replicas, trained.best.epoch, strict=True):
        assert best[sweep.folds[replica.fold].name, replica.seed].epoch == epoch - 1


def test_predictions_are_of_the_selected_epoch(reference):
    sweep, trained, _ = reference
    for r, predicted in enumerate(predict_sweep(sweep, trained)):
        fold = sweep.folds[sweep.replicas[r].fold]
        np.testing.assert_array_equal(predicted.rows, np.r_[fold.validation, fold.test])
        np.testing.assert_allclose(np.exp(predicted.estimates).sum(1), 1, rtol=1e-5)
        label = sweep.dataset.label[fold.validation]
        guess = predicted.estimates[: predicted.validation].argmax(1)
        recalls = [(guess[label == c] == c).mean() for c in range(3)]
        assert np.mean(recalls) == pytest.approx(float(trained.best.metric[r]), abs=1e-6)


def test_a_step_under_vmap_is_close_to_a_single_step(data):
    """Loss and gradients of each replica's first step, within a relative 1e-5."""
    sweep = tiny.sweep(data)
    trainer, state = sweep.trainer, sweep.initial_state()
    schedule = sweep.schedules(0).train[0]
    widths = dict(trainer.widths[int(schedule.bucket[0])])

    def step(one):
        batch = gather(
            sweep.source.on_devices, schedule.rows[0], schedule.weight[0], widths, one.normalisation
        )

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


def test_a_resumed_run_shows_the_best_score_in_its_log(data, tmp_path, capsys):
    with pytest.raises(Killed):
        train_sweep(kill(tiny.sweep(data), 2), tmp_path, **SILENT)
    log_file = tmp_path / run_folder.METRICS
    records = [
        dataclasses.replace(record, validation={**record.validation, "ua": 1.0})
        for record in run_folder.read_epochs(tmp_path)
    ]
    log_file.unlink()
    run_folder.append_epochs(tmp_path, records)
    capsys.readouterr()
    with pytest.raises(Killed):
        train_sweep(kill(tiny.sweep(data), 1), tmp_path, **SILENT)
    assert "best 100.0 % (100.0 to 100.0)" in capsys.readouterr().out


@pytest.mark.parametrize("strategy", ["map", "vmap"])
def test_no_collectives_in_the_compiled_sweep(data, strategy):
    sweep = tiny.sweep(data, devices=2, strategy=strategy)
    program = sweep.compile_epoch(sweep.rows(6)).as_text()
    assert not re.findall(r"all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter", program)


def test_a_replica_that_is_not_finite_does_not_affect_others(reference, data, tmp_path):
    _, trained, _ = reference
    broken = (*grid(3, range(2), {})[:2], GridPoint(0, 0, {"learning_rate": float("inf")}))
    actual = train_sweep(tiny.sweep(data, replicas=broken), tmp_path, **SILENT)
    assert actual.status.tolist() == [Status.RUNNING, Status.RUNNING, Status.NOT_FINITE]
    assert actual.best.epoch[2] == 0
    assert_same(jax.tree.map(lambda x: x[:2], actual), trained, slice(0, 2))


def test_a_replica_out_of_patience_stops_and_stays_unchanged(data, tmp_path):
    sweep = tiny.sweep(
        data,
        replicas=(GridPoint(0, 0, {}), GridPoint(1, 0, {})),
        epochs=12,
        patience=2,
        hyper={"learning_rate": 0.0, "dropout_rate": 0.0},
    )
    trained = train_sweep(sweep, tmp_path, **SILENT)
    records = run_folder.read_epochs(tmp_path)
    assert (trained.status == Status.STOPPED).all()
    for r, replica in enumerate(sweep.replicas):
        own = [record for record in records if record.fold == sweep.folds[replica.fold].name]
        assert len(own) == trained.best.epoch[r] + 2 == 3
        assert [record.status for record in own] == ["running"] * (len(own) - 1) + ["stopped"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "fields", [{}, {"modalities": ("audio",)}, {"arrangement": "self_then_cross"}], ids=str
)
def test_mcsan_is_the_same_alone_and_on_four_devices(data, tmp_path, fields):
    """A real network, whose program is about twenty times as large as the toy's."""
    net = tiny.model(**fields)
    trained = train_sweep(tiny.sweep(data, net=net, epochs=2), tmp_path / "reference", **SILENT)
    assert_same(
        train_sweep(tiny.sweep(data, net=net, epochs=2, devices=4), tmp_path / "spread", **SILENT), trained
    )
    single = tiny.sweep(data, net=net, epochs=2, replicas=(GridPoint(1, 1, {}),))
    assert_same(train_sweep(single, tmp_path / "alone", **SILENT), trained, slice(3, 4))


def test_the_grid_has_every_fold_seed_and_setting():
    points = grid(2, (0, 1), {"learning_rate": (0.1, 0.2), "alpha": (0.0,)})
    assert len(points) == 8
    assert points[1] == GridPoint(0, 0, {"learning_rate": 0.2, "alpha": 0.0})


def damage(path):
    """Flip some bits in the middle of a file."""
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    for position in range(middle, min(middle + 16, len(content))):
        content[position] ^= 1
    path.write_bytes(content)


# Orbax stops at the damaged array; pending reads of other arrays then raise unraisable exceptions.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_damaged_checkpoint_falls_back_to_the_one_before(reference, data, tmp_path, monkeypatch):
    _, trained, folder = reference
    monkeypatch.setattr(checkpoint, "TIME_FRACTION", 1e9)  # save after every epoch
    with pytest.raises(Killed):
        train_sweep(kill(tiny.sweep(data), 3), tmp_path, **SILENT)
    saved = tmp_path / run_folder.CHECKPOINTS / "running"
    newest = saved / max(path.name for path in saved.iterdir())
    for path in (newest / "state").rglob("d/*"):  # not all of them are read
        damage(path)
    messages = []
    with pytest.warns(UserWarning, match="checkpoint 3 is damaged"):
        resumed = train_sweep(tiny.sweep(data), tmp_path, messages.append)
    assert messages[0] == "resuming after epoch 2 of 4"
    assert_same(resumed, trained)
    assert log(tmp_path) == log(folder)


def test_finished_replicas_are_restored_and_damaged_ones_trained_again(reference, data, tmp_path):
    _, trained, folder = reference
    train_sweep(tiny.sweep(data), tmp_path, **SILENT)
    ended = tmp_path / run_folder.CHECKPOINTS / "ended"
    assert len(list(ended.iterdir())) == 6
    assert_same(train_sweep(kill(tiny.sweep(data), 0), tmp_path, **SILENT), trained)
    damage(ended / "000003.npz")
    with pytest.warns(UserWarning, match="000003.npz is damaged"):
        again = train_sweep(tiny.sweep(data), tmp_path, **SILENT)
    assert_same(again, trained)
    assert log(tmp_path) == log(folder)
