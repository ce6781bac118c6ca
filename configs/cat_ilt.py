"""ILT and CAT (He et al. 2021): Tables 1 and 2.

    python -m jaxser.main --config=configs/cat_ilt.py                      # demo corpus
    python -m jaxser.main --config=configs/cat_ilt.py:iemocap              # 5 folds x 5 seeds
    python -m jaxser.main --config=configs/cat_ilt.py:iemocap --config.variant=ilt_trainable_plus
    python -m jaxser.main --config=configs/cat_ilt.py:iemocap --config.as_published  # noise and padding as in the paper

Printed WA / UA, without and with positions: CNN-Transformer 65.76 / 67.17, 66.91 / 67.60; CNN-LSTM-Transformer
65.60 / 67.36, 66.47 / 67.52; ILT concatenation 66.05 / 66.82, 66.21 / 67.40; plus 67.26 / 68.38, 66.50 / 67.36;
trainable plus 67.56 / 68.63, 67.12 / 67.89. CAT 68.10 / 69.25; LSTM-Transformer 55.19 / 56.40; CNN+LSTM
66.90 / 67.98; CNN to LSTM only 66.98 / 67.83; LSTM to CNN only 65.57 / 66.49.
"""

from typing import Any

from ml_collections import ConfigDict

from jaxser.configs import common

PARTS = {  # shared by both networks
    "blocks": ((32, 2, 2), (64, 2, 2), (128, 2, 2), (128, 2, 1)),  # (channels, steps, bands); not stated
    "kernel_size": 3,  # not stated
    "hidden_size": 128,  # not stated; per direction
    "num_layers": 2,  # not stated
    "num_heads": 8,  # not stated; Vaswani et al. 2017
    "feed_forward_size": 512,  # not stated; twice the width
}


def _ilt(*, lstm: str = "parallel", fusion: str = "trainable_plus", positions: bool) -> dict[str, Any]:
    """Return a row of Table 1 as a variant; alpha of eq. 13 is not stated."""
    fields = {"lstm": lstm, "fusion": fusion, "alpha": 0.5, "positions": positions}
    return {"model": {"name": "ilt", **PARTS, **fields}}


VARIANTS = {
    "cat": {},
    "cat_cnn_to_lstm": {"model": {"directions": ("cnn_to_lstm",)}},  # Table 2, CNNtoLSTM only
    "cat_lstm_to_cnn": {"model": {"directions": ("lstm_to_cnn",)}},  # Table 2, LSTMtoCNN only
    "cnn_lstm": {"model": {"directions": ()}},  # Table 2, CNN+LSTM
    "lstm_transformer": {"model": {"directions": ("lstm_to_lstm",)}},  # Table 2
    "cnn_transformer": _ilt(lstm="none", positions=True),  # Table 1, baseline 1; Table 2
    "cnn_transformer_no_positions": _ilt(lstm="none", positions=False),
    "cnn_lstm_transformer": _ilt(lstm="before", positions=True),  # Table 1, baseline 2
    "cnn_lstm_transformer_no_positions": _ilt(lstm="before", positions=False),
    "ilt_concatenation": _ilt(fusion="concatenation", positions=False),  # Table 1
    "ilt_concatenation_positions": _ilt(fusion="concatenation", positions=True),
    "ilt_plus": _ilt(fusion="plus", positions=False),  # Table 1
    "ilt_plus_positions": _ilt(fusion="plus", positions=True),
    "ilt_trainable_plus": _ilt(fusion="trainable_plus", positions=False),  # Table 1
    "ilt_trainable_plus_positions": _ilt(fusion="trainable_plus", positions=True),
}


def get_config(dataset: str = "demo") -> ConfigDict:
    """Return the config of the paper for a dataset, "NAME" or "NAME:CORPUS"."""
    config = common.base_config(dataset, paper="he2021_ilt_cat")
    config.recipe = "cat"  # section 3.2: 40 log-mel, 25 / 10 ms, at most 750 frames; padded: cat_padded
    config.classes = "four_merged"  # section 3.1
    config.copies = "train"  # ours: no noise where the epoch is selected; section 3.2: train_and_validation
    config.variants = VARIANTS
    config.variant = "cat"

    config.epochs = 100  # section 3.2
    config.batch_size = 40  # section 3.2
    config.selection = "wa"  # section 3.2: tuned for WA; not stated: on which part

    config.model.name = "cat"
    config.model.update(PARTS)
    config.model.positions = True  # not stated; the baseline in Table 2 has them
    config.model.directions = ("cnn_to_lstm", "lstm_to_cnn")  # section 2.3
    config.model.front_channels = 128  # not stated
    config.model.front_kernel_size = 5  # not stated
    config.model.front_stride = 4  # not stated

    config.hyper.learning_rate = 1e-4  # section 3.2; Adam
    config.hyper.weight_decay = 0.0  # none mentioned
    config.hyper.conv_dropout_rate = 0.2  # not stated; section 2.2: in every block
    config.hyper.dropout_rate = 0.1  # not stated; Vaswani et al. 2017; in the transformers
    config.optimizer.b1 = 0.9  # section 3.2
    config.optimizer.b2 = 0.99  # section 3.2

    config.protocol.name = "random"  # section 3.1: 5 folds
    config.protocol.folds = 5
    config.protocol.validation_share = 0.3125  # section 3.1: .25 of all utterances; .8 are not tested
    return common.finish(config, published={"copies": "train_and_validation", "recipe": "cat_padded"})
