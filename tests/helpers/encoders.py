"""Encoders of random weights, saved as folders."""

from __future__ import annotations

import json
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
    "wav2vec2-unusual": (
        "Wav2Vec2",
        {
            "num_conv_pos_embeddings": 1,
            "conv_kernel": (8, 4, 3, 3, 3, 2, 1),
            "conv_bias": True,
            "do_stable_layer_norm": True,
            "hidden_act": "quick_gelu",
            "feat_extract_activation": "leaky_relu",
            "layer_norm_eps": 1e-3,
        },
    ),
    "wavlm-unusual": (
        "WavLM",
        {"num_conv_pos_embeddings": 5, "num_buckets": 7, "max_bucket_distance": 31, "hidden_act": "mish"},
    ),
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


# Folders without `transformers`: names and shapes as Hugging Face's, written by hand.

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
FOLDERS: dict[str, dict[str, Any]] = {
    "wav2vec2": {"num_conv_pos_embeddings": 6},
    "wav2vec2-large": {"num_conv_pos_embeddings": 5, **LARGE},
    "hubert": {"num_conv_pos_embeddings": 6},
    "wavlm": {"num_conv_pos_embeddings": 6, "num_buckets": 8, "max_bucket_distance": 12},
    "data2vec-audio": {"num_conv_pos_embeddings": 2, "conv_pos_kernel_size": 5},
    "whisper": {
        "d_model": 16,
        "encoder_layers": 2,
        "encoder_attention_heads": 2,
        "encoder_ffn_dim": 24,
        "num_mel_bins": 80,
        "max_source_positions": 20,
    },
}
"""For each family, the fields of its config.json that differ from `SIZES` or from the defaults."""


def config_of(name: str) -> dict[str, Any]:
    """Return the config.json of a folder in `FOLDERS`."""
    family = name.removesuffix("-large")
    sizes = {} if family == "whisper" else {**SIZES, "conv_dim": [8] * 7, "num_conv_pos_embedding_groups": 2}
    return {"model_type": family, **sizes, **FOLDERS[name]}


def tensors_of(name: str, seed: int = 0) -> dict[str, np.ndarray]:
    """Return random tensors by their names in Hugging Face's folders, without a prefix."""
    config = config_of(name)
    shapes = _whisper_shapes(config) if name == "whisper" else _wav2vec2_shapes(config)
    rng = np.random.default_rng(seed)
    return {
        key: (rng.standard_normal(shape) * 0.3 + ("norm.weight" in key)).astype(np.float32)
        for key, shape in shapes.items()
    }


def _layer_shapes(prefix: str, width: int, hidden: int, names: Sequence[str]) -> dict[str, tuple[int, ...]]:
    attention, attention_norm, first, second = names
    shapes: dict[str, tuple[int, ...]] = {}
    for part in ("q", "k", "v", "out"):
        shapes[f"{prefix}.{attention}.{part}_proj.weight"] = (width, width)
        shapes[f"{prefix}.{attention}.{part}_proj.bias"] = (width,)
    for part in (attention_norm, "final_layer_norm"):
        shapes |= {f"{prefix}.{part}.weight": (width,), f"{prefix}.{part}.bias": (width,)}
    shapes |= {f"{prefix}.{first}.weight": (hidden, width), f"{prefix}.{first}.bias": (hidden,)}
    return shapes | {f"{prefix}.{second}.weight": (width, hidden), f"{prefix}.{second}.bias": (width,)}


def _whisper_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    width = config["d_model"]
    shapes: dict[str, tuple[int, ...]] = {
        "conv1.weight": (width, 80, 3),
        "conv1.bias": (width,),
        "conv2.weight": (width, width, 3),
        "conv2.bias": (width,),
        "embed_positions.weight": (config["max_source_positions"], width),
        "layer_norm.weight": (width,),
        "layer_norm.bias": (width,),
    }
    for layer in range(config["encoder_layers"]):
        names = ("self_attn", "self_attn_layer_norm", "fc1", "fc2")
        shapes |= _layer_shapes(f"layers.{layer}", width, config["encoder_ffn_dim"], names)
        del shapes[f"layers.{layer}.self_attn.k_proj.bias"]
    return shapes


def _wav2vec2_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    width, conv, family = config["hidden_size"], config["conv_dim"][0], config["model_type"]
    is_large, groups = "feat_extract_norm" in config, config["num_conv_pos_embedding_groups"]
    shapes: dict[str, tuple[int, ...]] = {"masked_spec_embed": (width,)}
    for layer, kernel in enumerate((10, 3, 3, 3, 3, 2, 2)):
        name = f"feature_extractor.conv_layers.{layer}"
        shapes[f"{name}.conv.weight"] = (conv, conv if layer else 1, kernel)
        if is_large:
            shapes[f"{name}.conv.bias"] = (conv,)
        if layer == 0 or is_large or family == "data2vec-audio":
            shapes |= {f"{name}.layer_norm.weight": (conv,), f"{name}.layer_norm.bias": (conv,)}
    for part in ("weight", "bias"):
        shapes[f"feature_projection.layer_norm.{part}"] = (conv,)
        shapes[f"encoder.layer_norm.{part}"] = (width,)
    shapes |= {"feature_projection.projection.weight": (width, conv)}
    shapes |= {"feature_projection.projection.bias": (width,)}
    stack = family == "data2vec-audio"
    kernel = config["conv_pos_kernel_size" if stack else "num_conv_pos_embeddings"]
    for name in [f"layers.{i}.conv" for i in range(config["num_conv_pos_embeddings"])] if stack else ["conv"]:
        shapes[f"encoder.pos_conv_embed.{name}.weight"] = (width, width // groups, kernel)
        shapes[f"encoder.pos_conv_embed.{name}.bias"] = (width,)
    for layer in range(config["num_hidden_layers"]):
        name = f"encoder.layers.{layer}"
        names = ("attention", "layer_norm", "feed_forward.intermediate_dense", "feed_forward.output_dense")
        shapes |= _layer_shapes(name, width, config["intermediate_size"], names)
        if family == "wavlm":
            heads = config["num_attention_heads"]
            shapes[f"{name}.attention.gru_rel_pos_const"] = (1, heads, 1, 1)
            shapes |= {f"{name}.attention.gru_rel_pos_linear.weight": (8, width // heads)}
            shapes |= {f"{name}.attention.gru_rel_pos_linear.bias": (8,)}
    if family == "wavlm":
        heads = config["num_attention_heads"]
        shapes["encoder.layers.0.attention.rel_attn_embed.weight"] = (config["num_buckets"], heads)
    return shapes


def write_folder(
    folder: Path, name: str, tensors: dict[str, np.ndarray] | None = None, *, prefix: str = "", **config: Any
) -> Path:
    """Write a folder of `FOLDERS` in Hugging Face's layout, with some fields or tensors replaced."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    tensors = tensors_of(name) if tensors is None else tensors
    save_file({prefix + key: value for key, value in tensors.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({**config_of(name), **config}))
    (folder / "preprocessor_config.json").write_text(json.dumps({"sampling_rate": 16_000}))
    return folder
