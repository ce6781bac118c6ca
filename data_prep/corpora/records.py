"""Corpora that a pattern of their file names describes.

Each record says where its counts come from. Recordings are at the places that the releases have them, or in any other
folders under the same names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from .named import NamedCorpus
from .parsing import MAX_TEXT_BYTES, decode_text, read_file

_ARCTIC = re.compile(r'\(\s*arctic_a([0-9]{4})\s+"(.*)"\s*\)')


def _text(path: Path) -> str:
    """Return the contents of a text file; "" if it cannot be read, as transcripts are optional."""
    try:
        return decode_text(read_file(path, MAX_TEXT_BYTES))[0]
    except ValueError:
        return ""


def _text_beside(path: Path) -> str:
    return " ".join(_text(path.with_suffix(".txt")).split())


@lru_cache(4)
def _nemo_texts(table: Path) -> Mapping[str, str]:
    """Return the transcripts by file name; the columns are file, emotion, text as written and as spoken, ..."""
    rows = [line.split("\t") for line in _text(table).splitlines()]
    return {row[0].strip(): row[2].strip() for row in rows if len(row) > 2}


@lru_cache(4)
def _arctic_texts(prompts: Path) -> Mapping[str, str]:
    """Return the sentences of CMU ARCTIC's set A by number."""
    return dict(_ARCTIC.findall(_text(prompts)))


SAVEE = NamedCorpus(
    title="SAVEE",  # Jackson & Haq 2014: 15 sentences per emotion and speaker, 30 neutral ones
    example="AudioData/DC/a01.wav",
    pattern=r"(?P<speaker>DC|JE|JK|KL)[/_](?P<label>[a-z]+)[0-9]{2}",  # DC/a01 as released, DC_a01 in copies
    labels={
        "a": "anger",
        "d": "disgust",
        "f": "fear",
        "h": "happiness",
        "n": "neutral",
        "sa": "sadness",
        "su": "surprise",
    },
    expected={
        **dict.fromkeys(("anger", "disgust", "fear", "happiness", "sadness", "surprise"), 60),
        "neutral": 120,
    },
    genders=dict.fromkeys(("DC", "JE", "JK", "KL"), "M"),
)

TESS = NamedCorpus(
    title="TESS",  # Pichora-Fuller & Dupuis 2020: 200 words x 7 emotions x 2 actresses; one name lacks its F
    example="OAF_angry/OAF_back_angry.wav",
    pattern=r"(?P<speaker>[OY]A)F?_(?P<sentence>[a-z]+)_(?P<label>[a-z]+)",
    labels={
        "angry": "anger",
        "disgust": "disgust",
        "fear": "fear",
        "happy": "happiness",
        "neutral": "neutral",
        "ps": "pleasant surprise",
        "sad": "sadness",
    },
    expected=dict.fromkeys(
        ("anger", "disgust", "fear", "happiness", "neutral", "pleasant surprise", "sadness"), 400
    ),
    genders={"OA": "F", "YA": "F"},
    transcripts=lambda path, parts: f"Say the word {parts['sentence']}.",
)

EMOVO = NamedCorpus(
    title="EMOVO",  # Costantini et al. 2014: 14 sentences x 7 emotions x 6 actors
    example="f1/dis-f1-b1.wav",
    pattern=r"(?P<label>[a-z]{3})-(?P<speaker>(?P<gender>[fm])[123])-(?P<sentence>[bdln][0-9])",
    labels={
        "dis": "disgust",
        "gio": "joy",
        "neu": "neutral",
        "pau": "fear",
        "rab": "anger",
        "sor": "surprise",
        "tri": "sadness",
    },
    expected=dict.fromkeys(("disgust", "joy", "neutral", "fear", "anger", "surprise", "sadness"), 84),
    transcripts={
        "b1": "Gli operai si alzano presto.",
        "b2": "I vigili sono muniti di pistola.",
        "b3": "La cascata fa molto rumore.",
        "l1": "L'autunno prossimo Tony partirà per la Spagna nella prima metà di ottobre.",
        "l2": "Ora prendo la felpa di là ed esco per fare una passeggiata.",
        "l3": "Un attimo dopo s'è incamminato ed è inciampato.",
        "l4": "Vorrei il numero telefonico del signor Piatti.",
        "n1": "La casa forte vuole col pane.",
        "n2": "La forza trova il passo e l'aglio rosso.",
        "n3": "Il gatto sta scorrendo nella pera.",
        "n4": "Insalata pastasciutta coscia d'agnello limoncello.",
        "n5": "Uno quarantatré dieci mille cinquantasette venti.",
        "d1": "Sabato sera cosa farà?",
        "d2": "Porti con te quella cosa?",
    },
)

CAFE = NamedCorpus(
    title="CaFE",  # Gournay et al. 2018: 6 sentences x 12 actors x 6 emotions at 2 levels, and neutral
    example="Colère/Faible/01-C-1-1.wav",
    pattern=r"(?P<speaker>0[1-9]|1[0-2])-(?P<label>[A-Z])-(?P<intensity>[12])-(?P<sentence>[1-6])",
    labels={
        "C": "anger",
        "D": "disgust",
        "J": "happiness",
        "N": "neutral",
        "P": "fear",
        "S": "surprise",
        "T": "sadness",
    },
    expected={
        **dict.fromkeys(("anger", "disgust", "happiness", "fear", "surprise", "sadness"), 144),
        "neutral": 72,
    },
    genders={f"{actor:02}": "FM"[actor % 2] for actor in range(1, 13)},
    transcripts={
        "1": "Un cheval fou dans mon jardin.",
        "2": "Deux ânes aigris au pelage brun.",
        "3": "Trois cygnes aveugles au bord du lac.",
        "4": "Quatre vieilles truies éléphantesques.",
        "5": "Cinq pumas fiers et passionnés.",
        "6": "Six ours aimants domestiqués.",
    },
    attributes={"intensity": {"1": 1.0, "2": 2.0}},
)

JL_EMOTIONS = (
    "angry",
    "anxious",
    "apologetic",
    "assertive",
    "concerned",
    "encouraging",
    "excited",
    "happy",
    "neutral",
    "sad",
)

JL = NamedCorpus(
    title="JL-Corpus",  # James et al. 2018: 4 speakers x 10 emotions x 30 sentences x 2
    example="JL(wav+txt)/female1_angry_10a_1.wav",
    pattern=r"(?P<speaker>(?P<gender>female|male)[12])_(?P<label>[a-z]+)_[0-9]{1,2}[ab]_[12]",
    labels={name: name for name in JL_EMOTIONS},
    expected=dict.fromkeys(JL_EMOTIONS, 240),
    transcripts=lambda path, parts: _text_beside(path),
)

SUBESCO = NamedCorpus(
    title="SUBESCO",  # Sultana et al. 2021: 10 sentences x 7 emotions x 20 speakers x 5; one name has a stray ]
    example="F_01_OISHI_S_1_ANGRY_1.wav",
    pattern=r"(?P<speaker>(?P<gender>[FM])_[0-9]{2})_[A-Z]+_S_(?P<sentence>[0-9]+)_(?P<label>[A-Z]+)_[1-5]\]?",
    labels={
        "ANGRY": "anger",
        "DISGUST": "disgust",
        "FEAR": "fear",
        "HAPPY": "happiness",
        "NEUTRAL": "neutral",
        "SAD": "sadness",
        "SURPRISE": "surprise",
    },
    expected=dict.fromkeys(("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise"), 1000),
    transcripts={
        "1": "মৌমাছির চাক দেখে কুকুরটি ঘেউঘেউ করছে",
        "2": "তুমি সব উলটপালট করে দিয়েছ",
        "3": "সে কোন কিছু না বলেই চলে গেছে",
        "4": "তোমাকে এখনই আমার সাথে যেতে হবে",
        "5": "তোমার কাজটা করা ঠিক হয়নি",
        "6": "ইঁদুর ছানাটা হারিয়ে গেল",
        "7": "এখন প্রশ্ন করা যাবে না",
        "8": "দরজার বাইরে কুকুরটি দাঁড়িয়ে আছে",
        "9": "একদিন পরেই তার বিয়ে",
        "10": "ডাকাতেরা ঢাল তলোয়ার নিয়ে এল",
    },
)

NEMO = NamedCorpus(
    title="nEMO",  # Christop 2024: the counts of data.tsv
    example="samples/EB0_anger_1.wav",
    pattern=r"(?P<speaker>[A-Z]{2}0)_(?P<label>[a-z]+)_(?P<sentence>[0-9]{1,2})",
    labels={
        name: name.replace("surprised", "surprise")
        for name in ("anger", "fear", "happiness", "neutral", "sadness", "surprised")
    },
    expected={
        "anger": 749,
        "fear": 736,
        "happiness": 749,
        "neutral": 809,
        "sadness": 769,
        "surprise": 669,
    },
    genders={
        **dict.fromkeys(("EB0", "IC0", "KD0", "MK0"), "F"),
        **dict.fromkeys(("KS0", "MP0", "SM0", "TP0", "WR0"), "M"),
    },
    transcripts=lambda path, parts: _nemo_texts(path.parent.parent / "data.tsv").get(path.name, ""),
)

EMOVDB = NamedCorpus(
    title="EmoV-DB",  # Adigwe et al. 2018: the archives of OpenSLR 115, as listed by EmoBox (the paper has 7,000)
    example="bea_Amused/amused_1-15_0001.wav",
    pattern=r"(?P<speaker>bea|jenie|josh|sam)[_/](?P<label>[A-Z][a-z]+)/[A-Za-z]+_[0-9]+[-_][0-9]+_(?P<sentence>[0-9]{4})",
    labels={
        "Amused": "amused",
        "Angry": "anger",
        "Disgusted": "disgust",
        "Neutral": "neutral",
        "Sleepy": "sleepiness",
    },
    expected={"amused": 1315, "anger": 1267, "disgust": 1019, "neutral": 1566, "sleepiness": 1720},
    genders={"bea": "F", "jenie": "F", "josh": "M", "sam": "M"},
    transcripts=lambda path, parts: _arctic_texts(path.parent.parent / "cmuarctic.data").get(
        parts["sentence"], ""
    ),
)
