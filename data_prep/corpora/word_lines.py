"""Word times in lines: CTM, HTK, BAS Partitur, and CSV of Montreal Forced Aligner."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterator, Mapping, Sequence

from .word_rows import TimedRow

HTK_UNITS_PER_SECOND = 10**7  # times are in units of 100 ns


def ctm_rows(text: str, names: Collection[str] = ()) -> list[TimedRow]:
    """Parse a CTM file: recording, channel, start, duration and word per line.

    Args:
        text: the contents.
        names: the names of the recording, one of which is chosen if the file has several.

    Raises:
        ValueError: if a line is malformed, or the recording is not in the file.
    """
    lines = [line.split() for line in text.splitlines() if line.strip() and not line.startswith(";;")]
    if wrong := [line for line in lines if len(line) < 5]:
        raise ValueError(f"{' '.join(wrong[0])[:60]!r} is not recording, channel, start, duration and word")
    recordings = dict.fromkeys(line[0] for line in lines)
    if len(recordings) > 1:
        chosen = [name for name in recordings if name in names]
        if len(chosen) != 1:
            raise ValueError(
                f"{len(recordings)} recordings, and {' or '.join(names) or 'this'} is not one of them"
            )
        lines = [line for line in lines if line[0] == chosen[0]]
    lines.sort(key=lambda line: _float(line[2]))
    return [(line[2], repr(_float(line[2]) + _float(line[3])), line[4]) for line in lines]


def htk_rows(text: str, names: Collection[str] = ()) -> list[TimedRow]:
    """Parse HTK's label file, or a master label file with a section per recording.

    The first label of a line is the word.

    Raises:
        ValueError: if a line is malformed, or the recording is not in the file.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if lines and lines[0] == "#!MLF!#":
        lines = _section(lines[1:], names)
    rows: list[TimedRow] = []
    for line in lines:
        cells = line.split()
        if len(cells) < 3 or not (cells[0].isdecimal() and cells[1].isdecimal()):
            raise ValueError(f"{line[:60]!r} is not start, end and word in units of 100 ns")
        start, end = (int(cell) / HTK_UNITS_PER_SECOND for cell in cells[:2])
        rows.append((repr(start), repr(end), cells[2]))
    return rows


def _section(lines: Sequence[str], names: Collection[str]) -> list[str]:
    found: list[str] = []
    inside = False
    for line in lines:
        if line.startswith('"'):
            name = line.strip('"').replace("\\", "/").rpartition("/")[2]
            inside = name.rpartition(".")[0] in names
        elif line == ".":
            inside = False
        elif inside:
            found.append(line)
    if not found:
        raise ValueError(f"{' or '.join(names) or 'this recording'} is not in the master label file")
    return found


def partitur_rows(text: str) -> list[TimedRow]:
    """Parse a BAS Partitur file of WebMAUS.

    A word lasts as long as its segments in the tier MAU.

    Raises:
        ValueError: if the sample rate, the words or their segments are missing.
    """
    tiers: dict[str, list[list[str]]] = {}
    for line in text.splitlines():
        key, _, rest = line.partition(":")
        tiers.setdefault(key.strip(), []).append(rest.split())
    try:
        rate = int(tiers["SAM"][0][0])
        words = {cells[0]: " ".join(cells[1:]) for cells in tiers["ORT"]}
        spans: dict[str, tuple[int, int]] = {}
        for start, length, token, *_ in tiers["MAU"]:
            if token in words:
                first, _ = spans.get(token, (int(start), 0))
                spans[token] = (first, int(start) + int(length) + 1)
        return [
            (repr(first / rate), repr(last / rate), words[token])
            for token, (first, last) in sorted(spans.items(), key=lambda item: item[1])
        ]
    except (KeyError, IndexError, ValueError, ZeroDivisionError):
        raise ValueError("not a Partitur file with SAM, ORT and MAU") from None


def mfa_rows(text: str) -> Mapping[str, list[TimedRow]] | None:
    """Return the rows of Montreal Forced Aligner's CSV by tier; None if it is not one.

    Its columns are Begin, End, Label, Type and Speaker.
    """
    reader = csv.DictReader(io.StringIO(text.removeprefix("\ufeff"), newline=""))
    if not {"Begin", "End", "Label", "Type"} <= set(reader.fieldnames or ()):
        return None
    tiers: dict[str, list[TimedRow]] = {}
    for row in _complete(reader):
        speaker = row.get("Speaker")
        name = f"{speaker} - {row['Type']}" if speaker else row["Type"]
        tiers.setdefault(name, []).append((row["Begin"], row["End"], row["Label"]))
    return tiers


def _complete(reader: csv.DictReader[str]) -> Iterator[dict[str, str]]:
    try:
        for row in reader:
            if any(row.get(name) is None for name in ("Begin", "End", "Label", "Type")):
                raise ValueError(f"line {reader.line_num} is not Begin, End, Label, Type")
            yield row
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num}: {error}") from None


def _float(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        raise ValueError(f"{cell[:40]!r} is not a number of seconds") from None
