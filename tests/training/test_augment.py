"""Augmentation of batches: what each changes, what none may change, and that validation and test never see it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import tiny
from helpers.sweeps import SILENT, Killed, assert_same, kill, log
from jaxser.evaluation import run_folder
from jaxser.features.text import UNKNOWN_ID
from jaxser.models.losses import cross_entropy
from jaxser.training import augment
from jaxser.training.loop import predict_sweep, train_sweep
from jaxser.training.scalars import OPTIONAL
from jaxser.training.sweep import GridPoint
from jaxser.types import Batch, Output, Trained

KEY = jax.random.key(3)
LENGTHS = np.array([20, 13, 1, 7, 20, 0])
"""Of the utterances of a batch; the last one is a padding row."""

STRENGTHS = {
    "crop": 0.2,
    "time_shift": 0.2,
    "mixup": 0.4,
    "feature_noise": 0.3,
    "time_mask": 0.3,
    "frequency_mask": 0.3,
    "word_dropout": 0.2,
    "modality_dropout": 0.2,
}
EVERYTHING = {
    "learning_rate": 3e-2,
    "dropout_rate": 0.1,
    "weight_decay": 0.01,
    "warmup": 0.2,
    "ema_decay": 0.9,
    "label_smoothing": 0.1,
    "focal_gamma": 1.0,
    "class_balance": 0.9,
    "accumulation": 2.0,
    **STRENGTHS,
}


def make_batch():
    rng = np.random.default_rng(0)
    mask = np.arange(20) < LENGTHS[:, None]
    frames = rng.normal(size=(6, 20, 10)).astype(np.float32) * mask[..., None]
    words_mask = np.arange(5) < np.array([5, 3, 1, 4, 2, 0])[:, None]
    return Batch(
        label=jnp.array([0, 1, 2, 0, 1, 0]),
        weight=jnp.array([1, 1, 1, 1, 1, 0], jnp.float32),
        audio=jnp.array(frames),
        audio_mask=jnp.array(mask),
        words=jnp.array(np.where(words_mask, rng.integers(2, 9, (6, 5)), 0), jnp.int32),
        words_mask=jnp.array(words_mask),
    )


def applied(name, strength, key=KEY):
    """The batch after one augmentation."""
    return augment.augmented(make_batch(), {name: jnp.float32(strength)}, key)[0]


@pytest.mark.parametrize("name", STRENGTHS)
def test_a_strength_of_zero_changes_no_bit(name):
    for before, after in zip(make_batch(), applied(name, 0), strict=True):
        if before is not None:
            np.testing.assert_array_equal(after, before)


@pytest.mark.parametrize("name", STRENGTHS)
def test_padding_stays_zero_and_something_changes(name):
    before, after = make_batch(), applied(name, 0.9)
    assert not np.asarray(after.audio)[~np.asarray(after.audio_mask)].any()
    assert not np.asarray(after.words)[~np.asarray(after.words_mask)].any()
    assert (after.audio != before.audio).any() or (after.words != before.words).any()
    np.testing.assert_array_equal(after.label, before.label)
    assert (np.asarray(after.audio_mask).sum(1)[:5] >= 1).all()


def runs_of(hidden):
    """The lengths of the runs of True in a vector."""
    edges = np.flatnonzero(np.diff(np.r_[False, hidden, False].astype(int)))
    return np.diff(edges)[::2]


def test_time_masks_are_two_blocks_within_the_valid_frames():
    widths = []
    for seed in range(20):
        after = np.asarray(applied("time_mask", 0.25, jax.random.key(seed)).audio)
        before = np.asarray(make_batch().audio)
        for row, length in enumerate(LENGTHS[:5]):
            hidden = (after[row, :length] == 0).all(1)
            np.testing.assert_array_equal(after[row, :length][~hidden], before[row, :length][~hidden])
            assert len(runs_of(hidden)) <= augment.MASKS
            assert hidden.sum() <= augment.MASKS * int(0.25 * length)
            widths.append(hidden.sum() / max(length, 1))
    assert 0.05 < np.mean(widths) < 0.25


def test_frequency_masks_hide_the_same_features_of_all_frames():
    before, after = np.asarray(make_batch().audio), np.asarray(applied("frequency_mask", 0.3).audio)
    for row, length in enumerate(LENGTHS[:5]):
        hidden = (after[row, :length] == 0).all(0)
        assert hidden.sum() <= augment.MASKS * 3
        np.testing.assert_array_equal(after[row, :length, ~hidden], before[row, :length, ~hidden])


def test_a_crop_is_a_part_of_the_utterance_in_order():
    before, after = make_batch(), applied("crop", 0.5)
    lengths = np.asarray(after.audio_mask).sum(1)
    assert (lengths[:5] >= np.ceil(LENGTHS[:5] / 2)).all()
    assert (lengths < LENGTHS).any()
    for row in range(5):
        own = np.asarray(after.audio[row, : lengths[row]])
        whole = np.asarray(before.audio[row])
        starts = range(LENGTHS[row] - lengths[row] + 1)
        assert any(np.array_equal(whole[start : start + lengths[row]], own) for start in starts)


def test_a_shift_rotates_the_valid_frames():
    before, after = np.asarray(make_batch().audio), np.asarray(applied("time_shift", 0.3).audio)
    moved = 0
    for row, length in enumerate(LENGTHS[:5]):
        largest = int(0.3 * length)
        by = [
            k
            for k in range(-largest, largest + 1)
            if np.array_equal(np.roll(before[row, :length], k, 0), after[row, :length])
        ]
        assert by
        moved += by != [0]
    assert moved


def test_noise_has_its_standard_deviation():
    difference = np.asarray(applied("feature_noise", 0.3).audio - make_batch().audio)
    valid = np.asarray(make_batch().audio_mask)
    assert difference[valid].std() == pytest.approx(0.3, rel=0.15)


def test_dropped_words_are_unknown():
    dropped = [np.asarray(applied("word_dropout", 0.3, jax.random.key(seed)).words) for seed in range(60)]
    before, mask = np.asarray(make_batch().words), np.asarray(make_batch().words_mask)
    share = np.mean([(words[mask] == UNKNOWN_ID).mean() for words in dropped])
    assert share == pytest.approx(0.3, abs=0.05)
    assert all(
        (words[mask & (words != UNKNOWN_ID)] == before[mask & (words != UNKNOWN_ID)]).all()
        for words in dropped
    )


def test_a_dropped_modality_leaves_the_other():
    before = make_batch()
    for seed in range(10):
        after = applied("modality_dropout", 0.999, jax.random.key(seed))
        for row in range(5):
            silent = not np.asarray(after.audio[row]).any()
            mute = (np.asarray(after.words[row])[np.asarray(before.words_mask[row])] == UNKNOWN_ID).all()
            assert silent != mute


def test_mixup_mixes_frames_and_losses():
    """The loss of a mixed utterance is the cross-entropy with its mixed labels."""
    before = make_batch()
    after, mixed = augment.mixup(before, jnp.float32(5), KEY)
    share = float(mixed.share)
    assert 0.5 <= share < 1
    partners = []
    for row in range(5):
        fits = [
            other
            for other in range(5)
            if np.allclose(
                after.audio[row],
                np.where(
                    np.asarray(before.audio_mask[row])[:, None],
                    share * before.audio[row] + (1 - share) * before.audio[other],
                    0,
                ),
                atol=1e-6,
            )
        ]  # never the padding row
        assert len(fits) == 1
        partners.append(fits[0])
        assert before.label[fits[0]] == mixed.partner[row]
    assert partners != list(range(5))
    logits = np.random.default_rng(1).normal(size=(6, 3)).astype(np.float32)
    output = Output(jax.nn.log_softmax(jnp.array(logits)), {}, {})
    target = share * np.eye(3)[np.asarray(before.label)] + (1 - share) * np.eye(3)[np.asarray(mixed.partner)]
    expected = -(target * np.asarray(output.log_probs)).sum(1)[:5].mean()
    losses = [
        float(cross_entropy(output, before._replace(label=label), jnp.ones(3)))
        for label in (before.label, mixed.partner)
    ]
    assert share * losses[0] + (1 - share) * losses[1] == pytest.approx(expected, rel=1e-5)


def test_what_a_network_cannot_use():
    assert augment.unusable("mixup", ("audio", "video")) == ""
    assert "reads words" in augment.unusable("mixup", ("audio", "words"))
    assert "several modalities" in augment.unusable("modality_dropout", ("audio", "prosody"))
    assert augment.unusable("modality_dropout", ("segments", "segment_lengths", "words")) == ""
    assert "words" in augment.unusable("word_dropout", ("audio",))
    assert augment.unusable("time_mask", ("segments",)) == ""
    assert set(STRENGTHS) == augment.NAMES
    assert OPTIONAL.keys() > augment.NAMES


ONE = (GridPoint(1, 1, {}),)


@pytest.mark.slow
def test_validation_and_test_are_never_augmented(data, tmp_path):
    """With a learning rate of 0 the parameters stay the same, so augmentation could only show in the losses."""
    scores = []
    for name, strengths in (("plain", {}), ("augmented", dict.fromkeys(STRENGTHS, 0.5))):
        hyper = {"learning_rate": 0.0, "dropout_rate": 0.0, **strengths}
        sweep = tiny.sweep(data, replicas=ONE, epochs=1, hyper=hyper)
        trained = train_sweep(sweep, tmp_path / name, **SILENT)
        [record] = run_folder.read_epochs(tmp_path / name)
        [predicted] = predict_sweep(sweep, trained)
        scores.append((record.validation_loss, record.train_loss, predicted.estimates))
    (loss, train_loss, log_probs), (augmented_loss, augmented_train_loss, augmented_log_probs) = scores
    assert augmented_loss == loss
    np.testing.assert_array_equal(augmented_log_probs, log_probs)
    assert abs(augmented_train_loss - train_loss) > 1e-3


def test_augmentation_is_called_by_training_steps_only(data, monkeypatch):
    """Tracing a prediction with every strength in the hyper-parameters does not reach the augmentation."""
    sweep = tiny.sweep(data, replicas=ONE, hyper=EVERYTHING)
    trainer, state, on_devices = sweep.trainer, sweep.shapes(), sweep.source.on_devices
    schedules = sweep.schedules(0, [0])

    def fail(*_):
        raise AssertionError("augmented")

    monkeypatch.setattr(augment, "augmented", fail)
    jax.eval_shape(trainer.validate_part, state, schedules.validation[0], on_devices)
    jax.eval_shape(trainer.predict, Trained.of(state), schedules.validation[0], on_devices)
    with pytest.raises(AssertionError, match="augmented"):
        jax.eval_shape(
            lambda state: trainer.train_part(state, schedules.train[0], jnp.int32(0), 3, on_devices), state
        )


@pytest.fixture(scope="module")
def everything(data, tmp_path_factory):
    """A grid of two seeds with every augmentation and regularisation, and two best epochs."""
    folder = tmp_path_factory.mktemp("everything")
    return train_sweep(sweep_of(data), folder, **SILENT), folder


def sweep_of(data, **fields):
    replicas = (GridPoint(0, 0, {}), GridPoint(1, 1, {}))
    return tiny.sweep(
        data, **({"replicas": replicas, "epochs": 3, "hyper": EVERYTHING, "best_epochs": 2} | fields)
    )


@pytest.mark.slow
def test_a_resumed_run_with_everything_equals_an_uninterrupted_one(everything, data, tmp_path):
    trained, folder = everything
    with pytest.raises(Killed):
        train_sweep(kill(sweep_of(data), 2), tmp_path, **SILENT)
    assert_same(train_sweep(sweep_of(data), tmp_path, **SILENT), trained)
    assert log(tmp_path) == log(folder)


def test_a_replica_with_everything_equals_its_single_run(everything, data, tmp_path):
    trained, _ = everything
    assert_same(train_sweep(sweep_of(data, replicas=ONE), tmp_path, **SILENT), trained, slice(1, 2))


@pytest.mark.slow
def test_streaming_with_everything_equals_a_resident_dataset(everything, data, tmp_path):
    trained, _ = everything
    streamed = train_sweep(sweep_of(data, budget=60_000), tmp_path, **SILENT)
    assert_same(streamed, trained)


def test_a_swept_strength_of_zero_is_that_of_no_augmentation(data, tmp_path):
    """Replicas of a sweep differ by the setting only."""
    plain = {"learning_rate": 3e-2, "dropout_rate": 0.1}
    swept = tuple(GridPoint(0, 0, {"time_mask": strength}) for strength in (0.0, 0.5))
    losses = []
    for name, replicas, hyper in (
        ("swept", swept, plain | {"time_mask": 0.0}),
        ("alone", (GridPoint(0, 0, {}),), plain),
    ):
        sweep = tiny.sweep(data, replicas=replicas, epochs=1, hyper=hyper)
        losses.append(train_sweep(sweep, tmp_path / name, **SILENT).best.loss)
    (zero, half), (alone,) = losses
    np.testing.assert_allclose(zero, alone, rtol=1e-5)
    assert abs(half - zero) > 1e-4
