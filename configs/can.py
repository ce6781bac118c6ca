"""CAN (Lee et al., Interspeech 2020): Table 2, the segmentations of Table 3, the ablations of Table 4.

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
    "equal_segmentation": {"recipe": "can_equal"},  # Table 3
    "text_model": {  # Table 2
        "model": {"name": "text_model", "hidden_size": 128, "train_embeddings": True}
    },
    "audio_model": {"model": {"name": "audio_model", "hidden_size": 128}},  # Table 2
    "mha": baselines.lee_mha(),  # Table 2, Yoon et al. [8]
    "xu": baselines.lee_xu(),  # Table 2, Xu et al. [9]
}

NOTES = {
    "meld": "MELD has no times of words, so their segments are of equal length",
    "ravdess": "its two sentences are spoken with every emotion, so audio alone",
    "emodb": "its ten sentences are spoken with every emotion, so words tell nothing but where they are spoken",
}


def get_config(dataset: str = "demo") -> ConfigDict:
    config = common.base_config(dataset, paper="lee2020_can")
    config.recipe = "can"  # 40 MFCC of each aligned word, 25 / 10 ms: sections 3.1.2 and 4.2
    config.normalise = "train"  # not stated
    config.variants = VARIANTS
    config.variant = "audio_model" if dataset == "ravdess" else "can"

    config.epochs = 100  # not stated; early stopping ends it
    config.patience = 10  # section 4.2
    config.batch_size = 64  # section 4.2
    config.selection = "wa"  # not stated; the first metric of Table 2

    config.model.name = "can"
    config.model.hidden_size = 128  # section 4.2; not stated: of each direction
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
    config.optimizer.clip = "global_norm"  # section 4.2 says norm; not stated: of all gradients together
    config.optimizer.clip_limit = 1.0  # section 4.2

    config.protocol.name = "random"  # section 4.1: 10 folds, 8:1:1
    config.protocol.folds = 10

    config = common.finish(config)
    config.note = "; ".join(filter(None, (config.note, NOTES.get(dataset))))
    return config
