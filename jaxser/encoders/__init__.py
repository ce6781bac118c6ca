"""Pretrained speech encoders in Flax: wav2vec 2.0, HuBERT, WavLM, data2vec-audio and Whisper's encoder."""

from jaxser.encoders.encoder import Encoder, HiddenStates, load

__all__ = ["Encoder", "HiddenStates", "load"]
