"""Systems that papers compare their own with, as variants of those papers' configs.

Each uses the recipe and the folds of the config that it is a variant of. `mdre`, `amh` and `xu` are trained as in their
authors' code, and `mha`, which has none, like `amh`; `lee_mha` and `lee_xu` as Lee et al. 2020 (section 4.2) train
everything in their comparison.
"""

from typing import Any

from ml_collections import ConfigDict

YOON_ENCODERS = {
    "hidden_size": 200,
    "video_hidden_size": 128,
    "cell": "gru_tf1",
    "bidirectional": False,
    "dropout_on": ("input",),  # MDRE's output too, which does not affect its last state
    "audio_length": 750,
    "video_length": 25,
    "prosody": False,  # used by MDRE's authors, but missing from most recipes
    "train_embeddings": True,
}

YOON_TRAINING = {
    "hyper": {
        "learning_rate": 1e-3,
        "audio_dropout_rate": 0.3,  # their scripts state keep probabilities: .7, .3 and .7
        "text_dropout_rate": 0.7,
        "video_dropout_rate": 0.3,
    },
    "batch_size": 128,
    "epochs": 200,  # 10,000 steps; early stopping usually ends training first
}

LEE_TRAINING = {  # section 4.2
    "optimizer": {"clip": "global_norm", "clip_limit": 1.0, "plateau_patience": 0},
    "batch_size": 64,
    "epochs": 100,  # not stated; early stopping usually ends training first
    "patience": 10,
}


def mdre(*modalities: str) -> dict[str, Any]:
    """Return MDRE (Yoon et al. 2018), as published.

    The code is github.com/david-yoon/multimodal-speech-emotion at 44d05d5. The published code selects the epoch by
    validation loss and draws batches with replacement. Here, the config's metric selects it, and an epoch visits every
    utterance once.
    """
    return YOON_TRAINING | {
        "model": {"name": "mdre", "modalities": modalities, **YOON_ENCODERS},
        "optimizer": {"clip": "value", "clip_limit": 10.0, "plateau_patience": 0},
        "patience": 3,  # epochs; published code: 8 evaluations without improvement, one every .3 epochs
    }


def amh() -> dict[str, Any]:
    """Return AMH (Yoon et al. 2020), as published.

    The code is github.com/david-yoon/attentive-modality-hopping-for-SER at fed3ece.
    """
    return YOON_TRAINING | {
        "model": {"name": "amh", "modalities": ("audio", "text", "video"), "num_hops": 7, **YOON_ENCODERS},
        "optimizer": {"clip": "tensor_norm", "clip_limit": 1.0, "plateau_patience": 0},
        "patience": 5,  # epochs; published code: 16 evaluations without improvement, one every .3 epochs
    }


def mha(first: str, second: str, **fields: Any) -> dict[str, Any]:
    """Return MHA (Yoon et al. 2019), which has no published code and is trained like AMH.

    Args:
        first: the modality of the first query.
        second: the modality that it attends to.
        **fields: further fields of the model.
    """
    changed = {"cell": "lstm", "bidirectional": True, "video_hidden_size": 200, **fields}
    model = {"name": "mha", "modalities": (first, second), "num_hops": 2, **YOON_ENCODERS, **changed}
    return amh() | {"model": model}


def xu() -> dict[str, Any]:
    """Return Xu et al. 2019, as published in github.com/Delta-ML/delta at 31dfebc.

    `AlignClassModel` of delta/models/multimodal_cls_model.py, with the settings of
    egs/iemocap/emo/v1/conf/multimodal-align-emotion.yml. Its power spectra never reach the network normalised.
    """
    model = {
        "name": "xu",
        "hidden_size": 100,
        "cell": "gru_keras",
        "num_heads": 8,
        "join_text": True,
        "speech_dense": 512,
        "dropout_after": (
            "embedding",
            "speech_dense",
            "encoders",
            "alignment",
            "pooling",
            "classifier_input",
        ),
        "train_embeddings": True,
        "as_published": True,
    }
    return {
        "model": model,
        "normalise": "none",
        "hyper": {"learning_rate": 1e-3, "dropout_rate": 0.5},
        "optimizer": {"clip": "global_norm", "clip_limit": 3.0, "plateau_patience": 0},
        "batch_size": 64,
        "epochs": 150,
        "patience": 0,
    }


def lee_mha() -> dict[str, Any]:
    """Return MHA as trained by Lee et al. 2020, their [8].

    The BLSTMs have 128 units, and dropout follows each. Not stated: which modality is the first query, and the number
    of hops.
    """
    encoders = {"hidden_size": 128, "video_hidden_size": 128, "audio_length": 0, "dropout_on": ("output",)}
    rates = dict.fromkeys(("audio_dropout_rate", "text_dropout_rate", "video_dropout_rate"), 0.3)
    return mha("audio", "text", **encoders) | LEE_TRAINING | {"hyper": {"learning_rate": 1e-3, **rates}}


def lee_xu() -> dict[str, Any]:
    """Return Xu et al. as trained by Lee et al. 2020, their [9].

    The BLSTMs have 128 units, and dropout follows each. Not stated: the number of heads, and that the text is
    concatenated.
    """
    model = {
        "name": "xu",
        "hidden_size": 128,
        "cell": "lstm",
        "num_heads": 8,
        "join_text": True,
        "dropout_after": ("encoders", "fusion"),
        "train_embeddings": True,
    }
    return LEE_TRAINING | {"model": model, "hyper": {"learning_rate": 1e-3, "dropout_rate": 0.3}}


def published(config: ConfigDict) -> dict[str, Any]:
    """Return the network of another paper's config as a variant.

    The variant has the recipe and the training settings of that config.
    """
    names = ("recipe", "model", "hyper", "optimizer", "batch_size", "epochs", "patience")
    fields = config.to_dict()
    return {name: fields[name] for name in names}
