"""Records of the known corpora: labels, headline protocol, and how speech was recorded.

A dataset's corpus is the `corpus` of its manifest, never the dataset's name, which its user is free to choose.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from jaxser.types import UsageError

MAX_CLASSES = 100
"""The largest number of classes. More of them, such as names of files, are an error in a table."""


def parse_classes(classes: str) -> dict[str, str]:
    """Parse a list of classes into the class of each label, in class order.

    Args:
        classes: labels separated by commas, such as "ang,hap+exc,sad". Labels joined by + are one class, which is named
            after the first of them, or by a name of its own: "joy=hap+exc".

    Raises:
        UsageError: if a label is in two classes, or if there are fewer than two classes.
    """
    class_of: dict[str, str] = {}
    names: set[str] = set()
    for entry in classes.split(","):
        name, _, members = entry.rpartition("=")
        labels = [unicodedata.normalize("NFC", label).strip() for label in members.split("+")]
        name = unicodedata.normalize("NFC", name).strip() or labels[0]
        if (
            not all(labels)
            or name in names
            or class_of.keys() & set(labels)
            or len(set(labels)) < len(labels)
        ):
            raise UsageError(
                f"classes={classes!r}: {entry.strip()!r} is empty or repeats a class or a label; "
                "write a list such as ang,hap+exc,sad,neu"
            )
        names.add(name)
        class_of |= dict.fromkeys(labels, name)
    if len(names) < 2:
        raise UsageError(
            f"classes={classes!r}: must be one of {', '.join(LABEL_SETS)}, or a list of at least two classes such as "
            "ang,hap+exc,sad,neu"
        )
    return class_of


LABEL_SETS: Mapping[str, Mapping[str, str]] = {
    "seven": parse_classes("ang,hap,exc,sad,neu,fru,sur"),
    "six": parse_classes("ang,hap,exc,sad,neu,fru"),
    "five": parse_classes("ang,hap+exc,sad,neu,fru"),
    "four_merged": parse_classes("ang,hap+exc,sad,neu"),
    "four_excited": parse_classes("ang,exc,sad,neu"),
    "four": parse_classes("ang,hap,neu,sad"),
    "all": {},
}
"""The class of each label, in class order, by the label set's name; utterances of other labels are left out.

`all` is empty: every label found in the dataset is a class, in alphabetical order. The others are of IEMOCAP's labels.
"""

SUBSETS: Mapping[str, str] = {"all": "", "improvised": "impro"}
"""Subsets of a dataset's utterances, and the text that the id of their dialogue contains."""

COMMON_CLASSES: Mapping[str, tuple[str, ...]] = {
    "neutral": ("neutral", "neu"),
    "calm": ("calm",),
    "happy": ("happy", "happiness", "hap", "joy"),
    "sad": ("sad", "sadness"),
    "angry": ("angry", "anger", "ang"),
    "fear": ("fear", "fearful", "fea"),
    "disgust": ("disgust", "disgusted", "dis"),
    "surprise": ("surprise", "surprised", "pleasant surprise", "sur"),
}
"""The classes that corpora have in common, and the labels, in lower case, that name them."""

_COMMON_OF = {label: name for name, labels in COMMON_CLASSES.items() for label in labels}

DEMO_DATASETS: Mapping[str, Mapping[str, Any]] = {"demo": {}, "demo_quick": {"utterances": 400}}
"""Datasets of the demo corpus that are made automatically if they are missing, and the settings of each."""


@dataclass(frozen=True)
class HeadlineProtocol:
    """The folds that results on a corpus are usually reported for.

    Attributes:
        name: a protocol of `jaxser.data.folds`.
        folds: the number of folds; 0 is the protocol's own number.
        groups: the speakers that are tested together; () makes groups of consecutive speakers.
    """

    name: str
    folds: int = 0
    groups: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True)
class Corpus:
    """A corpus; the defaults describe one about which nothing is known.

    Attributes:
        name: the value of `--corpus`, and of `corpus` in a manifest.
        title: the name as papers write it.
        description: speakers, material and language in one sentence.
        language: an IETF language tag, such as "de"; "" if unknown.
        speech: whether the emotions are acted or spontaneous; "" if unknown.
        synthetic: whether a speech synthesiser speaks, so that scores are demo numbers.
        is_small: whether a paper's batch size and number of epochs are scaled down.
        training: how networks are trained by default: as in their "paper", or "modern" (`configs/common.py`).
        label_names: display names of labels that are abbreviations.
        common: the common classes of labels that `COMMON_CLASSES` does not list; "" is none.
        label_sets: the label sets that fit its labels, as in `LABEL_SETS`.
        classes: the name of its usual label set; "" is the one of the paper.
        protocol: its headline protocol; None is the one of the paper.
        selection: the metric that results are usually compared by; "" is the one of the paper.
        fixed_sentences: the number of sentences, if each is spoken with every emotion, so that the text says nothing
            about the emotion; 0 if the text is free.
        has_word_times: whether the words have start and end times.
        has_video: whether video features are available.
        scale: the ends of the scale on which raters judge valence, activation and dominance; None if unknown.
        utterances: the number of utterances in the release; 0 if unknown.
        licence: the licence, or the terms of use in few words.
        source: where to get it or to ask for it.
    """

    name: str
    title: str
    description: str = ""
    language: str = ""
    speech: Literal["acted", "spontaneous", ""] = ""
    synthetic: bool = False
    is_small: bool = False
    training: Literal["paper", "modern"] = "modern"
    label_names: Mapping[str, str] = field(default_factory=dict)
    common: Mapping[str, str] = field(default_factory=dict)
    label_sets: Mapping[str, Mapping[str, str]] = field(default_factory=lambda: LABEL_SETS)
    classes: str = "all"
    protocol: HeadlineProtocol | None = None
    selection: str = ""
    fixed_sentences: int = 0
    has_word_times: bool = True
    has_video: bool = True
    scale: tuple[float, float] | None = None
    utterances: int = 0
    licence: str = ""
    source: str = ""

    def label_name(self, label: str) -> str:
        """Return the display name of a label or class."""
        return self.label_names.get(label, label)

    def common_class(self, label: str) -> str:
        """Return the key of `COMMON_CLASSES` that a label belongs to, or ""."""
        return self.common.get(label, _COMMON_OF.get(label.casefold(), ""))


_ONLY_ALL = {"all": LABEL_SETS["all"]}

_Acted = partial(
    Corpus, speech="acted", label_sets=_ONLY_ALL, selection="ua", has_word_times=False, has_video=False
)
"""A corpus of actors whose files are named after the emotion."""

_IEMOCAP_LABELS = {
    "ang": "anger",
    "hap": "happiness",
    "exc": "excitement",
    "sad": "sadness",
    "neu": "neutral",
    "fru": "frustration",
    "sur": "surprise",
    "fea": "fear",
    "dis": "disgust",
    "oth": "other",
    "xxx": "no agreement",
}

_EXCITED_IS_HAPPY = {"exc": "happy"}
"""IEMOCAP's excitement is merged with happiness, as usual."""

_EMOBOX_RAVDESS = (
    (1, 11, 20, 21),
    (4, 10, 12, 14),
    (8, 9, 19, 23),
    (3, 5, 7, 24),
    (2, 15, 16, 18),
    (6, 13, 17, 22),
)
"""The actors of EmoBox's six folds of RAVDESS (emo-box/EmoBox, data/ravdess)."""

CORPORA: Mapping[str, Corpus] = {
    corpus.name: corpus
    for corpus in (
        Corpus(
            name="demo",
            title="demo corpus",
            description="Synthetic English speech with planted cues.",
            language="en",
            synthetic=True,
            is_small=True,
            scale=(1.0, 5.0),
            label_names=_IEMOCAP_LABELS,
            common=_EXCITED_IS_HAPPY,
            classes="seven",
            protocol=HeadlineProtocol("session"),
            selection="ua",
            training="paper",
        ),
        Corpus(
            name="emodb",
            title="EmoDB",
            description="Ten actors speaking ten fixed sentences in German (EmoDB).",
            language="de",
            speech="acted",
            is_small=True,
            label_sets=_ONLY_ALL,
            protocol=HeadlineProtocol("speaker", folds=5),
            selection="ua",
            fixed_sentences=10,
            has_video=False,
            utterances=535,
            licence="free for research, on request for other use",
            source="http://emodb.bilderbar.info; audformat: https://github.com/audeering/emodb",
        ),
        Corpus(
            name="iemocap",
            title="IEMOCAP",
            description="Ten actors in Los Angeles in scripted and improvised dialogues in US English (IEMOCAP).",
            language="en-US",
            speech="acted",
            label_names=_IEMOCAP_LABELS,
            common=_EXCITED_IS_HAPPY,
            classes="",
            training="paper",
            scale=(1.0, 5.0),
            utterances=10_039,
            licence="signed agreement, research only",
            source="https://sail.usc.edu/iemocap",
        ),
        Corpus(
            name="meld",
            title="MELD",
            description="Professional actors in scenes of the television series Friends, US English (MELD).",
            language="en-US",
            speech="acted",
            label_sets=_ONLY_ALL,
            protocol=HeadlineProtocol("official"),
            selection="f1_weighted",
            has_word_times=False,
            has_video=False,
            training="paper",
            utterances=13_708,
            licence="GPL-3.0",
            source="https://github.com/declare-lab/MELD",
        ),
        Corpus(
            name="ravdess",
            title="RAVDESS",
            description="24 professional actors speaking two fixed sentences in North American English (RAVDESS).",
            language="en",
            speech="acted",
            is_small=True,
            label_sets=_ONLY_ALL,
            protocol=HeadlineProtocol(
                "speaker",
                groups=tuple(tuple(f"actor{actor:02}" for actor in group) for group in _EMOBOX_RAVDESS),
            ),
            selection="ua",
            fixed_sentences=2,
            has_word_times=False,
            has_video=False,
            utterances=1_440,
            licence="CC BY-NC-SA 4.0",
            source="https://zenodo.org/record/1188976",
        ),
        Corpus(
            name="yoon",
            title="IEMOCAP (features of Yoon et al.)",
            description="IEMOCAP as precomputed features of audio, words and video (Yoon et al. 2020).",
            language="en-US",
            speech="acted",
            label_names=_IEMOCAP_LABELS,
            common=_EXCITED_IS_HAPPY,
            has_word_times=False,
            training="paper",
            utterances=7_487,
            licence="with an IEMOCAP agreement",
            source="the authors (Yoon et al. 2020)",
        ),
        _Acted(
            name="cafe",
            title="CaFE",
            description="Twelve actors speaking six fixed sentences in Canadian French (CaFE).",
            language="fr-CA",
            is_small=True,
            protocol=HeadlineProtocol("speaker", folds=6),
            fixed_sentences=6,
            utterances=936,
            licence="CC BY-NC-SA 4.0",
            source="https://zenodo.org/record/1478765",
        ),
        _Acted(
            name="cremad",
            title="CREMA-D",
            description="91 actors speaking twelve fixed sentences in US English (CREMA-D).",
            language="en-US",
            protocol=HeadlineProtocol("speaker", folds=5),
            fixed_sentences=12,
            utterances=7_442,
            licence="ODbL 1.0",
            source="https://github.com/CheyneyComputerScience/CREMA-D",
        ),
        _Acted(
            name="emovdb",
            title="EmoV-DB",
            description="Four actors reading sentences of CMU ARCTIC in English (EmoV-DB).",
            language="en",
            protocol=HeadlineProtocol("speaker"),
            utterances=6_887,
            licence="free for research, non-commercial",
            source="https://openslr.org/115",
        ),
        _Acted(
            name="emovo",
            title="EMOVO",
            description="Six actors speaking fourteen fixed sentences in Italian (EMOVO).",
            language="it",
            is_small=True,
            protocol=HeadlineProtocol("speaker"),
            fixed_sentences=14,
            utterances=588,
            licence="free for research (see its page)",
            source="http://voice.fub.it/activities/corpora/emovo",
        ),
        *(
            _Acted(
                name=name,
                title=title,
                description=f"{speakers} reading 350 sentences with five emotions (ESD).",
                language=language,
                protocol=HeadlineProtocol("official"),
                fixed_sentences=350,
                utterances=utterances,
                licence="signed agreement, research only",
                source="https://github.com/HLTSingapore/Emotional-Speech-Data",
            )
            for name, title, speakers, language, utterances in (
                ("esd", "ESD", "Ten speakers of Mandarin and ten of English", "", 35_000),
                ("esd_en", "ESD (English)", "Ten speakers of English", "en", 17_500),
                ("esd_zh", "ESD (Mandarin)", "Ten speakers of Mandarin", "zh", 17_500),
            )
        ),
        _Acted(
            name="jl",
            title="JL-Corpus",
            description="Four actors speaking fixed sentences in New Zealand English (JL-Corpus).",
            language="en-NZ",
            is_small=True,
            protocol=HeadlineProtocol("speaker"),
            fixed_sentences=30,
            utterances=2_400,
            licence="see its page",
            source="https://www.kaggle.com/tli725/jl-corpus",
        ),
        _Acted(
            name="msp_improv",
            title="MSP-IMPROV",
            description="Twelve actors in six dyadic sessions, improvising and reading in US English (MSP-IMPROV).",
            language="en-US",
            protocol=HeadlineProtocol("session"),
            scale=(1.0, 5.0),
            utterances=8_438,
            licence="signed agreement, research only",
            source="https://lab-msp.com/MSP/MSP-Improv.html",
        ),
        Corpus(
            name="msp_podcast",
            title="MSP-Podcast",
            description="Spontaneous English speech from podcasts (MSP-Podcast).",
            language="en",
            speech="spontaneous",
            label_sets=_ONLY_ALL,
            protocol=HeadlineProtocol("official"),
            selection="f1_macro",
            has_video=False,
            scale=(1.0, 7.0),
            licence="signed agreement, research only",
            source="https://lab-msp.com/MSP/MSP-Podcast.html",
        ),
        _Acted(
            name="nemo",
            title="nEMO",
            description="Nine actors speaking fixed sentences in Polish (nEMO).",
            language="pl",
            protocol=HeadlineProtocol("speaker", folds=3),
            fixed_sentences=90,
            utterances=4_481,
            licence="CC BY-NC-SA 4.0",
            source="https://github.com/amu-cai/nEMO",
        ),
        _Acted(
            name="savee",
            title="SAVEE",
            description="Four men reading TIMIT sentences in British English (SAVEE).",
            language="en-GB",
            is_small=True,
            protocol=HeadlineProtocol("speaker"),
            utterances=480,
            licence="registration, research only",
            source="http://kahlan.eps.surrey.ac.uk/savee",
        ),
        _Acted(
            name="subesco",
            title="SUBESCO",
            description="Twenty actors speaking ten fixed sentences in Bangla (SUBESCO).",
            language="bn",
            protocol=HeadlineProtocol("speaker", folds=5),
            fixed_sentences=10,
            utterances=7_000,
            licence="CC BY 4.0",
            source="https://zenodo.org/record/4526477",
        ),
        _Acted(
            name="tess",
            title="TESS",
            description="Two actresses, aged 26 and 64, speaking 200 words in a fixed sentence in English (TESS).",
            language="en-CA",
            is_small=True,
            protocol=HeadlineProtocol("random", folds=5),
            fixed_sentences=200,
            utterances=2_800,
            licence="see its page",
            source="https://tspace.library.utoronto.ca/handle/1807/24487",
        ),
    )
}
"""The known corpora by name. A corpus without a record, such as a user's own recordings, is used with the defaults."""


def find(name: str, title: str = "") -> Corpus:
    """Return the record of a corpus.

    Args:
        name: the `corpus` of a dataset's manifest.
        title: the title of the generic record that an unknown corpus gets; its name by default.
    """
    return CORPORA.get(name) or Corpus(name=name, title=title or name)


def check_classes(classes: str) -> None:
    """Check that a label set exists, or that a list of classes is well-formed.

    Raises:
        UsageError: if it is neither.
    """
    if classes not in LABEL_SETS:
        parse_classes(classes)


def class_of_labels(corpus: Corpus, classes: str, found: Iterable[str]) -> dict[str, str]:
    """Return the class of each label, in class order.

    Args:
        corpus: the corpus.
        classes: the name of one of its label sets, or a list such as "ang,hap+exc,sad" (`parse_classes`).
        found: the labels of the dataset.

    Raises:
        UsageError: if the corpus has no such label set, or the dataset none of the listed labels.
    """
    labels = sorted(found)
    if classes in corpus.label_sets:
        return dict(corpus.label_sets[classes]) or {label: label for label in labels}
    if classes in LABEL_SETS:
        raise UsageError(
            f"classes={classes}: a label set of IEMOCAP, not of {corpus.title}; write a list of its labels: "
            f"{_shown(labels)}"
        )
    class_of = parse_classes(classes)
    if unknown := [label for label in class_of if label not in labels]:
        raise UsageError(
            f"classes={classes}: no utterance has the label {', '.join(unknown)}; the labels are {_shown(labels)}"
        )
    return class_of


def _shown(labels: list[str], number: int = 12) -> str:
    more = f" and {len(labels) - number} more" if len(labels) > number else ""
    return ", ".join(labels[:number]) + more
