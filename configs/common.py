"""What every paper's config shares: the fields that a run has, and what a dataset asks of it."""

from ml_collections import ConfigDict

from jaxser.data.folds import EMOBOX_RAVDESS


def base_config(dataset: str) -> ConfigDict:
    """The fields of a run, with the values that no paper states."""
    config = ConfigDict()
    config.dataset = dataset
    config.variant = ""
    config.classes = "seven"  # seven | four_merged | four | all
    config.subset = "all"  # all | improvised
    config.normalise = "train"  # statistics over: train | train_neutral | utterance | none
    config.class_weights = "none"  # none | balanced
    config.selection = "wa"  # on validation: wa | ua | f1_weighted | f1_macro | wa_plus_ua
    config.patience = 0  # epochs without a better one before a replica stops; 0: all epochs
    config.seeds = 5  # how many
    config.buckets = 8  # groups of similar length; each is compiled
    config.note = ""  # printed in the report
    config.protocol = ConfigDict(
        {
            "name": "random",  # random | session | speaker | official | file
            "folds": 0,  # 0: the protocol's own number
            "split_seed": 0,
            "validation_share": 0.0,  # 0: the next fold validates
            "groups": (),  # speakers that are tested together
            "file": "",
        }
    )
    return config


def begin_sweeps(config: ConfigDict) -> None:
    """Let every scalar in `hyper` be swept: `--config.sweep.learning_rate=1e-4,3e-4`."""
    config.sweep = ConfigDict(dict.fromkeys(config.hyper, ()))


def fit_dataset(config: ConfigDict) -> None:
    """What a corpus itself asks for: its label set and its headline protocol."""
    if config.dataset.startswith("demo"):
        config.protocol.name = "session"
    elif config.dataset.startswith("iemocap"):
        return
    elif config.dataset == "meld":
        config.classes = "all"
        config.protocol.name = "official"
    elif config.dataset == "ravdess":
        config.classes = "all"
        config.protocol.name = "speaker"
        config.protocol.groups = tuple(
            tuple(f"actor{actor:02}" for actor in group) for group in EMOBOX_RAVDESS
        )
    elif config.dataset == "emodb":
        config.classes = "all"
        config.protocol.name = "speaker"
        config.protocol.folds = 5
    else:  # a folder of one's own
        config.classes = "all"
