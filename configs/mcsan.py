"""MCSAN (Sun et al., ICASSP 2021): Table 1, MELD's Table 2, and the ablations of Table 3.

    python -m jaxser.main --config=configs/mcsan.py                      # demo corpus
    python -m jaxser.main --config=configs/mcsan.py:iemocap              # 10 folds x 5 seeds
    python -m jaxser.main --config=configs/mcsan.py:iemocap --config.variant=no_cross

Printed: IEMOCAP WA .612 +- .012, UA .560 +- .019; MELD weighted F1 .592.
"""

from ml_collections import ConfigDict

from configs import common

VARIANTS = {
    "mcsan": {},
    "audio_only": {"model": {"modalities": ("audio",)}},  # Table 3, w/o text
    "text_only": {"model": {"modalities": ("text",)}},  # Table 3, w/o audio
    "no_self": {"model": {"arrangement": "cross"}},  # Table 3, w/o self
    "no_cross": {"model": {"arrangement": "self"}},  # Table 3, w/o cross
    "cross_then_self": {"model": {"arrangement": "cross_then_self"}},  # Table 3, cross + self (seq)
    "self_then_cross": {"model": {"arrangement": "self_then_cross"}},  # Table 3, self + cross (seq)
    "two_layers": {"model": {"num_layers": 2}},  # Table 3, N = 2
    "three_layers": {"model": {"num_layers": 3}},  # Table 3, N = 3
}


def get_config(dataset: str = "demo") -> ConfigDict:
    config = common.base_config(dataset)
    config.paper = "sun2021_mcsan"
    config.recipe = "mcsan"  # 40 MFCC, 25 / 10 ms, at most 1000 frames, z-normalised; words: section 3.2
    config.variants = VARIANTS
    config.variant = "mcsan"

    config.epochs = 30  # section 3.2: at most 30 on IEMOCAP
    config.batch_size = 256  # section 3.2
    config.selection = "wa"  # not stated; the first metric of Table 1

    config.model = ConfigDict()
    config.model.name = "mcsan"
    config.model.modalities = ("audio", "text")
    config.model.arrangement = "parallel"  # Fig. 1
    config.model.hidden_size = 128  # section 3.2
    config.model.num_layers = 1  # section 3.2
    config.model.num_heads = 8  # section 3.2
    config.model.feed_forward_size = 512  # not stated; 4 d as in Vaswani et al. 2017
    config.model.kernel_size = 3  # section 3.2
    config.model.pool_size = 3  # section 3.2
    config.model.relu_after_conv = False  # eq. 1 has none
    config.model.classifier_size = 128  # not stated
    config.model.train_embeddings = False  # not stated; described as feature extraction

    config.hyper = ConfigDict()
    config.hyper.learning_rate = 1e-3  # section 3.2, IEMOCAP
    config.hyper.weight_decay = 0.0  # none mentioned
    config.hyper.dropout_rate = 0.1  # not stated; Vaswani et al. 2017

    config.optimizer = ConfigDict()  # Adam, section 3.2
    config.optimizer.b1 = 0.9  # not stated
    config.optimizer.b2 = 0.999  # not stated
    config.optimizer.clip_norm = 1.0  # not stated; 0: not clipped
    config.optimizer.schedule = "constant"  # none mentioned; constant | cosine

    config.protocol.name = "random"  # section 3.1: 10 folds, 8:1:1
    config.protocol.folds = 10

    common.begin_sweeps(config)
    if dataset == "meld":
        config.hyper.learning_rate = 5e-4  # section 3.2, MELD
        config.epochs = 20  # section 3.2, MELD
        config.selection = "f1_weighted"
    elif dataset.startswith("demo"):
        _fit_demo(config)
    elif dataset in ("ravdess", "emodb"):
        _fit_acted_speech(config)
    common.fit_dataset(config)
    return config


def _fit_demo(config: ConfigDict) -> None:
    """Scaled to a thousand short utterances and two cores; the network is the paper's."""
    config.note = "scaled to the demo corpus: batches of 32, 10 epochs, cosine decay, trained word vectors"
    config.seeds = 2
    config.epochs = 10
    config.batch_size = 32
    config.buckets = 3
    config.selection = "ua"
    config.optimizer.schedule = "cosine"
    config.model.train_embeddings = True  # the vectors begin random: no GloVe file is needed
    config.protocol.folds = 0


def _fit_acted_speech(config: ConfigDict) -> None:
    """RAVDESS and EmoDB: their few fixed sentences tell nothing, so audio only; small corpora, so small batches."""
    config.note = "audio only: the corpus's few sentences are spoken with every emotion; batches of 32"
    config.variant = "audio_only"
    config.batch_size = 32
    config.seeds = 1
    config.epochs = 40
    config.buckets = 4
    config.selection = "ua"
    config.optimizer.schedule = "cosine"
    config.protocol.folds = 0
