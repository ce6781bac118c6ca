"""The fields shared by all configs, and the settings that follow from the corpus."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ml_collections import ConfigDict

from jaxser import corpora
from jaxser.corpora import Corpus

TRAININGS: Mapping[str, Mapping[str, Any]] = {
    "paper": {},
    "modern": {
        "batch_size": 64,
        "epochs": 16,
        "epochs_without_copies": 80,
        "patience": 0,
        "copies": "available",
        "dropout_rate": 0.2,  # of every layer that has dropout
        "hyper": {
            "learning_rate": 1e-3,
            "weight_decay": 0.05,
            "warmup": 0.1,
            "label_smoothing": 0.1,
            "ema_decay": 0.99,
            "mixup": 0.3,
            "word_dropout": 0.1,
        },
        "optimizer": {"schedule": "cosine", "clip": "global_norm", "clip_limit": 1.0, "plateau_patience": 0},
        "note": "",
    },
}
"""The fields that each value of `config.training` sets; docs/reference/training.md explains them."""


def base_config(dataset: str, paper: str) -> ConfigDict:
    """Return the fields of a run, with the values that no paper states.

    Args:
        dataset: the argument of a config file, "NAME" or "NAME:CORPUS" (see `parse_dataset`).
        paper: the paper's id in `jaxser/papers/results.yaml`.
    """
    name, corpus = parse_dataset(dataset)
    config = ConfigDict()
    config.dataset = name
    config.corpus = corpus  # that the dataset was prepared from; "" if unknown
    config.paper = paper
    config.variant = ""
    config.training = "paper"  # paper | modern
    config.as_published = False  # True: the paper's own settings, also where this config deviates from them
    config.published = ConfigDict()  # the fields that as_published sets
    config.datasets = ""  # the datasets to train on, joined by +; "": dataset
    config.test_on = ""  # other datasets, separated by commas, of which all utterances are tested; "": none
    config.classes = "seven"  # a label set (`corpora.LABEL_SETS`), or a list such as ang,hap+exc,sad
    config.subset = "all"  # all | improvised
    config.normalise = "train"  # statistics over: train | train_neutral | utterance | none
    config.epochs_without_copies = 0  # instead of epochs, if no copies are used; 0: epochs
    config.copies = "none"  # parts that get copies: none | available | train | train_and_validation
    config.class_weights = "none"  # none | balanced
    config.selection = "wa"  # on validation: wa | ua | f1_weighted | f1_macro | wa_plus_ua | loss
    config.best_epochs = 1  # number of best epochs whose mean probabilities predict
    config.patience = 0  # epochs without improvement before a replica stops; 0: train all epochs
    config.target = "classes"  # what is predicted: classes | attributes | votes
    config.precision = "float32"  # of training steps: float32 | bfloat16
    config.seeds = 5  # number of seeds
    config.buckets = 8  # groups of similar length, each compiled separately
    config.note = ""  # printed in the report
    config.model = ConfigDict()
    config.hyper = ConfigDict(
        {
            "learning_rate": 1e-3,
            "weight_decay": 0.0,  # decoupled, without biases and scales
            "warmup": 0.0,  # share of the training during which the learning rate rises
            "accumulation": 1.0,  # batches per update
            "encoder_learning_rate": 0.0,  # of a pretrained encoder that is trained; 0: that of the network
            "encoder_warmup": 0.0,  # the same as warmup, for the encoder alone and in addition
            "ema_decay": 0.0,  # of the moving average of parameters that is evaluated
            "swa_share": 0.0,  # share of the training over whose epochs parameters are averaged
            "label_smoothing": 0.0,
            "focal_gamma": 0.0,
            "class_balance": 0.0,  # beta of weights by the effective number of utterances
            "stochastic_depth_rate": 0.0,  # of the transformers' sub-layers
            "crop": 0.0,  # largest share of frames that is cut off
            "time_shift": 0.0,  # largest shift, as a share of the frames
            "mixup": 0.0,  # alpha
            "feature_noise": 0.0,  # standard deviation
            "time_mask": 0.0,  # largest width of each of two masks, as a share of the frames
            "frequency_mask": 0.0,  # the same, as a share of the features
            "word_dropout": 0.0,  # share of words that become the unknown word
            "modality_dropout": 0.0,  # share of utterances that lose one modality
        }
    )
    config.optimizer = ConfigDict(
        {
            "b1": 0.9,
            "b2": 0.999,
            "clip": "none",  # none | global_norm | tensor_norm | value
            "clip_limit": 1.0,
            "schedule": "constant",  # constant | cosine | one_cycle
            "plateau_patience": 0,  # epochs without a lower validation loss before the rate drops; 0: never
            "plateau_factor": 0.1,
        }
    )
    config.encoder = ConfigDict(
        {
            "folder": "",  # recipe waveform: folder of a pretrained encoder (Hugging Face's layout)
            "train": "none",  # none | lora | top:N | all
            "layers": "last",  # hidden states that the network reads: last | all | mean | numbers such as 3,6,9
            "padding": "",  # exact | as_published; "": the default of the family
            "normalise": "layer",  # of each frame over its features: layer | none
            "lora_rank": 8,
            "lora_alpha": 16.0,
            "lora_targets": "query,value",  # some of query, key, value, output, feed_forward
            "mask_time_prob": 0.0,  # share of the encoder's steps that are masked in training; its features: below
            "mask_time_length": 10,  # steps of a span
            "mask_feature_prob": 0.0,
            "mask_feature_length": 10,
            "remat": False,  # True: compute activations again in the backward pass, which saves memory
        }
    )
    config.attributes = ConfigDict(
        {
            "names": "",  # target attributes: some of them, separated by commas; "": all that the dataset has
            "loss": "ccc",  # ccc | mse
            "class_share": 0.0,  # weight of the cross-entropy of the classes in the loss
        }
    )
    config.votes = ConfigDict({"loss": "cross_entropy"})  # target votes: cross_entropy | kl | class_balanced
    config.across = ConfigDict(  # of runs on several datasets
        {
            "normalise": "together",  # statistics of: together | corpus
            "sampling": "size",  # utterances of each corpus in an epoch: size | equal
            "label_map": "",  # JSON file: for each dataset, the common class of some of its labels
        }
    )
    config.protocol = ConfigDict(  # name of several datasets also: leave_corpus_out
        {
            "name": "random",  # random | session | holdout | speaker | official | corpus | emobox | file
            "folds": 0,  # 0: the protocol's own number
            "split_seed": 0,
            "validation_share": 0.0,  # random: fraction used for validation; 0: the next fold validates
            "validation_from": "rest",  # random: validation_share is a fraction of: rest | test
            "select": "validation",  # part that selects the epoch: validation | test
            "groups": (),  # speakers that are tested together
            "group_by": "",  # random: keep together by: transcript | speaker | dialogue | audio | speaker+transcript
            "file": "",  # file: of folds; emobox: folder of EmoBox's fold files of the corpus
            "twin": "",  # speaker: move whole speakers, so that none is tested and trained on
        }
    )
    return config


def parse_dataset(argument: str) -> tuple[str, str]:
    """Split the argument of a config file into the names of the dataset and its corpus.

    `jaxser.main` passes "NAME:CORPUS" with the corpus of the dataset's manifest. In "NAME" alone, the name is taken
    as that of a corpus or of an automatically made demo dataset; otherwise the corpus is "" (unknown).
    """
    name, colon, corpus = argument.partition(":")
    if colon:
        return name, corpus
    if name in corpora.DEMO_DATASETS:
        return name, "demo"
    return name, name if name in corpora.CORPORA else ""


def corpus_of(config: ConfigDict) -> Corpus:
    """Return the record of the config's corpus, a generic one if it is unknown."""
    return corpora.find(config.corpus)


_SETTINGS = (
    "training",
    "recipe",
    "normalise",
    "copies",
    "class_weights",
    "selection",
    "patience",
    "seeds",
    "epochs",
    "batch_size",
    "model",
    "hyper",
    "optimizer",
    "variants",
)
"""The fields that `as_published` sets to the values that a config file gives them, before it fits them to a corpus."""


def finish(config: ConfigDict, published: Mapping[str, Any] | None = None) -> ConfigDict:
    """Fit the config to its corpus, and make every scalar in `hyper` sweepable.

    This includes the scalars of its variants.

    Args:
        config: the config, with the values of its paper.
        published: the paper's own values of fields that deviate from the paper on purpose.
    """
    settings = config.copy_and_resolve_references()
    config.published = ConfigDict({name: settings[name] for name in _SETTINGS})
    config.published.note = "the paper's own settings (config.as_published)"
    config.published.update(published or {})
    fit_corpus(config)
    scalars = [
        *config.hyper,
        *(name for variant in config.variants.values() for name in variant.get("hyper", ())),
    ]
    config.sweep = ConfigDict(dict.fromkeys(scalars, ()))
    return config


def fit_corpus(config: ConfigDict) -> None:
    """Set the label set, metric, protocol and amount of training that suit the corpus."""
    corpus = corpus_of(config)
    config.classes = corpus.classes or config.classes
    config.selection = corpus.selection or config.selection
    config.training = corpus.training
    if corpus.synthetic:
        _scale_to_demo(config)
    elif corpus.is_small:
        _scale_to_small_corpus(config)
    if corpus.protocol:
        config.protocol.update({field: value for field, value in asdict(corpus.protocol).items() if value})


def quick(config: ConfigDict) -> None:
    """Shorten a run to one fold, one seed and a few epochs.

    This is enough to show that a row of a table runs.
    """
    config.note = "quick protocol (one fold, one seed, at most 10 epochs): only shows that the row runs"
    config.seeds = 1
    config.epochs = min(config.epochs, 10)
    config.copies = "none"
    config.buckets = min(config.buckets, 2)
    if not corpus_of(config).synthetic:  # the demo corpus has its own rate
        config.hyper.learning_rate = 1e-3
    config.protocol.name = "holdout"
    _reset_folds(config)


def _reset_folds(config: ConfigDict) -> None:
    config.protocol.update(
        {"folds": 0, "validation_share": 0.0, "validation_from": "rest", "select": "validation"}
    )


def _scale_to_demo(config: ConfigDict) -> None:
    """Scale training to a thousand short utterances and two cores.

    The network stays the paper's.
    """
    config.note = "scaled to the demo corpus: batches of 32, 10 epochs, learning rate 1e-3 with cosine decay"
    config.seeds = 2
    config.epochs = 10
    config.batch_size = 32
    config.buckets = min(config.buckets, 6)
    config.hyper.learning_rate = 1e-3
    config.optimizer.schedule = "cosine"
    if "train_embeddings" in config.model:
        config.model.train_embeddings = True  # random vectors, so that no GloVe file is needed
    _reset_folds(config)
    _scale_variants(config)


def _scale_to_small_corpus(config: ConfigDict) -> None:
    """Set small batches, one seed, early stopping and no noisy copies for a small corpus of acted speech."""
    config.note = (
        "scaled to a small corpus of acted speech: batches of 32, at most 30 epochs, cosine decay, patience 8"
    )
    if config.copies != "none":
        config.note += ", no noisy copies"
    config.batch_size = 32
    config.seeds = 1
    config.epochs = 30
    config.patience = 8
    config.copies = "none"
    config.buckets = min(config.buckets, 4)
    config.optimizer.schedule = "cosine"
    _reset_folds(config)
    _scale_variants(config)


def _scale_variants(config: ConfigDict) -> None:
    """Remove the training length of the baselines.

    They are scaled in the same way as the paper's own network.
    """
    for variant in config.variants.values():
        hyper, optimizer = variant.get("hyper", {}), variant.get("optimizer", {})
        for part, name in (
            *((variant, name) for name in ("epochs", "batch_size", "patience")),
            (hyper, "learning_rate"),
            (optimizer, "schedule"),
        ):
            if name in part:
                del part[name]
