"""What public encoders were trained and tuned on, with sources.

docs/explanation/contamination.md explains what follows for scores. The names of corpora are those of `jaxser.corpora`;
corpora of other kinds, such as LibriSpeech, are in `data` only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jaxser.corpora import Corpus

EMOBOX = (
    *("cafe", "cremad", "emodb", "emovdb", "emovo", "esd", "esd_en", "esd_zh", "iemocap", "jl", "meld"),
    *("msp_podcast", "ravdess", "savee", "subesco", "tess"),
)
"""The corpora of EmoBox that have a record."""

LIBRISPEECH, LIBRI_LIGHT = "LibriSpeech, 960 h", "Libri-Light, 60,000 h"
ROBUST = "Libri-Light, CommonVoice, Switchboard and Fisher"
WAVLM = "Libri-Light, 60,000 h; GigaSpeech, 10,000 h; VoxPopuli, 24,000 h"
XLSR = "MLS, CommonVoice and BABEL, 56,000 h"
GIGASPEECH = {"msp_podcast": "GigaSpeech contains podcasts"}


@dataclass(frozen=True)
class PublicEncoder:
    """A published encoder and its training data.

    Attributes:
        name: the repository that has the weights.
        family: the `model_type` of its config.json; "" if jaxser does not read it.
        layers: transformer layers; 0 if jaxser does not read it, like the next.
        width: features of a hidden state.
        data: the training data.
        source: the paper or model card that says so.
        trained_on: the corpora of emotional speech whose recordings it was trained on without their labels.
        tuned_on: those that it was tuned on with their labels.
        is_stated: whether the source names all training data.
        may_overlap: corpora that may share recordings with the training data, and why.
    """

    name: str
    family: str
    layers: int
    width: int
    data: str
    source: str
    trained_on: tuple[str, ...] = ()
    tuned_on: tuple[str, ...] = ()
    is_stated: bool = True
    may_overlap: tuple[tuple[str, str], ...] = ()


PUBLIC: tuple[PublicEncoder, ...] = (
    PublicEncoder(
        "facebook/wav2vec2-base", "wav2vec2", 12, 768, LIBRISPEECH, "Baevski et al. 2020, arXiv:2006.11477"
    ),
    PublicEncoder(
        "facebook/wav2vec2-large", "wav2vec2", 24, 1024, LIBRISPEECH, "Baevski et al. 2020, arXiv:2006.11477"
    ),
    PublicEncoder(
        "facebook/wav2vec2-large-lv60",
        "wav2vec2",
        24,
        1024,
        LIBRI_LIGHT,
        "Baevski et al. 2020, arXiv:2006.11477",
    ),
    PublicEncoder(
        "facebook/wav2vec2-large-robust",
        "wav2vec2",
        24,
        1024,
        ROBUST,
        "model card; Hsu et al. 2021, arXiv:2104.01027",
    ),
    PublicEncoder(
        "facebook/wav2vec2-large-xlsr-53", "wav2vec2", 24, 1024, XLSR, "Conneau et al. 2020, arXiv:2006.13979"
    ),
    PublicEncoder(
        "audeering/wav2vec2-large-robust-12-ft-emotion-msp-dim",
        "wav2vec2",
        12,
        1024,
        f"that of wav2vec2-large-robust ({ROBUST}); tuned on MSP-Podcast 1.7",
        "model card; Wagner et al. 2022, arXiv:2203.07378",
        tuned_on=("msp_podcast",),
    ),
    PublicEncoder(
        "speechbrain/emotion-recognition-wav2vec2-IEMOCAP",
        "wav2vec2",
        12,
        768,
        f"{LIBRISPEECH}; tuned on IEMOCAP",
        "model card",
        tuned_on=("iemocap",),
    ),
    PublicEncoder(
        "ehcalabres/wav2vec2-lg-xlsr-en-speech-emotion-recognition",
        "wav2vec2",
        24,
        1024,
        f"{XLSR}; tuned on English CommonVoice, then on RAVDESS",
        "model card",
        tuned_on=("ravdess",),
    ),
    PublicEncoder(
        "r-f/wav2vec-english-speech-emotion-recognition",
        "wav2vec2",
        24,
        1024,
        f"{XLSR}; tuned on English CommonVoice, then on SAVEE, RAVDESS and TESS",
        "model card",
        tuned_on=("savee", "ravdess", "tess"),
    ),
    PublicEncoder(
        "facebook/hubert-base-ls960", "hubert", 12, 768, LIBRISPEECH, "Hsu et al. 2021, arXiv:2106.07447"
    ),
    PublicEncoder(
        "facebook/hubert-large-ll60k", "hubert", 24, 1024, LIBRI_LIGHT, "Hsu et al. 2021, arXiv:2106.07447"
    ),
    PublicEncoder(
        "facebook/hubert-xlarge-ll60k", "hubert", 48, 1280, LIBRI_LIGHT, "Hsu et al. 2021, arXiv:2106.07447"
    ),
    PublicEncoder(
        "microsoft/wavlm-base", "wavlm", 12, 768, LIBRISPEECH, "Chen et al. 2022, arXiv:2110.13900"
    ),
    PublicEncoder(
        "microsoft/wavlm-base-plus",
        "wavlm",
        12,
        768,
        WAVLM,
        "model card; Chen et al. 2022, arXiv:2110.13900",
        may_overlap=tuple(GIGASPEECH.items()),
    ),
    PublicEncoder(
        "microsoft/wavlm-large",
        "wavlm",
        24,
        1024,
        WAVLM,
        "model card; Chen et al. 2022, arXiv:2110.13900",
        may_overlap=tuple(GIGASPEECH.items()),
    ),
    PublicEncoder(
        "3loi/SER-Odyssey-Baseline-WavLM-Categorical",
        "wavlm",
        24,
        1024,
        f"that of wavlm-large ({WAVLM}); tuned on MSP-Podcast",
        "model card",
        tuned_on=("msp_podcast",),
    ),
    PublicEncoder(
        "facebook/data2vec-audio-base",
        "data2vec-audio",
        12,
        768,
        LIBRISPEECH,
        "Baevski et al. 2022, arXiv:2202.03555",
    ),
    PublicEncoder(
        "facebook/data2vec-audio-large",
        "data2vec-audio",
        24,
        1024,
        LIBRI_LIGHT,
        "Baevski et al. 2022, arXiv:2202.03555",
    ),
    *(
        PublicEncoder(
            f"openai/whisper-{size}",
            "whisper",
            layers,
            width,
            "680,000 h of transcribed audio from the internet, which is not published",
            "Radford et al. 2022, arXiv:2212.04356",
            is_stated=False,
        )
        for size, layers, width in (
            ("tiny", 4, 384),
            ("base", 6, 512),
            ("small", 12, 768),
            ("medium", 24, 1024),
            ("large", 32, 1280),
        )
    ),
    PublicEncoder(
        "emotion2vec/emotion2vec_base",
        "",
        0,
        0,
        "IEMOCAP, MELD, MEAD, CMU-MOSEI and MSP-Podcast, 262 h; initialised by data2vec (LibriSpeech)",
        "Ma et al. 2023, arXiv:2312.15185, table 1",
        trained_on=("iemocap", "meld", "msp_podcast"),
    ),
    PublicEncoder(
        "emotion2vec/emotion2vec_plus_seed",
        "",
        0,
        0,
        "that of emotion2vec; tuned on the corpora of EmoBox, 201 h",
        "model card",
        trained_on=("iemocap", "meld", "msp_podcast"),
        tuned_on=EMOBOX,
    ),
    *(
        PublicEncoder(
            f"emotion2vec/emotion2vec_plus_{size}",
            "",
            0,
            0,
            f"{hours} h, labelled by the model before it in the series, which began with the corpora of EmoBox; not "
            "published",
            "model card",
            trained_on=("iemocap", "meld", "msp_podcast"),
            tuned_on=EMOBOX,
            is_stated=False,
        )
        for size, hours in (("base", "4,788"), ("large", "42,526"))
    ),
    PublicEncoder(
        "FunAudioLLM/SenseVoiceSmall",
        "",
        0,
        0,
        "more than 400,000 h, which are not published",
        "README of FunAudioLLM/SenseVoice; An et al. 2024, arXiv:2407.04051",
        is_stated=False,
    ),
)
"""Public encoders, those that jaxser reads first."""


def contamination(family: str, layers: int | None, width: int | None, corpus: Corpus) -> str:
    """Return one sentence on whether an encoder was trained or tuned on a corpus.

    An encoder is known by its family and size only, so all public ones of that kind are considered.

    Args:
        family: the `model_type` of its config.json.
        layers: transformer layers; None if unknown.
        width: features of a hidden state; None if unknown.
        corpus: the corpus of the run.
    """
    alike = [one for one in PUBLIC if (one.family, one.layers, one.width) == (family, layers, width)]
    beginning = f"Whether the pretrained encoder was trained or tuned on {corpus.title}"
    if not alike:
        return f"{beginning} is not known: no public encoder of its family and size is recorded."
    heard = [one for one in alike if corpus.name in (*one.trained_on, *one.tuned_on)]
    if heard:
        names = ", ".join(one.name for one in heard)
        return (
            f"{beginning} depends on which one it is: of the public encoders of its family and size, {names} "
            f"{'was' if len(heard) == 1 else 'were'} ({_sources(heard)}), and scores of such an encoder are optimistic."
        )
    doubtful = [(one, why) for one in alike if (why := _doubt(one, corpus))]
    if doubtful:
        reasons = "; ".join(f"{one.name}: {why}" for one, why in doubtful)
        return f"{beginning} is not known ({reasons})."
    return (
        f"No public encoder of the pretrained encoder's family and size is stated to be trained or tuned on "
        f"{corpus.title} ({', '.join(one.name for one in alike)}); whether it is one of them is not known."
    )


def _doubt(one: PublicEncoder, corpus: Corpus) -> str:
    """Return why it is not known whether an encoder has heard a corpus; "" if it is known."""
    return dict(one.may_overlap).get(corpus.name, "" if one.is_stated else f"trained on {one.data}")


def _sources(encoders: Sequence[PublicEncoder]) -> str:
    return "; ".join(dict.fromkeys(one.source for one in encoders))
