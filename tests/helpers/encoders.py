"""Encoders of random weights made by `transformers`, saved as folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

CONVOLUTION = {"conv_dim": (16, 16, 16, 16, 16, 16, 16)}
TINY = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "num_conv_pos_embedding_groups": 4,
    **CONVOLUTION,
}
LARGE = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "wav2vec2": ("Wav2Vec2", {"num_conv_pos_embeddings": 16}),
    "wav2vec2-large": ("Wav2Vec2", {"num_conv_pos_embeddings": 17, **LARGE}),
    "hubert": ("Hubert", {"num_conv_pos_embeddings": 16}),
    "hubert-large": ("Hubert", {"num_conv_pos_embeddings": 16, **LARGE}),
    "hubert-no-projection-norm": ("Hubert", {"num_conv_pos_embeddings": 16, "feat_proj_layer_norm": False}),
    "mhubert": ("Hubert", {"num_conv_pos_embeddings": 16, "conv_pos_batch_norm": True}),
    "wavlm": ("WavLM", {"num_conv_pos_embeddings": 16, "num_buckets": 16, "max_bucket_distance": 20}),
    "wavlm-large": ("WavLM", {"num_conv_pos_embeddings": 16, "num_buckets": 32, **LARGE}),
    "data2vec": ("Data2VecAudio", {"conv_pos_kernel_size": 5}),
}
"""For each published arrangement, its class in `transformers` and the fields that differ from `TINY`."""

TINY_WHISPER = {
    "d_model": 32,
    "encoder_layers": 3,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_layers": 1,
    "decoder_attention_heads": 4,
    "decoder_ffn_dim": 48,
    "num_mel_bins": 80,
    "max_source_positions": 100,
    "vocab_size": 20,
    "max_target_positions": 10,
    "pad_token_id": 0,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "decoder_start_token_id": 0,
}


def randomised(model: Any) -> Any:
    """Give every parameter and buffer a random value, so that none is at its default of 0 or 1."""
    import torch

    torch.manual_seed(0)
    with torch.no_grad():
        for name, value in [*model.named_parameters(), *model.named_buffers()]:
            if not value.is_floating_point():
                continue
            value.add_(torch.randn(value.shape) * 0.1)
            if "running_var" in name:
                value.abs_().add_(0.5)
    return model.eval()


def save_encoder(family: str, folder: Path, *, head: str = "Model", **fields: Any) -> Any:
    """Save an encoder of random weights, and return the model of `transformers`."""
    import transformers

    name, differing = FAMILIES[family]
    config = getattr(transformers, f"{name}Config")(**{**TINY, **differing, **fields})
    model = randomised(getattr(transformers, f"{name}{head}")(config))
    model.save_pretrained(folder)
    extractor(family).save_pretrained(folder)
    return model


def extractor(family: str) -> Any:
    """Return the published feature extractor: Base models have no attention mask."""
    import transformers

    masks = "large" in family or family == "data2vec"
    return transformers.Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=masks)


def speech(lengths: Sequence[int], seed: int = 0) -> list[np.ndarray]:
    """Return noise whose loudness changes, with an offset, as waveforms of the given lengths."""
    rng = np.random.default_rng(seed)
    waves = [rng.standard_normal(n) * (1 + np.sin(np.arange(n) / 700)) for n in lengths]
    return [(0.05 * wave + 0.01).astype(np.float32) for wave in waves]


def padded(waveforms: Sequence[np.ndarray], padding: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Return waveforms as one array, with their lengths."""
    lengths = np.array([len(wave) for wave in waveforms], np.int32)
    batch = np.full((len(waveforms), lengths.max()), padding, np.float32)
    for row, wave in zip(batch, waveforms, strict=True):
        row[: len(wave)] = wave
    return batch, lengths
