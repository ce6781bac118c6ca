"""The systems that the papers compare with, as variants of the config of the paper that compares.

Each reads that paper's recipe and keeps its folds. `mdre`, `mha`, `amh` and `xu` are trained as their authors publish;
`lee_mha` and `lee_xu` as Lee et al. 2020 train all that they compare, in their section 4.2.
"""

from typing import Any

from ml_collections import ConfigDict

YOON_ENCODERS = {
    "hidden_size": 200,
    "video_hidden_size": 128,
    "cell": "gru_tf1",
    "bidirectional": False,
    "dropout_on": ("input",),  # MDRE's output too, which its last state does not feel
    "audio_length": 750,
    "video_length": 25,
    "prosody": False,  # MDRE's authors have it, the recipes mostly not
    "train_embeddings": True,
}

YOON_TRAINING = {
    "hyper": {
        "learning_rate": 1e-3,
        "audio_dropout_rate": 0.3,  # their scripts give what is kept: .7, .3 and .7
        "text_dropout_rate": 0.7,
        "video_dropout_rate": 0.3,
    },
    "batch_size": 128,
    "epochs": 200,  # 10,000 steps; early stopping ends it
}

LEE_TRAINING = {  # section 4.2
    "optimizer": {"clip": "global_norm", "clip_limit": 1.0, "plateau_patience": 0},
    "batch_size": 64,
    "epochs": 100,  # not stated; early stopping ends it
    "patience": 10,
}


def mdre(*modalities: str) -> dict[str, Any]:
    """Yoon et al. 2018, github.com/david-yoon/multimodal-speech-emotion.

    The code selects by the validation loss, here it is the config's metric, and draws its batches with replacement.
    """
    return YOON_TRAINING | {
        "model": {"name": "mdre", "modalities": modalities, **YOON_ENCODERS},
        "optimizer": {"clip": "value", "clip_limit": 10.0, "plateau_patience": 0},
        "patience": 3,  # epochs; 8 checks without a better one, each after .3 epochs
    }


def amh() -> dict[str, Any]:
    """Yoon et al. 2020, github.com/david-yoon/attentive-modality-hopping-for-SER."""
    return YOON_TRAINING | {
        "model": {"name": "amh", "modalities": ("audio", "text", "video"), "num_hops": 7, **YOON_ENCODERS},
        "optimizer": {"clip": "tensor_norm", "clip_limit": 1.0, "plateau_patience": 0},
        "patience": 5,  # epochs; 16 checks without a better one, each after .3 epochs
    }


def mha(first: str, second: str, **fields: Any) -> dict[str, Any]:
    """Yoon et al. 2019, without published code: trained as AMH. The first modality asks the second."""
    changed = {"cell": "lstm", "bidirectional": True, "video_hidden_size": 200, **fields}
    model = {"name": "mha", "modalities": (first, second), "num_hops": 2, **YOON_ENCODERS, **changed}
    return amh() | {"model": model}


def xu() -> dict[str, Any]:
    """Xu et al. 2019, as egs/iemocap/emo/v1/conf/multimodal-align-emotion.yml of their toolkit DELTA."""
    model = {
        "name": "xu",
        "hidden_size": 100,
        "cell": "gru_tf1",
        "num_heads": 8,
        "join_text": False,
        "dropout_after": ("embedding", "encoders", "alignment", "pooling"),
        "train_embeddings": True,
    }
    return {
        "model": model,
        "hyper": {"learning_rate": 1e-3, "dropout_rate": 0.7},
        "optimizer": {"clip": "global_norm", "clip_limit": 3.0, "plateau_patience": 0},
        "batch_size": 64,
        "epochs": 150,
        "patience": 0,
    }


def lee_mha() -> dict[str, Any]:
    """Their [8]: BLSTMs of 128, each followed by dropout; not stated: which modality asks, and how often."""
    encoders = {"hidden_size": 128, "video_hidden_size": 128, "audio_length": 0, "dropout_on": ("output",)}
    rates = dict.fromkeys(("audio_dropout_rate", "text_dropout_rate", "video_dropout_rate"), 0.3)
    return mha("audio", "text", **encoders) | LEE_TRAINING | {"hyper": {"learning_rate": 1e-3, **rates}}


def lee_xu() -> dict[str, Any]:
    """Their [9]: BLSTMs of 128, each followed by dropout; not stated: heads, and that text is joined."""
    changed = {"hidden_size": 128, "cell": "lstm", "join_text": True, "dropout_after": ("encoders", "fusion")}
    hyper = {"learning_rate": 1e-3, "dropout_rate": 0.3}
    return LEE_TRAINING | {"model": xu()["model"] | changed, "hyper": hyper}


def published(config: ConfigDict) -> dict[str, Any]:
    """The network of another paper's config with its recipe and its training."""
    names = ("recipe", "model", "hyper", "optimizer", "batch_size", "epochs", "patience")
    whole = config.to_dict()
    return {name: whole[name] for name in names}
