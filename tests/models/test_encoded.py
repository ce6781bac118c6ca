"""A pretrained encoder within the step: frozen, with LoRA, or with unfrozen layers, shared by all replicas."""

import re
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import tiny
from helpers.encoders import speech, write_folder
from helpers.sweeps import SILENT, Killed, assert_same, kill
from jaxser import encoders
from jaxser.data.device import gather
from jaxser.encoders.frames import FrameEncoder, Layers
from jaxser.encoders.masking import Masking
from jaxser.encoders.transformer import DropoutRates
from jaxser.encoders.tuning import Tuning
from jaxser.models.can import CAN
from jaxser.models.encoded import Encoded, with_waveforms
from jaxser.models.network import Network
from jaxser.models.probe import Probe
from jaxser.models.unimodal import TextModel
from jaxser.training.loop import train_sweep
from jaxser.training.sweep import grid
from jaxser.types import Dataset, FieldError, Output, Ragged

HYPER = {"learning_rate": 1e-2, "dropout_rate": 0.0, "encoder_learning_rate": 1e-3}
LORA = Tuning("lora", rank=2, targets=("query", "output", "feed_forward"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("encoder") / "hubert", "hubert")


@pytest.fixture(scope="module")
def base(folder):
    return encoders.load(folder)


@pytest.fixture(scope="module")
def data(base) -> Dataset:
    """Utterances of two or three frames, which share a bucket."""
    plain = tiny.dataset(18)
    lengths = np.random.default_rng(0).integers(1036, 1045, 18).astype(np.int32)
    waves = [np.clip(wave * 2**13, -(2**15), 2**15 - 1).astype(np.int16) for wave in speech(lengths)]
    arrays = {"waveform": Ragged(np.concatenate(waves), lengths)}
    return replace(plain, arrays=arrays, encoder=base)


def network(base, tuning, *, layers=(2,), mean=False, normalise="none"):
    probe = Probe(num_classes=3, pooling="mean", hidden_size=4)
    return with_waveforms(probe, base, Layers(layers, mean), tuning, normalise)


class Seen(Network):
    """A network whose output has the frames that it has seen."""

    @property
    def needs(self):
        return ("audio",)

    def __call__(self, batch, hyper, *, train):
        return Output(batch.audio[:, 0], {"frames": batch.audio, "mask": batch.audio_mask}, {})


def seen(base, tuning, batch, layers, mean, normalise):
    """The frames and the mask that a network behind the encoder sees before training."""
    net = Encoded(3, Seen(3), base, Layers(layers, mean), tuning, normalise)
    output, _ = net.init_with_output(jax.random.key(0), batch, HYPER, train=False)
    return output.logits["frames"], output.logits["mask"]


def sweep(data, tuning, **options):
    hyper = HYPER if tuning.train != "none" else {"learning_rate": 1e-2, "dropout_rate": 0.0}
    net = options.pop("net", None) or network(data.encoder, tuning)
    return tiny.sweep(data, net=net, hyper=hyper, epochs=2, **options)


def batch_of(data, rows):
    device = tiny.sweep(data, net=network(data.encoder, Tuning()), hyper=HYPER).source.on_devices
    width = {"waveform": int(data.arrays["waveform"].length.max())}
    return gather(device, jnp.array(rows), jnp.ones(len(rows)), width, {})


@pytest.mark.parametrize("train", ["none", "lora", "top:1", "all"])
@pytest.mark.parametrize(("layers", "mean"), [((2,), False), ((0, 2), True), ((0, 1), False)])
def test_an_encoder_before_training_gives_the_frames_of_recipe_encoder(data, base, train, layers, mean):
    rows = [0, 3, 5]
    tuning = replace(LORA, train=train)
    found, mask = seen(base, tuning, batch_of(data, rows), layers, mean, "none")
    signals = [data.arrays["waveform"][row].astype(np.float32) / 2**15 for row in rows]
    frozen = FrameEncoder(base, Layers(layers, mean)).encode(signals)
    for own, valid, expected in zip(found, mask, frozen, strict=True):
        np.testing.assert_allclose(own[valid], expected, rtol=2e-3, atol=2e-3)
        assert not own[~valid].any()


@pytest.mark.slow
def test_factors_are_added_to_the_weights(data, base):
    """The output is that of an encoder whose kernels are W + alpha / rank x A B, with and without remat."""
    tuning = replace(LORA, targets=("query", "key", "value", "output", "feed_forward"))
    batch, net = batch_of(data, [0, 1]), network(base, tuning)
    params = net.init(jax.random.key(0), batch, HYPER, train=False)["params"]
    rng = np.random.default_rng(0)
    params["encoder"] = jax.tree.map(
        lambda x: jnp.asarray(rng.normal(size=x.shape) * 0.3, jnp.float32), params["encoder"]
    )
    merged = jax.tree.map(jnp.asarray, base.params)
    for layer, parts in params["encoder"].items():
        for part, names in parts.items():
            for name, own in names.items():
                merged[layer][part][name]["kernel"] += 16 / 2 * own["a"] @ own["b"]
    assert len(jax.tree.leaves(params["encoder"])) == 2 * 2 * 6
    plain = network(base, Tuning())
    expected = plain.apply(
        {"params": {"network": params["network"]}}, batch._replace(encoder=merged), HYPER, train=False
    )
    again = replace(base, module=base.module.clone(remat=True))
    for encoder in (base, again):
        found = network(encoder, tuning).apply({"params": params}, batch, HYPER, train=False)
        np.testing.assert_allclose(found.log_probs, expected.log_probs, rtol=1e-4, atol=1e-5)
    before = plain.apply({"params": {"network": params["network"]}}, batch, HYPER, train=False)
    assert np.abs(before.log_probs - expected.log_probs).max() > 1e-3


def test_frames_are_normalised_over_their_features(data, base):
    frames, mask = seen(base, Tuning(), batch_of(data, [0, 1]), (0, 2), False, "layer")
    valid = frames[mask].reshape(-1, 2, base.width)
    np.testing.assert_allclose(valid.mean(-1), 0, atol=1e-5)
    np.testing.assert_allclose(valid.std(-1), 1, atol=1e-3)


@pytest.mark.parametrize("train", ["none", "lora", "top:1", "all"])
def test_replicas_share_the_pretrained_parameters(data, base, train):
    """What is stacked over replicas is the network, its optimiser, and what is trained of the encoder."""
    tuning = replace(LORA, train=train)
    built = sweep(data, tuning)
    own = built.shapes().params
    sizes = {
        "none": 0,
        "lora": 2 * 2 * (2 * (16 + 16) + 16 + 24 + 24 + 16),
        "top:1": sum(x.size for x in jax.tree.leaves(base.params["layer_1"])),
        "all": sum(x.size for x in jax.tree.leaves(base.params)),
    }
    assert sum(x.size for x in jax.tree.leaves(own.get("encoder", {}))) == sizes[train]
    shared = built.source.on_devices.encoder
    assert jax.tree.map(jnp.shape, shared) == jax.tree.map(jnp.shape, base.params)
    if train != "all":  # the state knows no array of the shape of the first convolution
        kernel = next(x.shape for x in jax.tree.leaves(base.params) if x.shape[:2] == (10, 1))
        assert kernel not in {x.shape for x in jax.tree.leaves(built.shapes())}


@pytest.mark.slow
def test_a_compiled_sweep_has_the_encoder_once_and_no_collectives(data, base):
    """Each of two devices holds the states of three replicas, one encoder, and the waveforms."""
    built = sweep(data, LORA, devices=2, strategy="vmap")
    [program] = built.compile_epoch(6).compiled
    assert not re.findall(
        r"all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter", program.as_text()
    )
    state = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(built.shapes()))
    shared = sum(x.nbytes for x in jax.tree.leaves(built.source.on_devices))
    encoder = sum(x.nbytes for x in jax.tree.leaves(base.params))
    held = program.memory_analysis().argument_size_in_bytes
    assert encoder > 4096
    assert (
        abs(held - 3 * state - shared) < 4096
    )  # unused statistics are left out, and schedules come in addition


def changed(data, tuning, **options):
    """The parameters of a replica before and after a step."""
    built = sweep(data, tuning, **options)
    trainer = built.trainer
    state = jax.tree.map(lambda x: x[0], built.initial_state())
    schedule = built.schedules(0).train[0]
    batch = gather(
        built.source.on_devices, schedule.rows[0], schedule.weight[0], dict(trainer.widths[-1]), {}
    )
    after, _ = jax.jit(trainer.step)(state, batch, jnp.float32(0.5))
    return state, after


@pytest.mark.parametrize("train", ["lora", "top:1", "all"])
def test_a_step_changes_what_is_trained_with_its_own_rate(data, base, train):
    """The first step of Adam is the learning rate, wherever there is a gradient."""
    state, after = changed(data, replace(LORA, train=train))
    steps = jax.tree.map(lambda a, b: np.abs(a - b).max(), state.params, after.params)
    assert max(jax.tree.leaves(steps["network"])) == pytest.approx(1e-2, rel=1e-2)
    assert max(jax.tree.leaves(steps["encoder"])) == pytest.approx(1e-3, rel=1e-2)
    if train == "lora":
        for layer in steps["encoder"].values():
            assert layer["attention"]["query"]["b"] > 0
            assert layer["attention"]["query"]["a"] == 0  # since B is zero
    elif train == "top:1":
        assert steps["encoder"].keys() == {"layer_1"}
        np.testing.assert_array_equal(
            state.params["encoder"]["layer_1"]["attention"]["query"]["kernel"],
            base.params["layer_1"]["attention"]["query"]["kernel"],
        )
    else:
        assert steps["encoder"].keys() == base.params.keys()


def test_the_encoder_has_a_warm_up_of_its_own(data):
    built = sweep(data, LORA).trainer.optimizer
    for progress, expected in ((0.0, 0.0), (0.05, 0.25), (0.2, 1.0), (0.9, 1.0)):
        factor = built.encoder_factor(jnp.float32(progress), {"encoder_warmup": jnp.float32(0.2)})
        assert float(factor) == pytest.approx(expected)
    assert built.encoder_factor(jnp.float32(0.1), {}) == 1


def test_layers_that_are_not_computed_are_not_trained(base):
    tuning = Tuning("all")
    assert "layer_1" not in tuning.init(jax.random.key(0), base.params, 1)
    assert "layer_1" in tuning.init(jax.random.key(0), base.params, 2)


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    return train_sweep(sweep(data, LORA), tmp_path_factory.mktemp("whole"), **SILENT)


@pytest.mark.slow
def test_gradients_side_by_side_are_those_of_single_replicas(data):
    """Mapped over replicas, with the pretrained parameters shared."""
    built = sweep(data, LORA, replicas=grid(1, range(2), {}))
    trainer, state, batch = built.trainer, built.initial_state(), batch_of(data, [0, 1, 2, 3])
    start = jax.tree.map(lambda x: x + 0.1, state.params["encoder"])  # B is not zero
    state = state._replace(params={**state.params, "encoder": start})

    def gradient(one):
        def loss(params):
            output, _ = trainer.apply(params, {}, batch, one.hyper, train=True, key=one.key)
            return trainer.model.loss(output, batch, one.class_weights, params, one.hyper)

        return jax.grad(loss)(one.params)

    together, single = jax.jit(jax.vmap(gradient))(state), jax.jit(gradient)
    for row in range(2):
        expected = single(jax.tree.map(lambda x, row=row: x[row], state))
        for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a[row], b, rtol=1e-4, atol=1e-4 * max(np.abs(b).max(), 1e-6))


@pytest.mark.slow
def test_a_resumed_run_is_the_same_bit_for_bit(data, trained, tmp_path):
    with pytest.raises(Killed):
        train_sweep(kill(sweep(data, LORA), 1), tmp_path, **SILENT)
    assert_same(train_sweep(sweep(data, LORA), tmp_path, **SILENT), trained)


@pytest.mark.slow
def test_streamed_waveforms_give_the_same(data, trained, tmp_path):
    streamed = sweep(data, LORA, budget=200_000)
    assert streamed.source.is_streamed
    assert_same(train_sweep(streamed, tmp_path, **SILENT), trained)


def test_masks_differ_by_replica_and_are_absent_in_validation_and_test(data, base):
    """A step draws them with the replica's key; without training, nothing is masked."""
    batch, masking = batch_of(data, [0, 1]), Masking(time_prob=0.5, time_length=1)
    still = replace(base.module.transformer, dropout=DropoutRates())
    plain = replace(base, module=base.module.clone(transformer=still))
    net = Encoded(3, Seen(3), plain, Layers((2,)), LORA, "none", masking)
    variables = net.init(jax.random.key(0), batch, HYPER, train=False)

    def frames(seed=None):
        rngs = {} if seed is None else {"dropout": jax.random.key(seed)}
        output = net.apply(variables, batch, HYPER, train=seed is not None, rngs=rngs)
        return np.asarray(output.logits["frames"])

    unmasked = net.clone(masking=Masking()).apply(variables, batch, HYPER, train=False)
    np.testing.assert_array_equal(frames(), unmasked.logits["frames"])
    drawn = [frames(seed) for seed in range(8)]
    assert sum(np.abs(one - drawn[0]).max() > 1e-3 for one in drawn[1:]) > 3
    with pytest.raises(FieldError, match="need an encoder that is trained"):
        with_waveforms(Probe(num_classes=3), base, Layers((2,)), Tuning(), "none", masking)


@pytest.mark.parametrize(
    ("tuning", "message"),
    [
        (Tuning("some"), "train='some' is not one of none, lora, top:N, all"),
        (Tuning("top:3"), "train='top:3': only 2 layers of the encoder are computed"),
        (Tuning("lora", rank=0), "lora_rank=0 must be at least 1"),
        (Tuning("lora", targets=("q",)), "lora_targets='q' must be some of query, key, value"),
    ],
)
def test_wrong_fields_are_one_line(base, tuning, message):
    with pytest.raises(FieldError, match=re.escape(message)):
        network(base, tuning)


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (CAN(num_classes=3, hidden_size=4, num_heads=2), "CAN reads word segments"),
        (TextModel(num_classes=3), "TextModel reads no audio"),
    ],
)
def test_networks_that_cannot_read_frames_are_refused(base, net, message):
    with pytest.raises(FieldError, match=message):
        with_waveforms(net, base, Layers((2,)), Tuning(), "none")
