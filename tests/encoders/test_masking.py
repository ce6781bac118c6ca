"""SpecAugment on the features of an encoder: the spans, what replaces them, and when."""

import re
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.encoders import padded, speech, tensors_of, write_folder
from jaxser import encoders
from jaxser.encoders.masking import Masking, spans
from jaxser.encoders.transformer import DropoutRates
from jaxser.types import FieldError


def drawn(prob, length, valid, size, draws=400):
    """Masked steps of many draws, [draws, B, size]."""
    keys = jax.random.split(jax.random.key(0), draws)
    valid = jnp.asarray(valid)
    return np.asarray(jax.jit(jax.vmap(lambda key: spans(key, prob, length, valid, size)))(keys))


def runs_of(row):
    """The lengths of the stretches of masked steps."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], row.astype(int), [0]])))
    return np.diff(edges)[::2]


def test_spans_are_whole_and_within_the_valid_steps():
    """As many spans as the share asks for on average, of different starts, each of them whole."""
    valid, size = [60, 25, 9, 0], 60
    found = drawn(0.3, 10, valid, size)
    for row, steps in enumerate(valid):
        assert not found[:, row, steps:].any()
        assert not found[:, row].any() or all(runs_of(one).min(initial=10) >= 10 for one in found[:, row])
    assert not found[:, 2:].any()  # shorter than a span
    alone = np.array([len(runs_of(one)) for one in drawn(0.1, 10, [25], 25)[:, 0]])
    assert set(alone) == {0, 1}
    assert alone.mean() == pytest.approx(0.1 * 25 / 10, abs=0.07)
    starts = {int(np.flatnonzero(one)[0]) for one in found[:, 1] if one.any()}
    assert starts == set(range(16))  # every start is possible


def test_the_share_is_that_of_spans_that_do_not_overlap():
    assert drawn(0.4, 1, [50], 50).mean() == pytest.approx(0.4, abs=1e-6)
    assert drawn(1.0, 1, [50], 50, draws=3).all()
    share = drawn(0.5, 10, [200], 200).mean()
    assert 0.36 < share < 0.46  # 1 - e^-.5 = .39 for independent starts


def test_features_are_masked_in_all_steps():
    x = jnp.ones((2, 6, 40))
    found = Masking(feature_prob=0.3, feature_length=4).apply(
        x, jnp.ones((2, 6), bool), None, jax.random.key(1)
    )
    hidden = np.asarray(found) == 0
    assert (hidden == hidden[:, :1]).all()
    assert all(len(runs_of(row)) > 0 and runs_of(row).min() >= 4 for row in hidden[:, 0])
    assert (hidden[0, 0] != hidden[1, 0]).any()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    embedding = np.linspace(-2, 2, 16).astype(np.float32)
    tensors = {**tensors_of("hubert"), "masked_spec_embed": embedding}
    return write_folder(tmp_path_factory.mktemp("encoder") / "hubert", "hubert", tensors)


@pytest.fixture(scope="module")
def base(folder):
    """An encoder without dropout."""
    loaded = encoders.load(folder)
    plain = replace(loaded.module.transformer, dropout=DropoutRates())
    return replace(loaded, module=loaded.module.clone(transformer=plain))


def test_masked_steps_are_the_embedding_of_pretraining(base):
    """If all valid steps are masked, the transformer reads nothing else."""
    np.testing.assert_allclose(base.mask_embedding, np.linspace(-2, 2, 16), atol=1e-6)
    assert "masked_spec_embed" not in base.ignored
    waves, lengths = padded(speech([2000, 1500]))
    key, all_steps = jax.random.key(3), Masking(time_prob=1.0, time_length=1)
    found, mask = base.apply(base.params, waves, lengths, dropout_key=key, masking=all_steps)
    features, seen = base.features(base.params, waves, lengths)
    filled = jnp.broadcast_to(base.mask_embedding, features.shape)
    expected = base.encode(base.params, filled, seen)
    for own, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(own[mask], other[mask], atol=1e-5)


def test_masks_are_random_and_only_in_training(base):
    waves, lengths = padded(speech([6000, 6000]))
    some = Masking(time_prob=0.5, time_length=2, feature_prob=0.2, feature_length=2)

    def last(key, masking=some):
        return np.asarray(
            base.apply(base.params, waves, lengths, dropout_key=key, masking=masking).states[-1]
        )

    plain = np.asarray(base.apply(base.params, waves, lengths).states[-1])
    np.testing.assert_array_equal(last(None), plain)
    np.testing.assert_array_equal(last(jax.random.key(0), Masking()), plain)
    first, second = last(jax.random.key(0)), last(jax.random.key(1))
    np.testing.assert_array_equal(last(jax.random.key(0)), first)
    assert np.abs(first - second).max() > 1e-3
    assert np.abs(first - plain).max() > 1e-3


def test_whisper_masks_its_spectrum(tmp_path):
    loaded = encoders.load(write_folder(tmp_path, "whisper"), padding="exact")
    assert loaded.mask_embedding is None
    waves, lengths = padded(speech([3200]))
    everything = Masking(feature_prob=1.0, feature_length=1)
    found, _ = loaded.apply(loaded.params, waves, lengths, dropout_key=jax.random.key(0), masking=everything)
    features, seen = loaded.features(loaded.params, waves, lengths)
    expected = loaded.encode(loaded.params, jnp.zeros_like(features), seen)
    np.testing.assert_allclose(found[-1], expected[-1][:, : found[-1].shape[1]], atol=1e-5)


@pytest.mark.parametrize(
    ("masking", "message"),
    [
        (Masking(time_prob=1.5), "mask_time_prob=1.5 must be between 0 and 1"),
        (Masking(feature_prob=-0.1), "mask_feature_prob=-0.1 must be between 0 and 1"),
        (Masking(feature_length=0), "mask_feature_length=0 must be at least 1"),
    ],
)
def test_wrong_fields_are_one_line(masking, message):
    with pytest.raises(FieldError, match=re.escape(message)):
        masking.check()
