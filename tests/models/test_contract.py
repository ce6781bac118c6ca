"""One contract for all networks and for the variants of every config.

A new network needs one line in `TINY`, which makes it small. The first variant of each network is held to the whole
contract, every other one to its shapes and attention axes, and (slow) to one compiled training step.
"""

import re
from dataclasses import replace
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxser.config import resolve, training_hyper
from jaxser.evaluation.targets import Attributes, Classes
from jaxser.features.recipes import RECIPES
from jaxser.models import MODELS
from jaxser.models.network import Network
from jaxser.training.optim import Adam
from jaxser.training.replica import ReplicaTrainer
from jaxser.types import Batch, Best, Output, ReplicaState, Status

INTEGRATION = {
    "blocks": ((4, 2, 2), (6, 2, 1)),
    "hidden_size": 4,
    "num_layers": 1,
    "num_heads": 2,
    "feed_forward_size": 12,
}
TINY: dict[str, dict[str, Any]] = {
    "amh": {"hidden_size": 6, "video_hidden_size": 5},
    "audio_model": {"hidden_size": 8},
    "can": {"hidden_size": 8, "num_heads": 2},
    "cat": {**INTEGRATION, "front_channels": 5},
    "ilt": INTEGRATION,
    "lstm_attention": {"dense_size": 9, "hidden_size": 6, "attention_hidden": 5, "yang_dense": 7},
    "mcsan": {"hidden_size": 8, "num_heads": 2, "feed_forward_size": 12, "classifier_size": 10},
    "mdre": {"hidden_size": 6, "video_hidden_size": 5},
    "mha": {"hidden_size": 6, "video_hidden_size": 6},
    "probe": {"hidden_size": 7},
    "self_cross": {
        "hidden_size": 8,
        "num_heads": 2,
        "classifier_size": 9,
        "words_length": 5,
        "audio_length": 40,
        "audio_steps": 12,
        "video_length": 6,
        "video_steps": 4,
    },
    "text_model": {"hidden_size": 8},
    "xu": {"hidden_size": 6, "num_heads": 2},
}
"""Fields that make a network small."""

NOT_SUMMING: dict[str, tuple[str, ...]] = {"lstm_attention": ("pooling_audio",)}
"""Attention whose weights come from a sigmoid, by network: they lie between 0 and 1, and need not sum to 1."""

CLASSES, FEATURES = 3, 6
ROWS = 16
"""Utterances in a batch. All tests of a network use the same shapes, so that they share its compiled programs."""

LENGTHS = {
    "audio": np.array([40, 31, 27, 18]),
    "words": np.array([3, 5, 1, 2]),
    "video": np.array([6, 4, 3, 1]),
    "prosody": np.array([1, 1, 1, 1]),
}
SEGMENTS = [[9, 4, 7], [3, 3, 4, 2, 5], [11], [6, 8]]
EXTRA_STEPS = {"audio": 144, "words": 7, "segment_lengths": 7, "segments": 55, "video": 5}
"""Steps by which `lengthened` pads the arrays: no two arrays grow alike at any stride of a network."""


class Case(NamedTuple):
    """A variant of a config, with a small network."""

    config: str
    variant: str

    @property
    def resolved(self):
        config = import_module(f"jaxser.configs.{self.config}").get_config("iemocap")
        config.variant = self.variant
        return resolve(config)

    @property
    def fields(self) -> dict[str, Any]:
        fields = self.resolved.model.to_dict()
        return fields | TINY.get(fields["name"], {})

    def __str__(self):
        return f"{self.config}-{self.variant}"


def configs() -> dict[str, list[str]]:
    """The variants of each config, by the name of the config."""
    folder = Path(__file__).parents[2] / "configs"
    modules = {
        path.stem: import_module(f"jaxser.configs.{path.stem}") for path in sorted(folder.glob("[!_]*.py"))
    }
    return {name: list(module.VARIANTS) for name, module in modules.items() if hasattr(module, "get_config")}


CASES = [Case(config, variant) for config, variants in configs().items() for variant in variants]


def _first_variants() -> list[Case]:
    """The first variant of each network."""
    first: dict[str, Case] = {}
    for case in CASES:
        first.setdefault(case.fields["name"], case)
    return list(first.values())


FIRST_VARIANTS = _first_variants()


def network(case: Case) -> Network:
    fields = dict(case.fields)
    return MODELS[fields.pop("name")](num_classes=CLASSES, **fields)


def hyper(net: Network) -> dict[str, jax.Array]:
    """A value of each scalar at which it has an effect."""
    values = {"alpha": 0.1, "l2": 1e-4, "noise_variance": 0.1}
    return {name: jnp.float32(values.get(name, 0.2)) for name in net.hyper}


def make_batch(net: Network, padding: int = 0, rows: int = ROWS, seed: int = 0) -> Batch:
    """Utterances with arbitrary values in the padding.

    `padding` adds steps, unless the network requires fixed lengths.
    """
    rng = np.random.default_rng(seed)
    utterance = np.arange(rows) % 4
    segments = [SEGMENTS[n] for n in utterance]
    lengths = {name: length[utterance] for name, length in LENGTHS.items()}
    lengths |= {"segments": np.array([sum(own) for own in segments]), "segment_lengths": lengths["words"]}
    fields: dict[str, Any] = {}
    for name in net.needs:
        steps = net.lengths.get(name, lengths[name].max() + (0 if name == "prosody" else padding))
        mask = np.arange(steps) < lengths[name][:, None]
        if name == "words":
            values = rng.integers(1, 12, (rows, max(40, steps)), np.int32)[:, :steps]
        elif name == "segment_lengths":
            values = np.array([own + [0] * (steps - len(own)) for own in segments], np.int32)
        else:
            values = rng.normal(size=(rows, max(80, steps), FEATURES))[:, :steps]
            if net.lengths:  # time is channels, so padding must be zero, as in training
                values = values * mask[..., None]
            values = values.astype(np.float32)
        fields |= {name: values, f"{name}_mask": mask}
    embeddings = np.random.default_rng(3).normal(size=(12, 5))
    label = (np.arange(rows) % CLASSES).astype(np.int32)
    batch = Batch(label, np.ones(rows, np.float32), embeddings=embeddings.astype(np.float32), **fields)
    return jax.device_put(batch)


def perturbed(params, size: float, rng: np.random.Generator):
    """Parameters plus noise. With numpy, nothing is compiled for the shapes of the parameters."""
    return jax.tree.map(lambda p: np.asarray(p) + (rng.normal(size=p.shape) * size).astype(p.dtype), params)


@cache
def prepared(case: Case):
    """A network, perturbed initial variables (so that no bias is zero), and the compiled evaluation of variables."""
    net = network(case)
    batch = make_batch(net)
    init = jax.jit(lambda key: net.init({"params": key, "dropout": key}, batch, hyper(net), train=False))
    variables = init(jax.random.key(0))
    params = perturbed(variables["params"], 0.1, np.random.default_rng(1))
    stats = variables.get("batch_stats", {})

    @jax.jit
    def apply(params, stats, batch) -> Output:
        return net.apply({"params": params, "batch_stats": stats}, batch, hyper(net), train=False)

    def evaluate(batch, params=params, stats=stats) -> Output:
        return apply(params, stats, batch)

    return net, params, stats, evaluate


@cache
def trained(case: Case):
    """A trainer, its compiled training step, the state before it, and a list that grows with every trace."""
    net, params, stats, _ = prepared(case)
    trainer = ReplicaTrainer(net, Adam(), (), Classes(tuple(map(str, range(CLASSES)))), epochs=1)
    traced = []

    @jax.jit
    def step(state, batch):
        traced.append(True)
        state, result = trainer.step(state, batch, jnp.float32(0))
        return state, result.loss

    zero, scalars = jnp.zeros((), jnp.int32), {**hyper(net), "learning_rate": jnp.float32(1e-2)}
    state = ReplicaState(
        params=params,
        batch_stats=stats,
        opt_state=jax.jit(trainer.optimizer.init)(params, scalars),
        hyper=scalars,
        key=jax.random.key(5),
        epoch=zero,
        step=zero,
        best=Best({}, {}, jnp.float32(0), jnp.float32(0), zero),
        bad_epochs=zero,
        plateau=trainer.optimizer.begin_plateau(),
        status=jnp.int32(Status.RUNNING),
        normalisation={},
        class_weights=jnp.ones(CLASSES),
    )
    return trainer, step, state, traced


@cache
def traced_in_bfloat16(case: Case):
    """The traced training step in bfloat16."""
    trainer, _, state, _ = trained(case)
    lower = replace(trainer, precision="bfloat16")
    return jax.jit(partial(lower.step, progress=jnp.float32(0))).trace(state, make_batch(network(case)))


def gradients(step, state: ReplicaState, batch: Batch):
    """The loss and the gradients of the first step from a state: Adam's first moment, over 1 - b1."""
    after, loss = step(state, batch)
    moments = optax.tree.get(after.opt_state, "mu")
    return [np.asarray(loss), *(np.asarray(mu) / (1 - Adam.b1) for mu in jax.tree.leaves(moments))]


@pytest.fixture(scope="module")
def case(request):
    """A case, whose programs are freed after its tests: they take some 800 memory maps, of 65,530 per process."""
    yield request.param
    for cached in (prepared, trained, traced_in_bfloat16):
        cached.cache_clear()
    jax.clear_caches()


each_network = pytest.mark.parametrize("case", FIRST_VARIANTS, ids=str, indirect=True)


def test_every_network_has_a_config_and_a_small_version():
    assert {case.fields["name"] for case in CASES} == set(MODELS) == set(TINY)


@each_network
def test_padding_does_not_change_predictions(case):
    net, _, _, evaluate = prepared(case)
    if net.lengths:
        pytest.skip("the network requires fixed lengths")
    np.testing.assert_allclose(
        evaluate(make_batch(net, 3)).log_probs, evaluate(make_batch(net)).log_probs, rtol=1e-4, atol=2e-5
    )


@each_network
def test_outputs(case):
    """Probabilities sum to 1, and attention is a distribution over the valid positions."""
    net, _, _, evaluate = prepared(case)
    found, padded = evaluate(make_batch(net)), evaluate(make_batch(net, 3))
    assert found.log_probs.shape == (ROWS, CLASSES)
    np.testing.assert_allclose(np.exp(found.log_probs).sum(1), 1, rtol=1e-5)
    assert found.logits
    for name, attention in found.attention.items():
        weights, wider = np.asarray(attention.weights), np.asarray(padded.attention[name].weights)
        assert ((weights >= 0) & (weights <= 1 + 1e-6)).all(), name
        if name not in NOT_SUMMING.get(case.fields["name"], ()):
            np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-5, err_msg=name)
        np.testing.assert_allclose(
            wider[tuple(map(slice, weights.shape))][..., :1], weights[..., :1], atol=2e-5
        )
        assert not wider[..., weights.shape[-1] :].any(), name


@each_network
def test_a_modality_without_valid_steps_is_finite(case):
    net, _, _, evaluate = prepared(case)
    _, step, state, _ = trained(case)
    for name in net.needs:
        batch = make_batch(net)
        batch = batch._replace(**{f"{name}_mask": np.zeros_like(getattr(batch, f"{name}_mask"))})
        if name == "segments":
            batch = batch._replace(segment_lengths=np.zeros_like(batch.segment_lengths))
        assert np.isfinite(evaluate(batch).log_probs).all(), name
        after, loss = step(state, batch)
        assert np.isfinite(loss), name
        assert all(np.isfinite(p).all() for p in jax.tree.leaves(after.params)), name


@each_network
def test_training_depends_on_the_key_and_evaluation_does_not(case):
    net, _, _, evaluate = prepared(case)
    _, step, state, _ = trained(case)
    batch = make_batch(net)
    np.testing.assert_array_equal(evaluate(batch).log_probs, evaluate(batch).log_probs)
    losses = [float(step(state._replace(key=jax.random.key(key)), batch)[1]) for key in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]


@each_network
def test_padding_rows_change_nothing(case):
    """Fully masked rows of weight 0 leave the loss and its gradients unchanged.

    Half a batch and as many padding rows are compared with the same half twice.
    """
    net, _, _, _ = prepared(case)
    _, step, state, _ = trained(case)
    random = {"noise_variance", *(name for name in net.hyper if name.endswith("dropout_rate"))}
    state = state._replace(
        hyper={name: jnp.float32(0) if name in random else x for name, x in state.hyper.items()}
    )
    half = ROWS // 2
    batch = make_batch(net)

    def twice(x, name):
        return x if name == "embeddings" or x is None else np.concatenate([x[:half]] * 2)

    def padded(x, name):
        return x * (np.arange(ROWS) < half).reshape(-1, *[1] * (x.ndim - 1)).astype(x.dtype)

    doubled = batch._replace(**{name: twice(getattr(batch, name), name) for name in Batch._fields})
    masks = {
        name: x
        for name, x in doubled._asdict().items()
        if name.endswith(("mask", "weight")) and x is not None
    }
    with_padding = doubled._replace(**{name: padded(x, name) for name, x in masks.items()})
    both = (gradients(step, state, one) for one in (with_padding, doubled))
    for a, b in zip(*both, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-5)


@each_network
def test_overfits_sixteen_utterances_with_one_compilation(case):
    net, _, _, evaluate = prepared(case)
    _, step, state, traced = trained(case)
    rng = np.random.default_rng(2)
    batch = make_batch(net)
    if batch.words is not None:
        batch = batch._replace(words=rng.integers(1, 12, batch.words.shape, np.int32))
    without_noise = {name: jnp.float32(0) for name in state.hyper if name != "learning_rate"}
    state = state._replace(hyper={**state.hyper, **without_noise})
    before = len(traced)
    for _ in range(150):
        state, loss = step(state, batch)
    assert len(traced) - before <= 1
    log_probs = evaluate(batch, state.params, state.batch_stats).log_probs
    assert (np.asarray(log_probs).argmax(1) == np.asarray(batch.label)).all(), float(loss)


@each_network
def test_vmapped_replicas_equal_single_replicas(case):
    _, step, state, _ = trained(case)
    batch = make_batch(network(case))
    rng = np.random.default_rng(4)
    keys = jax.random.split(jax.random.key(0), 3)
    replicas = [state._replace(params=perturbed(state.params, 0.05, rng), key=key) for key in keys]
    stacked = jax.tree.map(lambda *x: np.stack(x), *(replica._replace(key=0) for replica in replicas))
    together = gradients(jax.jit(jax.vmap(step, in_axes=(0, None))), stacked._replace(key=keys), batch)
    for r, replica in enumerate(replicas):
        for a, b in zip(together, gradients(step, replica, batch), strict=True):
            np.testing.assert_allclose(a[r], b, rtol=1e-4, atol=1e-5 * max(np.abs(b).max(), 1))


def output_shapes(net: Network, batch: Batch) -> Output:
    """The shapes of a network's output, without compiling it."""
    return jax.eval_shape(
        lambda key: net.init_with_output({"params": key, "dropout": key}, batch, hyper(net), train=False)[0],
        jax.random.key(0),
    )


def lengthened(net: Network, batch: Batch) -> Batch:
    """The batch with more padding, by `EXTRA_STEPS`."""
    fields = {}
    for name in net.needs:
        for field in (name, f"{name}_mask"):
            x = getattr(batch, field)
            fields[field] = np.pad(x, [(0, 0), (0, EXTRA_STEPS.get(name, 0)), *[(0, 0)] * (x.ndim - 2)])
    return jax.device_put(batch._replace(**fields))


def attribute_shapes(net: Network, batch: Batch) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The shapes of the loss and of the predictions of a network that predicts attributes."""
    target, truth = Attributes(tuple(map(str, range(CLASSES))), 1.0, 5.0), jnp.ones((ROWS, CLASSES))
    batch = batch._replace(target=truth)

    def apply(key):
        variables = net.init(key, batch, hyper(net), train=False)
        output, scalars = net.apply(variables, batch, hyper(net), train=False), {**hyper(net)}
        loss = target.loss(net, output, batch, jnp.ones(CLASSES), variables["params"], scalars)
        return loss, target.estimates(net, output, scalars)

    loss, estimates = jax.eval_shape(apply, jax.random.key(0))
    return loss.shape, estimates.shape


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_variant_fits_its_recipe_and_optimiser(case):
    """The shapes, arrays and scalars of a variant match its network and recipe, and so do its attention axes.

    An axis grows with the array that it declares, by one step per stride, and with no other array.
    """
    net, config = network(case), case.resolved
    batch = make_batch(net)
    output, longer = output_shapes(net, batch), output_shapes(net, lengthened(net, batch))
    assert output.log_probs.shape == (ROWS, CLASSES)
    assert attribute_shapes(net, batch) == ((), (ROWS, CLASSES))
    for name, (weights, axes) in ((name, (one.weights, one.axes)) for name, one in output.attention.items()):
        growth = np.subtract(longer.attention[name].weights.shape, weights.shape)
        declared = [EXTRA_STEPS[axis.array] / axis.stride if axis.array else 0 for axis in axes]
        assert growth.tolist() == [0, *declared], name
        assert longer.attention[name].axes == axes, name
    assert set(training_hyper(config, net)) <= {*net.hyper, *Adam.hyper}
    assert set(net.hyper) <= set(config.hyper)
    recipe = RECIPES[config.recipe]
    assert set(net.needs) <= {*recipe.arrays, *recipe.precomputed}


@each_network
def test_every_matrix_product_of_a_bfloat16_step_is_in_bfloat16(case):
    """One float32 constant would promote its product to float32, and cost what the option is meant to save."""
    _, step, state, _ = trained(case)

    def products(program):
        return set(re.findall(r":(\w+)\[[\d,]*\] = (?:dot_general|conv_general_dilated)", str(program.jaxpr)))

    assert products(step.trace(state, make_batch(network(case)))) == {"f32"}
    assert products(traced_in_bfloat16(case)) == {"bf16"}


@pytest.mark.parametrize(
    "case", [c for c in FIRST_VARIANTS if c.fields["name"] == "mcsan"], ids=str, indirect=True
)
def test_a_bfloat16_step_is_close_to_a_float32_step(case):
    _, step, state, _ = trained(case)
    batch = make_batch(network(case))
    after, (loss, _) = traced_in_bfloat16(case).lower().compile()(state, batch)
    expected, expected_loss = step(state, batch)
    assert loss != expected_loss
    np.testing.assert_allclose(loss, expected_loss, rtol=0.02)

    def moved(to):
        return np.concatenate(
            [
                np.ravel(a - b)
                for a, b in zip(jax.tree.leaves(to.params), jax.tree.leaves(state.params), strict=True)
            ]
        )

    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(after.params))
    assert np.corrcoef(moved(after), moved(expected))[0, 1] > 0.95


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=str, indirect=True)
def test_every_variant_takes_a_step(case):
    net, _, _, _ = prepared(case)
    _, step, state, _ = trained(case)
    after, loss = step(state, make_batch(net))
    assert np.isfinite(loss)
    pairs = zip(jax.tree.leaves(after.params), jax.tree.leaves(state.params), strict=True)
    moved = np.array([float(jnp.abs(a - b).max()) for a, b in pairs])
    assert moved.max() > 0
    assert np.isfinite(moved).all()
