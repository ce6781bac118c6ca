"""Display names of models and of their variants."""

from __future__ import annotations

MODELS = {
    "amh": "AMH",
    "audio_model": "Audio model",
    "can": "CAN",
    "cat": "CAT",
    "ilt": "ILT",
    "lstm_attention": "LSTM with attention",
    "mcsan": "MCSAN",
    "mdre": "MDRE",
    "mha": "MHA",
    "self_cross": "Self/cross-attention",
    "text_model": "Text model",
    "xu": "Xu et al.",
}
"""The names of networks as papers write them, by their names in a config."""

_WORDS = {
    "cnn": "CNN",
    "lstm": "LSTM",
    "sp": "statistics pooling",
    "svm": "SVM",
    "yang": "Yang et al.",
    "zhou": "Zhou et al.",
}
"""The words of variants that are written differently in prose."""


def model_name(model: str) -> str:
    """Return the display name of a network; its name in the config if there is no other."""
    return MODELS.get(model, model)


def run_name(model: str, variant: str) -> str:
    """Return the display name of a variant, such as "MCSAN (no cross)".

    It may have abbreviations, as in "Self/cross-attention (self, T+A)".
    """
    words = _variant_words(model, variant)
    return f"{model_name(model)} ({words})" if words else model_name(model)


def _variant_words(model: str, variant: str) -> str:
    """Return a variant in words, without the name of its network; "" for the network itself."""
    if variant in ("", model):
        return ""
    first, *rest = variant.removeprefix(f"{model}_").split("_")
    modalities = _modalities(([first, *rest])[-1])
    words = [first, *rest][:-1] if modalities else [first, *rest]
    shown = " ".join(MODELS.get(word, _WORDS.get(word, word)) for word in words)
    return ", ".join(filter(None, (shown.replace(" no ", ", no "), modalities)))


def _modalities(word: str) -> str:
    """Return the modalities that Rajan et al. (2022) abbreviate, such as "T+A" for "ta"; "" for another word."""
    is_code = 1 <= len(word) <= 3 and set(word) <= set("tva") and len(set(word)) == len(word)
    return "+".join(word.upper()) if is_code else ""
