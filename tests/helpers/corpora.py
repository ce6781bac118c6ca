"""Releases for tests: a hand-written one of IEMOCAP, and small demo corpora."""

from pathlib import Path

import numpy as np
import soundfile

from jaxser.data_prep.demo import corpus

HEADER = "\t SFrm  EFrm    SegAScr Word\n"
ALIGNMENT = (
    HEADER
    + "\t    0    51    -102345 <s>\n"
    + "\t   52    75     -17530 I\n"
    + "\t   76    88     -17530 LIKE(2)\n"
    + "\t   89    99     -17530 <sil>\n"
    + "\t  100   119     -17530 ++LAUGHTER++\n"
    + "\t  120   139     -17530 THAT'S\n"
    + "\t  140   147     -17530 </s>\n"
    + " Total score:     -258661\n"
)
LABELS = """% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]

[6.2901 - 8.2357]\tSes01F_impro01_F000\tneu\t[2.5000, 2.0000, 3.5000]
C-E2:\tNeutral;\t()
C-E3:\tFrustration; Anger;\t(loud)
C-F1:\tHappiness;\t(curious)
A-E3:\tval 3; act 2; dom  2;\t()

[8.5000 - 9.9000]\tSes01F_impro01_M000\txxx\t[3.0000, 3.0000, 3.0000]
C-E2:\tSurprise;\t()

[10.0 - 11.5]\tSes01F_impro01_M001\tang\t[1.5, 4.0, 4.0]
"""
TRANSCRIPTS = (
    "Ses01F_impro01_M000 [008.5000-009.9000]: Note: it's 5 o'clock.\n"
    "M: sorry\n"
    "Ses01F_impro01_F000 [006.2901-008.2357]: I like caf\xe9s.\n"
    "Ses01F_impro01_MXX0 [001.0000-002.0000]: Mmhmm.\n"
    "Ses01F_impro01_M001 [010.0000-011.5000]: No!\n"
)
WAV = "Session1/sentences/wav/Ses01F_impro01/{}.wav"
WDSEG = "Session1/sentences/ForcedAlignment/Ses01F_impro01/{}.wdseg"
EVALUATION = "Session1/dialog/EmoEvaluation/Ses01F_impro01.txt"
TRANSCRIPT = "Session1/dialog/transcriptions/Ses01F_impro01.txt"
IDS = ("Ses01F_impro01_F000", "Ses01F_impro01_M000", "Ses01F_impro01_M001")
APPLE = "Session1/sentences/wav/Ses01F_impro01/._Ses01F_impro01_F000.wav"


def write_iemocap(root: Path, files: dict[str, str | bytes | None] | None = None) -> Path:
    """Write a release of three utterances: aligned, without alignment, and with an alignment without words.

    Args:
        root: the folder to write.
        files: replaces or adds files, by their path; None omits one.
    """
    wav = np.zeros(round(1.5 * 16_000), np.float32)
    written: dict[str, str | bytes | None] = {WAV.format(name): None for name in IDS}
    for name in written:
        if files is None or name not in files:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(root / name, wav, 16_000, subtype="PCM_16")
    texts: dict[str, str | bytes | None] = {
        WDSEG.format(IDS[0]): ALIGNMENT,
        WDSEG.format(IDS[2]): HEADER + "\t    0   147    -102345 <sil>\n",
        EVALUATION: LABELS,
        TRANSCRIPT: TRANSCRIPTS,
        APPLE: b"\x00\x05\x16\x07",
        "Session1/dialog/EmoEvaluation/._Ses01F_impro01.txt": b"\x00\x05\x16\x07[\xff",
        "Session1/dialog/EmoEvaluation/Categorical/Ses01F_impro01_e2_cat.txt": "Ses01F_impro01_F000 :Neutral; ()\n",
        "Session1/dialog/EmoEvaluation/Ses01F_impro01.anvil": "<?xml?>\n",
        "Session1/sentences/ForcedAlignment/Ses01F_impro01/Ses01F_impro01_F000.phseg": "0 1\n",
    }
    for name, content in {**texts, **(files or {})}.items():
        if content is not None:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(content if isinstance(content, bytes) else content.encode("latin-1"))
    return root


def textgrid(*tiers: tuple[str, list[tuple[float, float, str]]], short: bool = False) -> str:
    """Return a TextGrid of tiers of intervals, as Praat writes it in its long or short form."""
    end = max(interval[1] for _, intervals in tiers for interval in intervals)

    def quoted(text: str) -> str:
        return '"' + text.replace('"', '""') + '"'

    if short:
        lines = [
            'File type = "ooTextFile"',
            'Object class = "TextGrid"',
            "",
            "0",
            str(end),
            "<exists>",
            str(len(tiers)),
        ]
        for name, intervals in tiers:
            lines += ['"IntervalTier"', quoted(name), "0", str(end), str(len(intervals))]
            lines += [
                line for start, stop, text in intervals for line in (str(start), str(stop), quoted(text))
            ]
        return "\n".join(lines) + "\n"
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', "", "xmin = 0 ", f"xmax = {end} "]
    lines += ["tiers? <exists> ", f"size = {len(tiers)} ", "item []: "]
    for number, (name, intervals) in enumerate(tiers, start=1):
        lines += [
            f"    item [{number}]:",
            '        class = "IntervalTier" ',
            f"        name = {quoted(name)} ",
        ]
        lines += [
            "        xmin = 0 ",
            f"        xmax = {end} ",
            f"        intervals: size = {len(intervals)} ",
        ]
        for index, (start, stop, text) in enumerate(intervals, start=1):
            lines += [
                f"        intervals [{index}]:",
                f"            xmin = {start} ",
                f"            xmax = {stop} ",
            ]
            lines += [f"            text = {quoted(text)} "]
    return "\n".join(lines) + "\n"


def make_demo(root: Path, **settings: object) -> Path:
    """Make a demo corpus without a progress bar."""
    assert corpus.make(root, progress=False, **settings)  # type: ignore[arg-type]
    return root
