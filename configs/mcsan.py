"""MCSAN (Sun et al., ICASSP 2021): Table 1, MELD's Table 2, and the ablations of Table 3.

    python -m jaxser.main --config=configs/mcsan.py                      # demo corpus
    python -m jaxser.main --config=configs/mcsan.py:iemocap              # 10 folds x 5 seeds
    python -m jaxser.main --config=configs/mcsan.py:iemocap --config.variant=no_cross

Printed: IEMOCAP WA .612 +- .012, UA .560 +- .019; MELD weighted F1 .592. WA / UA of Table 3: audio alone .491 / .404,
text alone .509 / .469; no self .605 / .550, no cross .596 / .536; cross + self .606 / .552, self + cross .602 / .554;
N = 2 .601 / .551, N = 3 .595 / .541.
"""

from typing import Any

from ml_collections import ConfigDict

from jaxser.configs import baselines, can, common

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
    "mdre": baselines.mdre("audio", "text"),  # Table 1, cited from its authors
    "mha": baselines.mha("audio", "text"),  # Table 1, cited from its authors
    "amh": {**baselines.amh(), "recipe": "self_cross"},  # Table 1, cited from its authors
    "xu": baselines.lee_xu(),  # Table 1, cited from Lee et al. 2020
    "xu_delta": baselines.xu(),  # ours: the network and settings that its authors published
    "can": baselines.published(can.get_config("iemocap")),  # Table 1, cited
}


def get_config(dataset: str = "demo") -> ConfigDict:
    """Return the config of the paper for a dataset, "NAME" or "NAME:CORPUS"."""
    config = common.base_config(dataset, paper="sun2021_mcsan")
    config.recipe = "mcsan"  # section 3.2: 40 MFCC, 25 / 10 ms, at most 1000 frames; words of the transcript
    config.normalise = "train"  # section 3.2: z-scores; not stated: per coefficient, over training frames
    config.variants = VARIANTS
    config.variant = "mcsan"

    config.epochs = 30  # section 3.2: at most 30 on IEMOCAP; not stated: train all, keep the best
    config.batch_size = 256  # section 3.2
    config.selection = "wa"  # not stated; first metric of Table 1

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
    config.model.train_embeddings = False  # not stated; embeddings are described as features

    config.hyper.learning_rate = 1e-3  # section 3.2, IEMOCAP; Adam
    config.hyper.weight_decay = 0.0  # none mentioned
    config.hyper.dropout_rate = 0.1  # not stated; Vaswani et al. 2017
    config.optimizer.clip = "global_norm"  # not stated
    config.optimizer.clip_limit = 1.0  # not stated

    config.protocol.name = "random"  # section 3.1: 10 folds, 8:1:1
    config.protocol.folds = 10

    corpus = common.corpus_of(config)
    if corpus.name == "meld":
        config.hyper.learning_rate = 5e-4  # section 3.2, MELD
        config.epochs = 20  # section 3.2, MELD
    elif corpus.fixed_sentences:
        config.variant = "audio_only"  # ours: the text says nothing about the emotion
    published: dict[str, Any] = {"variants": {name: {"normalise": "none"} for name in ("mdre", "mha", "amh")}}
    if corpus.name == "meld":
        published["selection"] = "f1_weighted"  # section 3.1, MELD
    return common.finish(config, published)
