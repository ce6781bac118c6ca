"""Memory of the published encoders: exact counts of parameters, without their weights.

    python -m benchmarks.encoder_memory
    python -m benchmarks.encoder_memory --batch=12 --seconds=5   # also compiles the extraction of frames

`weights` are in float32, once per device. `replica` is what each replica keeps of an encoder that is trained: its own
parameters, Adam's two moments and those of the selected epoch, four bytes each; a moving average adds a fifth copy. A
training step needs gradients and activations besides. `extraction` is what the compiled program needs beside the
weights, for all hidden states of one batch.
"""

import argparse
from pathlib import Path
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from jaxser.encoders.base import SpeechEncoder
from jaxser.encoders.configuration import Fields
from jaxser.encoders.encoder import FAMILIES, Encoder, parameter_shapes
from jaxser.encoders.tuning import Tuning
from jaxser.features.audio import SAMPLE_RATE

LARGE = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
}


def _whisper(width: int, layers: int, heads: int, bands: int = 80) -> tuple[str, dict[str, Any]]:
    sizes = {"d_model": width, "encoder_layers": layers, "encoder_attention_heads": heads}
    return "whisper", {**sizes, "encoder_ffn_dim": 4 * width, "num_mel_bins": bands}


ENCODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "wav2vec 2.0, HuBERT Base": ("wav2vec2", {}),
    "wav2vec 2.0, HuBERT Large": ("wav2vec2", {**LARGE, "conv_bias": True}),
    "WavLM Base": ("wavlm", {}),
    "WavLM Large": ("wavlm", LARGE),
    "data2vec-audio Base": ("data2vec-audio", {}),
    "Whisper tiny": _whisper(384, 4, 6),
    "Whisper base": _whisper(512, 6, 8),
    "Whisper small": _whisper(768, 12, 12),
    "Whisper medium": _whisper(1024, 24, 16),
    "Whisper large-v3": _whisper(1280, 32, 20, bands=128),
}
"""The family of each encoder, and the fields of its config.json that differ from the defaults."""

COPIES = 4
"""The copies of a trained parameter: itself, two moments, and the selected epoch."""


def main() -> None:
    """Print one line per encoder."""
    arguments = _arguments()
    for name in arguments.encoders.split(";"):
        family, fields = ENCODERS[name]
        module = FAMILIES[family].from_config(
            Fields(Path("config.json"), fields),
            Fields(Path("preprocessor_config.json"), {}),
            padding="exact",
            dtype=jnp.dtype("float32"),
            remat=False,
        )
        params = _shapes(module)
        parts = [f"{_count(params) / 1e6:.1f} M parameters", f"weights {_megabytes(_count(params))}"]
        for train in ("lora", "top:2", "all"):
            trained = jax.eval_shape(
                lambda base, train=train, depth=module.transformer.layers: Tuning(train).init(
                    jax.random.key(0), base, depth
                ),
                params,
            )
            parts.append(f"replica {train} {_megabytes(COPIES * _count(trained))}")
        if arguments.seconds:
            samples = int(arguments.seconds * SAMPLE_RATE)
            parts.append(f"extraction {_extraction(module, params, arguments.batch, samples)}")
        print(f"{name}: {', '.join(parts)}", flush=True)


def _shapes(module: SpeechEncoder) -> dict[str, Any]:
    flat = {
        path: jax.ShapeDtypeStruct(shape, jnp.float32) for path, shape in parameter_shapes(module).items()
    }
    return flax.traverse_util.unflatten_dict(flat, sep="/")


def _count(tree: Any) -> int:
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


def _megabytes(count: int) -> str:
    return f"{4 * count / 1e6:.3g} MB" if count < 1e6 else f"{4 * count / 1e6:.0f} MB"


def _extraction(module: SpeechEncoder, params: Any, rows: int, samples: int) -> str:
    encoder = Encoder("", module, {}, "")
    waveforms = jax.ShapeDtypeStruct((rows, samples), jnp.float32)
    lengths = jax.ShapeDtypeStruct((rows,), jnp.int32)
    compiled = jax.jit(encoder.apply).lower(params, waveforms, lengths).compile()
    stats: Any = compiled.memory_analysis()
    return f"{(stats.temp_size_in_bytes + stats.output_size_in_bytes) / 1e6:.0f} MB"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--encoders", default=";".join(ENCODERS), help="names, separated by semicolons")
    parser.add_argument("--batch", type=int, default=12, help="recordings in a batch (default: 12)")
    parser.add_argument("--seconds", type=float, default=0.0, help="their length; 0 compiles nothing")
    return parser.parse_args()


if __name__ == "__main__":
    main()
