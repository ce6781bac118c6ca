"""CAN (Lee et al., Interspeech 2020): Tables 2, 3 (segmentations) and 4 (ablations).

    python -m jaxser.main --config=configs/can.py                        # demo corpus
    python -m jaxser.main --config=configs/can.py:iemocap                # 10 folds x 5 seeds
    python -m jaxser.main --config=configs/can.py:iemocap --config.variant=no_stop_gradient
    python -m jaxser.main --config=configs/can.py:iemocap --config.variant=equal_segmentation  # recipe can_equal

Printed WA / UA: CAN .579 / .487; no stop-gradient .570 / .469; no L_align .573 / .484; neither .563 / .479; no cross
attention .556 / .458; equal segmentation .568 / .467; TextModel .513 / .443; AudioModel .431 / .323; Yoon et al.
(`mha`) .564 / .472; Xu et al. .560 / .450.
"""

from ml_collections import ConfigDict

from jaxser.configs import baselines, common

VARIANTS = {
    "can": {},
    "no_stop_gradient": {"model": {"stop_gradient": False}},  # Table 4
    "no_align_loss": {"model": {"align_loss": False}},  # Table 4
    "no_stop_gradient_no_align_loss": {"model": {"stop_gradient": False, "align_loss": False}},  # Table 4
    "no_cross_attention": {  # Table 4: c(TT) and c(AA) alone, neither stop-gradient nor L_align (section 4.3.3)
        "model": {"cross_attention": False, "stop_gradient": False, "align_loss": False}
    },
    "equal_segmentation": {"recipe": "can_equal"},  # Table 3; overlap not stated, with it: can_equal_overlap
    "text_model": {  # Table 2
        "model": {"name": "text_model", "hidden_size": 128, "train_embeddings": True}
    },
    "audio_model": {"model": {"name": "audio_model", "hidden_size": 128}},  # Table 2
    "mha": baselines.lee_mha(),  # Table 2, Yoon et al. [8]
    "xu": baselines.lee_xu(),  # Table 2, Xu et al. [9]
}


def get_config(dataset: str = "demo") -> ConfigDict:
    """Return the config of the paper for a dataset, "NAME" or "NAME:CORPUS"."""
    config = common.base_config(dataset, paper="lee2020_can")
    config.recipe = "can"  # sections 3.1.2 and 4.2: 40 MFCC of each aligned word, 25 / 10 ms
    config.normalise = "train"  # not stated
    config.variants = VARIANTS
    config.variant = "can"

    config.epochs = 100  # not stated; early stopping usually ends training first
    config.patience = 10  # section 4.2
    config.batch_size = 64  # section 4.2
    config.selection = "wa"  # not stated; first metric of Table 2

    config.model.name = "can"
    config.model.hidden_size = 128  # section 4.2; not stated: per direction
    config.model.num_heads = 4  # section 4.2
    config.model.head_form = "slice"  # not stated; slice | full
    config.model.cross_attention = True  # eqs. 7, 9
    config.model.stop_gradient = True  # eqs. 7, 9
    config.model.align_loss = True  # eqs. 11-15
    config.model.train_embeddings = True  # section 3.1.1

    config.hyper.learning_rate = 1e-3  # section 4.2; Adam
    config.hyper.weight_decay = 0.0  # none mentioned
    config.hyper.dropout_rate = 0.3  # section 4.2, after each BLSTM
    config.hyper.alpha = 0.1  # section 4.2, eqs. 14 and 15
    config.optimizer.clip = "global_norm"  # section 4.2: by norm; not stated: of all gradients together
    config.optimizer.clip_limit = 1.0  # section 4.2

    config.protocol.name = "random"  # section 4.1: 10 folds, 8:1:1
    config.protocol.folds = 10

    return _fit_transcripts(common.finish(config))


def _fit_transcripts(config: ConfigDict) -> ConfigDict:
    """Adapt the config to corpora without word times, or with fixed sentences."""
    corpus, notes = common.corpus_of(config), [config.note]
    if corpus.fixed_sentences and not corpus.has_word_times:
        config.variant = "audio_model"
        notes.append(
            f"audio only, because each of its {corpus.fixed_sentences} sentences is spoken with every emotion"
        )
    elif corpus.fixed_sentences:
        notes.append(
            f"each of its {corpus.fixed_sentences} sentences is spoken with every emotion, so that words say nothing "
            "about the emotion except by their times"
        )
    elif not corpus.has_word_times:
        notes.append(
            f"{corpus.title} has no word times, so all segments of an utterance have the same length"
        )
    config.note = "; ".join(filter(None, notes))
    return config
