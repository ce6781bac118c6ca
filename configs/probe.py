"""Probes on the frames of a pretrained encoder: small heads for comparisons.

python -m jaxser.main --config=configs/probe.py:ravdess --config.variant=statistics
python -m jaxser.main --config=configs/probe.py:ravdess --config.variant=linear
"""

from ml_collections import ConfigDict

from jaxser.configs import common

VARIANTS = {
    "statistics": {},
    "linear": {"model": {"pooling": "mean"}, "hyper": {"dropout_rate": 0.0}},  # EmoBox: no dropout
    "attentive": {"model": {"pooling": "attentive", "hidden_size": 128}},
}


def get_config(dataset: str = "demo") -> ConfigDict:
    """Return the config for a dataset, "NAME" or "NAME:CORPUS"."""
    config = common.base_config(dataset, paper="")
    config.recipe = "encoder"
    config.normalise = "train"
    config.variants = VARIANTS
    config.variant = "statistics"

    config.epochs = 50
    config.batch_size = 32  # EmoBox
    config.selection = "ua"

    config.model.name = "probe"
    config.model.pooling = "statistics"
    config.model.hidden_size = 256  # EmoBox

    config.hyper.learning_rate = 1e-3
    config.hyper.dropout_rate = 0.2
    config.optimizer.schedule = "cosine"
    return common.finish(config)
