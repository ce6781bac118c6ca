"""Self- and cross-attention (Rajan et al., ICASSP 2022): Tables 1 and 2.

Table 1 is for every set of modalities.

    python -m jaxser.main --config=configs/self_cross.py                 # demo corpus, synthetic video
    python -m jaxser.main --config=configs/self_cross.py:iemocap         # 5 folds x 10 seeds; prepared with --video
    python -m jaxser.main --config=configs/self_cross.py:iemocap --config.variant=cross_ta

Printed for T+V+A: WA .642 +- .019, UA .587 +- .022 (Self); WA .636 +- .017, UA .578 +- .024 (Cross). The paper prints
WA as unweighted accuracy and UA as weighted accuracy; here, both have their usual names. The published code is
github.com/smartcameras/SelfCrossAttn at df62166.
"""

from typing import Any

from ml_collections import ConfigDict

from jaxser.configs import baselines, common

T, V, A = "text", "video", "audio"
SELF, CROSS = ("self",), ("cross",)

BASELINES = {  # Table 1, cited from their authors
    "mdre_ta": baselines.mdre(T, A),
    "mdre_tv": baselines.mdre(T, V),
    "mdre_va": baselines.mdre(V, A),
    "mdre_tva": baselines.mdre(T, V, A),
    "mha_ta": baselines.mha(A, T),
    "mha_tv": baselines.mha(T, V),
    "mha_va": baselines.mha(A, V),
    "amh": baselines.amh(),
}

VARIANTS = {
    "self": {},  # Table 1, T+V+A
    "cross": {"model": {"attention": CROSS}},  # Table 1, T+V+A
    "self_no_sp": {"model": {"statistics": False}},  # Table 2
    "cross_no_sp": {"model": {"attention": CROSS, "statistics": False}},  # Table 2
    "cross_self": {"model": {"attention": CROSS + SELF}},  # Table 2
    "self_tv": {"model": {"modalities": (T, V)}},  # Table 1, as are all that follow
    "self_ta": {"model": {"modalities": (T, A)}},
    "self_va": {"model": {"modalities": (V, A)}},
    "cross_tv": {"model": {"attention": CROSS, "modalities": (T, V)}},
    "cross_ta": {"model": {"attention": CROSS, "modalities": (T, A)}},
    "cross_va": {"model": {"attention": CROSS, "modalities": (V, A)}},
    "self_t": {"model": {"modalities": (T,)}},
    "self_v": {"model": {"modalities": (V,)}},
    "self_a": {"model": {"modalities": (A,)}},
    "self_as_code": {"normalise": "none"},  # published code: its z-scores never reach the network
    "self_masked": {"model": {"as_published": False}},  # ours: padded words are masked
    **{name: {**variant, "buckets": 6} for name, variant in BASELINES.items()},  # these accept any length
}

PADDING = "padded words are read and averaged over, as in the published code (model.as_published)"


def get_config(dataset: str = "demo") -> ConfigDict:
    """Return the config of the paper for a dataset, "NAME" or "NAME:CORPUS"."""
    config = common.base_config(dataset, paper="rajan2022_self_cross")
    config.recipe = "self_cross"  # section 3: 1000 x 120 MFCC with deltas, 128 words, 32 frames at 3 Hz
    config.variants = VARIANTS
    config.variant = "self"  # the best row of Table 1

    config.epochs = 200  # not stated; early stopping usually ends training first
    config.patience = 10  # section 3
    config.batch_size = 32  # section 3
    config.selection = "wa"  # section 3, there called UWA
    config.normalise = "train"  # section 3, audio only; not stated: per coefficient, over valid frames
    config.seeds = 10  # section 3
    config.buckets = 1  # section 3: time steps are channels, which needs a single length

    config.model.name = "self_cross"
    config.model.modalities = (T, V, A)
    config.model.attention = SELF  # Fig. 2; Fig. 1 is ("cross",)
    config.model.statistics = True  # section 2
    config.model.hidden_size = 60  # section 3; per direction
    config.model.num_heads = 6  # section 3
    config.model.classifier_size = 60  # section 3
    config.model.relu_in_classifier = False  # not stated; published code
    config.model.audio_length = 1000  # section 3
    config.model.audio_steps = 500  # section 3
    config.model.video_length = 32  # section 3
    config.model.video_steps = 25  # section 3
    config.model.words_length = 128  # section 3
    config.model.train_embeddings = False  # section 3: GloVe vectors are features
    config.model.as_published = True  # not stated; published code: padded words are not masked

    config.hyper.learning_rate = 1e-3  # section 3; Adam
    config.hyper.weight_decay = 0.0  # none mentioned
    config.hyper.dropout_rate = 0.1  # section 3; published code: of attention weights
    config.hyper.text_dropout_rate = 0.25  # not stated; published code: of embedded words
    config.optimizer.plateau_patience = 10  # section 3; epochs of the validation loss
    config.optimizer.plateau_factor = 0.1  # section 3

    config.protocol.name = "random"  # section 3: 5 folds, 8:0.5:1.5
    config.protocol.folds = 5
    config.protocol.validation_share = 0.25  # section 3: 0.5 of the 2 parts that are held out
    config.protocol.validation_from = "test"  # section 3

    published: dict[str, Any] = {"normalise": "none"}  # published code: its z-scores never reach the network
    if common.corpus_of(config).name == "yoon":
        published["protocol"] = {
            "name": "corpus",
            "folds": 0,
            "validation_share": 0.0,
            "validation_from": "rest",
        }
    return _fit_modalities(common.finish(config, published))


def _fit_modalities(config: ConfigDict) -> ConfigDict:
    """Select the modalities that the corpus has, and shorten the audio of the demo corpus."""
    corpus, notes = common.corpus_of(config), [config.note]
    if corpus.synthetic:
        config.model.audio_length, config.model.audio_steps = 540, 270
        notes.append("540 frames reduced to 270 steps, enough for the longest utterance (paper: 1000 to 500)")
    elif corpus.fixed_sentences:
        config.variant = "self_a"
        notes.append(
            f"audio only, because each of its {corpus.fixed_sentences} sentences is spoken with every emotion"
        )
    elif not corpus.has_video:
        config.variant = "self_ta"
        notes.append("text and audio only, because the release has no video features")
    if T in config.model.modalities and not corpus.fixed_sentences:
        notes.append(PADDING)
    config.note = "; ".join(filter(None, notes))
    return config
