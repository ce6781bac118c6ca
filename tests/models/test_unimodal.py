"""TextModel and AudioModel against a loop in numpy."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxser.models.unimodal import AudioModel, TextModel
from jaxser.types import Batch
from references import can as reference_can

LENGTHS = np.array([4, 1, 6])
HYPER = {"dropout_rate": jnp.float32(0.3)}
MODELS = {"text": TextModel, "audio": AudioModel}


@cache
def make_batch() -> Batch:
    """A batch with arbitrary values in the padding."""
    rng = np.random.default_rng(0)
    mask = jnp.array(np.arange(8) < LENGTHS[:, None])
    return Batch(
        label=jnp.array([0, 2, 1]),
        weight=jnp.ones(3),
        audio=jnp.array(rng.normal(size=(3, 8, 5)), jnp.float32),
        audio_mask=mask,
        words=jnp.array(rng.integers(1, 12, (3, 8))),
        words_mask=mask,
        embeddings=jnp.array(rng.normal(size=(12, 5)), jnp.float32),
    )


@pytest.mark.parametrize("name", MODELS)
def test_equations(name):
    net = MODELS[name](num_classes=3, hidden_size=4)
    batch = make_batch()
    shapes = jax.eval_shape(lambda key: net.init(key, batch, HYPER, train=False), jax.random.key(0))
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda p: jnp.array(rng.normal(size=p.shape) * 0.5, jnp.float32), shapes["params"])
    found = jax.jit(lambda batch: net.apply({"params": params}, batch, HYPER, train=False))(batch)
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    for n, length in enumerate(LENGTHS):
        x = params["WordEmbedding_0"]["table"][batch.words[n]] if name == "text" else batch.audio[n]
        expected, weights = reference_can.unimodal(np.asarray(x[:length], np.float64), params, name)
        np.testing.assert_allclose(found.log_probs[n], np.log(expected), rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(found.attention[name].weights[n, :, :length], weights, rtol=1e-4)
        assert not found.attention[name].weights[n, :, length:].any()


def test_number_of_parameters():
    """By hand, d = 128: BLSTM 2 (4 d (in + d) + 2 * 4 d), in = 300 and 40; query 256; classifier 256 * 7 + 7 = 1,799;

    word vectors 12 * 300.
    """
    batch = make_batch()._replace(
        audio=jax.ShapeDtypeStruct((3, 8, 40), jnp.float32),
        embeddings=jax.ShapeDtypeStruct((12, 300), jnp.float32),
    )

    def count(net):
        init = lambda key, batch: net.init(key, batch, HYPER, train=False)  # noqa: E731
        shapes = jax.eval_shape(init, jax.random.key(0), batch)
        return sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))

    assert count(TextModel(num_classes=7)) == 440_320 + 256 + 1_799 + 3_600
    assert count(TextModel(num_classes=7, train_embeddings=False)) == 440_320 + 256 + 1_799
    assert count(AudioModel(num_classes=7)) == 174_080 + 256 + 1_799
