"""Variants of a config: what they set, what they leave out, and that they keep the user's values."""

import pytest

from jaxser.config import resolve
from jaxser.configs import mcsan
from jaxser.training.scalars import OPTIONAL
from jaxser.types import UsageError


def resolved(variant, given=None, **fields):
    config = mcsan.get_config("iemocap")
    config.update(fields)
    with config.unlocked():
        config.variants.other = {
            "model": {"name": "can", "hidden_size": 8},
            "hyper": {"alpha": 0.3, "dropout_rate": 0.6},
            "batch_size": 7,
        }
    config.variant = variant
    return resolve(config, given)


def test_a_baseline_has_its_own_fields_and_scalars():
    config = resolved("other")
    assert config.model.to_dict() == {"name": "can", "hidden_size": 8}
    assert {name: value for name, value in config.hyper.items() if name not in OPTIONAL} == {
        "learning_rate": 1e-3,
        "weight_decay": 0.0,
        "dropout_rate": 0.6,
        "alpha": 0.3,
    }
    assert set(config.sweep) == set(config.hyper)
    assert config.batch_size == 7
    assert "alpha" not in resolved("mcsan").hyper


def test_the_users_values_are_kept():
    config = resolved(
        "other", {"batch_size": 9, "hyper.alpha": 0.5, "sweep.alpha": (0.1, 0.2), "variant": "other"}
    )
    assert (config.batch_size, config.hyper.alpha, config.sweep.alpha) == (9, 0.5, (0.1, 0.2))


def test_fields_that_a_variant_lacks_cannot_be_set():
    with pytest.raises(UsageError, match=r"config\.model\.pool_size: variant other has no such field"):
        resolved("other", {"model.pool_size": 2})
    with pytest.raises(UsageError, match=r"config\.sweep\.alpha: variant mcsan has no such field"):
        resolved("mcsan", {"sweep.alpha": (0.1, 0.2)})
