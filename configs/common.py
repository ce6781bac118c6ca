"""What every paper's config shares: the fields that a run has, and what a dataset asks of it."""

from ml_collections import ConfigDict

from jaxser.data.folds import EMOBOX_RAVDESS


def base_config(dataset: str, paper: str) -> ConfigDict:
    """The fields of a run, with the values that no paper states."""
    config = ConfigDict()
    config.dataset = dataset
    config.paper = paper
    config.variant = ""
    config.classes = "seven"  # seven | four_merged | four | all
    config.subset = "all"  # all | improvised
    config.normalise = "train"  # statistics over: train | train_neutral | utterance | none
    config.copies = "none"  # noisy ones enter: none | train | train_and_validation
    config.class_weights = "none"  # none | balanced
    config.selection = "wa"  # on validation: wa | ua | f1_weighted | f1_macro | wa_plus_ua
    config.patience = 0  # epochs without a better one before a replica stops; 0: all epochs
    config.precision = "float32"  # of training steps: float32 | bfloat16
    config.seeds = 5  # how many
    config.buckets = 8  # groups of similar length; each is compiled
    config.note = ""  # printed in the report
    config.model = ConfigDict()
    config.hyper = ConfigDict({"learning_rate": 1e-3, "weight_decay": 0.0})
    config.optimizer = ConfigDict(
        {
            "b1": 0.9,
            "b2": 0.999,
            "clip": "none",  # none | global_norm | tensor_norm | value
            "clip_limit": 1.0,
            "schedule": "constant",  # constant | cosine
            "plateau_patience": 0,  # epochs without a lower validation loss before the rate shrinks; 0: never
            "plateau_factor": 0.1,
        }
    )
    config.protocol = ConfigDict(
        {
            "name": "random",  # random | session | holdout | speaker | official | file
            "folds": 0,  # 0: the protocol's own number
            "split_seed": 0,
            "validation_share": 0.0,  # random: 0: the next fold validates
            "validation_from": "rest",  # random: that share is of: rest | test
            "select": "validation",  # what selects the epoch: validation | test
            "groups": (),  # speakers that are tested together
            "group_by": "",  # random: what stays in one part: transcript | speaker | dialogue | audio
            "file": "",
        }
    )
    return config


def finish(config: ConfigDict) -> ConfigDict:
    """Fit the config to its dataset, and let every scalar in `hyper` be swept, those of its variants too."""
    fit_dataset(config)
    scalars = [
        *config.hyper,
        *(name for variant in config.variants.values() for name in variant.get("hyper", ())),
    ]
    config.sweep = ConfigDict(dict.fromkeys(scalars, ()))
    return config


def fit_dataset(config: ConfigDict) -> None:
    """What a corpus itself asks for: its label set, its headline protocol, and a scale that its size allows."""
    dataset = config.dataset
    if dataset.startswith("iemocap"):
        return  # the papers' own
    config.classes = "all"
    if dataset.startswith("demo"):
        _fit_demo(config)
    elif dataset == "meld":
        config.protocol.name = "official"
        config.selection = "f1_weighted"
    elif dataset == "ravdess":
        _fit_acted_speech(config)
        config.protocol.groups = tuple(
            tuple(f"actor{actor:02}" for actor in group) for group in EMOBOX_RAVDESS
        )
    elif dataset == "emodb":
        _fit_acted_speech(config)
        config.protocol.folds = 5


def quick(config: ConfigDict) -> None:
    """Proves that a table's row runs, and nothing else: one fold, one seed, few epochs, the demo's learning rate."""
    config.note = (
        "quick protocol: one fold, one seed, at most 10 epochs: shows that the row runs, nothing else"
    )
    config.seeds = 1
    config.epochs = min(config.epochs, 10)
    config.copies = "none"
    config.buckets = min(config.buckets, 2)
    if not config.dataset.startswith("demo"):  # whose rate it is
        config.hyper.learning_rate = 1e-3
    _reset_protocol(config, "holdout")


def _reset_protocol(config: ConfigDict, name: str) -> None:
    config.protocol.update(
        {"name": name, "folds": 0, "validation_share": 0.0, "validation_from": "rest", "select": "validation"}
    )


def _fit_demo(config: ConfigDict) -> None:
    """Scaled to a thousand short utterances and two cores; the network is the paper's."""
    config.note = "scaled to the demo corpus: batches of 32, 10 epochs, learning rate 1e-3 with cosine decay"
    config.classes = "seven"
    config.seeds = 2
    config.epochs = 10
    config.batch_size = 32
    config.buckets = min(config.buckets, 6)
    config.selection = "ua"
    config.hyper.learning_rate = 1e-3
    config.optimizer.schedule = "cosine"
    if "train_embeddings" in config.model:
        config.model.train_embeddings = True  # the vectors begin random: no GloVe file is needed
    _reset_protocol(config, "session")
    _scale_variants(config)


def _fit_acted_speech(config: ConfigDict) -> None:
    """RAVDESS and EmoDB: small corpora, so small batches; one seed, early stopping, no noisy copies."""
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
    config.selection = "ua"
    config.optimizer.schedule = "cosine"
    _reset_protocol(config, "speaker")
    _scale_variants(config)


def _scale_variants(config: ConfigDict) -> None:
    """Compared systems are scaled as the paper's own: what they say of their training's length is left out."""
    for variant in config.variants.values():
        hyper, optimizer = variant.get("hyper", {}), variant.get("optimizer", {})
        for part, name in (
            *((variant, name) for name in ("epochs", "batch_size", "patience")),
            (hyper, "learning_rate"),
            (optimizer, "schedule"),
        ):
            if name in part:
                del part[name]
