"""Every variant of every config lowers for TPU and for CUDA on a machine with neither."""

import functools
from importlib import import_module
from pathlib import Path

import jax
import numpy as np
import pytest

from helpers import tiny
from jaxser import experiment
from jaxser.config import resolve
from jaxser.models import MODELS

PLATFORMS = ("tpu", "cuda")


def variants() -> list[tuple[str, str]]:
    """Each config with each of its variants."""
    files = sorted((Path(__file__).parents[2] / "configs").glob("[!_]*.py"))
    modules = [import_module(f"jaxser.configs.{path.stem}") for path in files]
    return [(m.__name__, name) for m in modules if hasattr(m, "get_config") for name in m.VARIANTS]


def resolved(module: str, variant: str):
    """A variant at the paper's size on the demo corpus, with few replicas."""
    config = import_module(module).get_config("demo")
    config.variant = variant
    config.seeds, config.buckets = 1, 1
    return resolve(config)


@functools.cache
def data():
    return tiny.everything(number=40)


def lowered(config) -> jax.export.Exported:
    """One epoch of two vmapped replicas, as on a GPU or TPU: training, validation and selection."""
    sweep = experiment.build_sweep(config, data(), jax.devices()[:1], "vmap")
    schedules = [jax.tree.map(lambda x: np.stack([x, x]), own[0]) for own in sweep.schedules(0)]
    state = jax.tree.map(lambda x: jax.ShapeDtypeStruct((2, *x.shape), x.dtype), sweep.shapes())
    epoch = jax.jit(jax.vmap(sweep.trainer.epoch, in_axes=(0, 0, 0, None)))
    return jax.export.export(epoch, platforms=PLATFORMS)(state, *schedules, sweep.source.on_devices)


def first_variants() -> list[tuple[str, str]]:
    """One variant of each network."""
    first = {resolved(*pair).model.name: pair for pair in reversed(variants())}
    return sorted(first.values())


def test_every_network_has_a_config():
    assert {resolved(*pair).model.name for pair in first_variants()} == set(MODELS)


@pytest.mark.parametrize(("module", "variant"), first_variants())
def test_every_network_lowers_for_tpu_and_cuda(module, variant):
    program = lowered(resolved(module, variant))
    assert program.platforms == PLATFORMS
    assert "stablehlo.dot_general" in program.mlir_module()


@pytest.mark.slow
@pytest.mark.parametrize(("module", "variant"), sorted(set(variants()) - set(first_variants())))
def test_every_variant_lowers_for_tpu_and_cuda(module, variant):
    assert lowered(resolved(module, variant)).platforms == PLATFORMS
