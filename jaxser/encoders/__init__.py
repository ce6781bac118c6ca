"""Pretrained speech encoders in Flax.

They are wav2vec 2.0, HuBERT, WavLM, data2vec-audio and Whisper's encoder; `FAMILIES` in `encoder.py` lists them.
"""

from jaxser.encoders.encoder import Encoder, HiddenStates, load

__all__ = ["Encoder", "HiddenStates", "load"]
