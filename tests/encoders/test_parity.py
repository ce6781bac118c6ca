"""Every hidden state of every family equals that of `transformers` (extra `parity`)."""

import numpy as np
import pytest

from helpers.encoders import FAMILIES, extractor, padded, save_encoder, speech
from jaxser import encoders

torch = pytest.importorskip("torch", reason="needs the extra parity")
transformers = pytest.importorskip("transformers", reason="needs the extra parity")

LENGTHS = (16_000, 5_013, 9_999, 400)
TOLERANCE = 1e-4  # of the range of a layer

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]


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
