"""Every hidden state of every family equals that of `transformers` (extra `parity`)."""

import os
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from helpers.encoders import FAMILIES, TINY_WHISPER, extractor, padded, randomised, save_encoder, speech
from jaxser import encoders
from jaxser.encoders.convert import convert
from jaxser.encoders.transformer import ACTIVATIONS
from jaxser.encoders.waveforms import log_mel
from jaxser.features.audio import read_audio
from jaxser.types import InputError

torch = pytest.importorskip("torch", reason="needs the extra parity")
transformers = pytest.importorskip("transformers", reason="needs the extra parity")

from safetensors.torch import load_file  # noqa: E402
from transformers.models.whisper.modeling_whisper import WhisperEncoder  # noqa: E402

LENGTHS = (16_000, 5_013, 9_999, 400)
TOLERANCE = 1e-4  # of the range of a layer

LARGE_NORMS = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
BASE = {
    "wav2vec2": ("Wav2Vec2", {}),
    "wav2vec2-large": ("Wav2Vec2", LARGE_NORMS),
    "hubert": ("Hubert", {}),
    "wavlm": ("WavLM", {}),
    "data2vec": ("Data2VecAudio", {}),
}
"""Base size; a large model's norms at base size."""

MODELS = Path(os.environ.get("JAXSER_MODELS", Path(__file__).parents[2] / "shared" / "models"))

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]


@pytest.fixture
def whisper_tiny() -> Path:
    """The folder of whisper-tiny.en; tests that need it are skipped where it is absent."""
    if not (folder := MODELS / "whisper-tiny.en").is_dir():
        pytest.skip(f"no whisper-tiny.en in {MODELS} (set JAXSER_MODELS)")
    return folder


def published_states(model, inputs, mask=None):
    """All hidden states of a model of `transformers`; the last one is normalised."""
    with torch.no_grad():
        mask = {} if mask is None else {"attention_mask": torch.as_tensor(mask)}
        output = model(torch.as_tensor(inputs), output_hidden_states=True, **mask)
    return [state.numpy() for state in (*output.hidden_states[:-1], output.last_hidden_state)]


def assert_close(ours, theirs, frames):
    """Compare the first `frames` of each row, relative to the range of the layer."""
    assert len(ours) == len(theirs)
    for layer, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        spread = np.ptp(b)
        for row, count in enumerate(frames):
            difference = np.abs(np.asarray(a)[row, :count] - b[row, :count]).max(initial=0)
            assert difference < TOLERANCE * spread, (layer, row, difference / spread)


@pytest.mark.parametrize("family", FAMILIES)
def test_frames_of_a_batch_equal_those_of_each_recording_alone(family, tmp_path):
    model = save_encoder(family, tmp_path)
    encoder = encoders.load(tmp_path)
    waveforms = speech(LENGTHS)
    hidden = encoder(*padded(waveforms, padding=0.7))
    frames = hidden.mask.sum(1)
    for row, wave in enumerate(waveforms):
        values = extractor(family)(wave, sampling_rate=16_000, return_tensors="np").input_values
        theirs = published_states(model, values)
        assert theirs[0].shape[1] == frames[row]
        assert_close([state[row : row + 1] for state in hidden.states], theirs, frames[row : row + 1])


@pytest.mark.parametrize("family", FAMILIES)
def test_padding_as_published_equals_a_padded_batch(family, tmp_path):
    model = save_encoder(family, tmp_path)
    waveforms = speech(LENGTHS)
    batch = extractor(family)(waveforms, sampling_rate=16_000, padding=True, return_tensors="np")
    hidden = encoders.load(tmp_path, padding="as_published")(*padded(waveforms))
    theirs = published_states(model, batch.input_values, batch.get("attention_mask"))
    assert_close(hidden.states, theirs, hidden.mask.sum(1))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_functions(name):
    x = np.linspace(-6, 6, 1001, dtype=np.float32)
    expected = transformers.activations.ACT2FN[name](torch.as_tensor(x)).numpy()
    np.testing.assert_allclose(ACTIVATIONS[name](jnp.asarray(x)), expected, atol=2e-6)


@pytest.mark.parametrize("head", ["ForSequenceClassification", "ForCTC"])
@pytest.mark.parametrize("family", ["wav2vec2", "hubert-large", "wavlm", "data2vec"])
def test_heads_are_ignored(family, head, tmp_path):
    model = save_encoder(family, tmp_path, head=head)
    encoder = encoders.load(tmp_path)
    wave = speech([5_000])
    values = extractor(family)(wave, sampling_rate=16_000, return_tensors="np").input_values
    theirs = published_states(getattr(model, model.base_model_prefix), values)
    hidden = encoder(*padded(wave))
    assert_close(hidden.states, theirs, hidden.mask.sum(1))
    assert any(name.startswith(("lm_head", "classifier")) for name in encoder.ignored)


@pytest.mark.parametrize("family", BASE)
def test_base_size(family, tmp_path):
    name, fields = BASE[family]
    config = getattr(transformers, f"{name}Config")(**fields)
    torch.manual_seed(1)
    model = getattr(transformers, f"{name}Model")(config).eval()
    model.save_pretrained(tmp_path)
    extractor(family).save_pretrained(tmp_path)
    waveforms = speech((20_000, 12_345))
    hidden = encoders.load(tmp_path)(*padded(waveforms, padding=0.7))
    assert len(hidden.states) == 13
    for row, wave in enumerate(waveforms):
        values = extractor(family)(wave, sampling_rate=16_000, return_tensors="np").input_values
        theirs = published_states(model, values)
        assert_close(
            [state[row : row + 1] for state in hidden.states], theirs, hidden.mask.sum(1)[row : row + 1]
        )


def test_pickled_weights_are_converted(tmp_path):
    model = save_encoder("wav2vec2", tmp_path)
    plain = encoders.load(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    convert(tmp_path)
    assert encoders.load(tmp_path).digest == plain.digest


def test_pickled_code_is_not_run(tmp_path):
    class Code:
        def __reduce__(self):
            return print, ("run",)

    torch.save({"a": Code()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match="cannot be read as tensors alone"):
        convert(tmp_path)


# Whisper


def whisper_extractor(seconds, bands=80):
    return transformers.WhisperFeatureExtractor(feature_size=bands, chunk_length=seconds)


@pytest.mark.parametrize("bands", [80, 128])
def test_log_mel(bands):
    waves = speech((480_000, 51_234, 900))
    theirs = whisper_extractor(30, bands)(waves, sampling_rate=16_000, return_tensors="np").input_features
    ours = log_mel(jnp.asarray(padded(waves)[0]), bands)
    np.testing.assert_allclose(ours, theirs.transpose(0, 2, 1), atol=5e-5)


@pytest.mark.parametrize("whole", [True, False])
def test_whisper(whole, tmp_path):
    name = "WhisperForConditionalGeneration" if whole else "WhisperModel"
    model = randomised(getattr(transformers, name)(transformers.WhisperConfig(**TINY_WHISPER)))
    model.save_pretrained(tmp_path)
    whisper_extractor(2).save_pretrained(tmp_path)
    encoder = encoders.load(tmp_path)
    waves = speech((32_000, 9_001, 400))
    hidden = encoder(*padded(waves, padding=0.7))
    features = whisper_extractor(2)(waves, sampling_rate=16_000, return_tensors="np").input_features
    theirs = published_states(model.get_encoder(), features)
    assert_close(hidden.states, theirs, hidden.mask.sum(1))
    assert hidden.mask.sum(1).tolist() == [100, 29, 2]
    assert not encoder.ignored or encoder.ignored[0].startswith(("decoder.", "model.decoder", "proj_out"))


def test_whisper_cut_to_the_real_length_is_a_network_with_a_shorter_window(tmp_path):
    model = randomised(transformers.WhisperModel(transformers.WhisperConfig(**TINY_WHISPER)))
    model.save_pretrained(tmp_path)
    whisper_extractor(2).save_pretrained(tmp_path)
    wave = speech((9_001,))
    frames = 29
    hidden = encoders.load(tmp_path, padding="exact")(*padded([*speech((20_000,), 1), *wave], padding=0.7))
    short = transformers.WhisperConfig(**{**TINY_WHISPER, "max_source_positions": frames})
    cut = transformers.WhisperModel(short).get_encoder().eval()
    state = model.get_encoder().state_dict()
    cut.load_state_dict({**state, "embed_positions.weight": state["embed_positions.weight"][:frames]})
    features = whisper_extractor(2)(wave, sampling_rate=16_000, return_tensors="np").input_features
    theirs = published_states(cut, features[:, :, : 2 * frames])
    assert_close([state[1:] for state in hidden.states], theirs, [frames])


@pytest.mark.real
def test_whisper_tiny_with_its_weights_on_recordings(real_data, whisper_tiny):
    paths = sorted((real_data / "ravdess" / "Actor_01").iterdir())[:3]
    waves = [read_audio(path).samples for path in paths]
    encoder = encoders.load(whisper_tiny)
    config = transformers.WhisperConfig.from_pretrained(whisper_tiny)
    model = WhisperEncoder(config).eval()
    stored = load_file(whisper_tiny / "model.safetensors")
    model.load_state_dict({k.removeprefix("model.encoder."): v.float() for k, v in stored.items()})
    features = whisper_extractor(30)(waves, sampling_rate=16_000, return_tensors="np").input_features
    hidden = encoder(*padded(waves))
    assert_close(hidden.states, published_states(model, features), hidden.mask.sum(1))
