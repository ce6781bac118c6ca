"""Labels of a corpus: one spelling per emotion, `--label_map` and `--classes`.

The label sets that `--classes` names are in `jaxser/corpora.py`.
"""

from __future__ import annotations

import csv
import io
import json
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from jaxser import corpora
from jaxser.types import InputError, Reading, Rejection, UsageError, Utterance

from .corpora.parsing import decode_text, read_file
from .corpora.tables import MISSING, best_delimiter, parse_number

_MAP_HEADERS = (("label", "from", "old", "code", "key"), ("class", "to", "new", "name", "emotion", "value"))
_MAX_BYTES = 10**7
_INVISIBLE = re.compile("[\u00ad\u200b\u2060\ufeff]")  # soft hyphen, spaces and joiners of no width


@dataclass(frozen=True)
class Labels:
    """The treatment of a corpus's labels, for the manifest.

    Attributes:
        label_map: the new label by label, "" for labels that are left out.
        classes: the class by label; empty if every label is a class.
        left_out: the number of utterances by label that are not in a class.
    """

    label_map: Mapping[str, str] = field(default_factory=dict)
    classes: Mapping[str, str] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)


def apply_labels(
    corpus: str, reading: Reading, label_map: Mapping[str, str] | None = None, classes: str = ""
) -> tuple[Reading, Labels]:
    """Clean, rename and select the labels of a corpus.

    Spaces around a label and the form of its accents do not matter. Labels that differ in case only are one. Labels
    that stand for a missing value are rejected, unless the utterance has attributes or votes. Numbers on a scale become
    the attribute `value`. Votes are renamed like labels.

    Args:
        corpus: the name of the corpus.
        reading: its utterances.
        label_map: the new label by label; "" leaves out the label's utterances.
        classes: a label set of the corpus, or a list such as "ang,hap+exc"; "" keeps all labels.

    Returns:
        The reading with the labels that the dataset gets, and a description for the manifest.

    Raises:
        UsageError: if `label_map` or `classes` does not fit the labels.
        InputError: if there are too many labels.
    """
    label_map = {tidy(label): tidy(new) for label, new in (label_map or {}).items()}
    counts = Counter(tidy(utterance.label) for utterance in reading.utterances)
    renamed, unused = _renamed(counts, label_map)
    missing = {label for label in counts if label and label == renamed[label] and label in MISSING}
    renamed |= dict.fromkeys(missing, "")
    spelled, warnings = _one_spelling(counts, renamed)
    if unused:
        warnings.append(f"--label_map: no utterance has the label {', '.join(unused)}")
    renamed = {label: spelled.get(new, new) for label, new in renamed.items()}
    found = _total((renamed[label], count) for label, count in counts.items() if renamed[label])
    if _are_values(found):
        return _valued(reading, classes), Labels()
    warnings += _number_warnings(found)
    class_of = corpora.class_of_labels(corpora.find(corpus), classes, found) if classes else {}
    final = {label: class_of.get(new, "") if class_of else new for label, new in renamed.items()}
    new_votes = _vote_renamer(label_map, class_of)
    kept, rejected, left_out = [], list(reading.rejected), Counter[str]()
    for utterance in reading.utterances:
        label = tidy(utterance.label)
        is_annotated = utterance.attributes or utterance.votes
        if final[label] or (is_annotated and label in missing | {""}):
            kept.append(replace(utterance, label=final[label], votes=new_votes(utterance.votes)))
        elif label in missing:
            rejected.append(
                Rejection(utterance.id, utterance.wav, f"no label ({label!r}; --label_map can name it)")
            )
        else:
            left_out[renamed[label] or label] += 1
    if not kept and left_out:
        raise UsageError(
            f"--label_map, --classes: all utterances are left out; the labels are {_shown(counts)}"
        )
    classes_found = dict.fromkeys(utterance.label for utterance in kept if utterance.label)
    if len(classes_found) > corpora.MAX_CLASSES:
        raise InputError(
            f"{len(classes_found)} classes ({_shown(classes_found, 3)}), more than the {corpora.MAX_CLASSES} "
            "of a dataset: are these the labels? --classes or --label_map chooses some"
        )
    labels = Labels(label_map, class_of, dict(sorted(left_out.items())))
    return _with_expected(reading, label_map, class_of, kept, rejected, warnings), labels


def read_label_map(value: str) -> dict[str, str]:
    """Read the value of `--label_map`: `A=angry,H=happy`, or a file of JSON, YAML, CSV or TSV.

    Raises:
        UsageError: if the value is neither, or the file does not map labels to labels.
    """
    path = Path(value)
    if not path.is_file():
        if "=" not in value:
            raise UsageError(f"--label_map={value}: no such file; or write A=angry,H=happy")
        pairs = [entry.partition("=") for entry in value.split(",") if entry.strip()]
        return _unique(value, [(label, new) for label, _, new in pairs if label.strip()])
    try:
        text, _ = decode_text(read_file(path, _MAX_BYTES))
        return _unique(value, _MAP_READERS[path.suffix.lower()](text))
    except KeyError:
        known = ", ".join(_MAP_READERS)
        raise UsageError(f"--label_map={value}: the name must end in one of {known}") from None
    except (ValueError, csv.Error, yaml.YAMLError, RecursionError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"--label_map={value}: {' '.join(str(error).split())}") from None


def tidy(label: str) -> str:
    """Return a label in composed form (NFC), without surplus spaces and invisible characters."""
    return " ".join(_INVISIBLE.sub("", unicodedata.normalize("NFC", label)).split())


def _renamed(counts: Mapping[str, int], label_map: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Return the new label by label, and the labels of the map that do not occur."""
    folded: dict[str, set[str]] = defaultdict(set)
    for label, new in label_map.items():
        folded[label.casefold()].add(new)
    renamed, used = {}, set()
    for label in counts:
        others = folded[label.casefold()]
        if label in label_map:
            renamed[label] = label_map[label]
        else:
            renamed[label] = next(iter(others)) if len(others) == 1 else label
        used.add(label.casefold())
    unused = [label for label in label_map if label.casefold() not in used]
    if label_map and len(unused) == len(label_map):
        raise UsageError(f"--label_map: none of its labels occurs; the labels are {_shown(counts)}")
    return renamed, unused


def _vote_renamer(
    label_map: Mapping[str, str], class_of: Mapping[str, str]
) -> Callable[[Sequence[str]], tuple[str, ...]]:
    """Return what renames votes like labels; votes that are left out are dropped."""
    if not label_map and not class_of:
        return tuple
    folded = {label.casefold(): new for label, new in label_map.items()}

    def rename(votes: Sequence[str]) -> tuple[str, ...]:
        new = (folded.get(tidy(vote).casefold(), tidy(vote)) for vote in votes)
        return tuple(class_of.get(vote, vote) for vote in new if vote)

    return rename


def _one_spelling(counts: Mapping[str, int], renamed: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Return the most frequent of the spellings that differ in case or width, by spelling, and a warning for each."""
    groups: dict[str, Counter[str]] = defaultdict(Counter)
    for label, count in counts.items():
        if renamed[label]:
            groups[unicodedata.normalize("NFKC", renamed[label]).casefold()][renamed[label]] += count
    spelled: dict[str, str] = {}
    warnings = []
    for group in groups.values():
        if len(group) > 1:
            best = min(group, key=lambda name: (-group[name], name))
            spelled |= dict.fromkeys(group, best)
            numbers = ", ".join(f"{name} ({group[name]})" for name in sorted(group))
            warnings.append(f"labels that differ in case or width only are one class, {best}: {numbers}")
    return spelled, warnings


VALUE = "value"
"""The name of the attribute that labels on a scale become."""


def _are_values(counts: Mapping[str, int]) -> bool:
    """Return whether most labels are numbers on a scale, and not the codes of classes."""
    values = [label for label in counts if _is_value(label)]
    numbers = [label for label in counts if _is_number(label)]
    if not values and (len(numbers) <= _MAX_CODES or len(numbers) < len(counts)):
        return False
    return sum(counts[label] for label in numbers) * 2 > sum(counts.values())


def _number_warnings(counts: Mapping[str, int]) -> list[str]:
    """Return a warning if some labels are numbers with decimals."""
    values = {label: count for label, count in counts.items() if _is_value(label)}
    return [f"labels that are numbers, while most are names: {_shown(values, 3)}"] if values else []


def _valued(reading: Reading, classes: str) -> Reading:
    """Return the reading with its labels as values of an attribute; labels that are no numbers are rejected."""
    if classes:
        raise UsageError(
            f"--classes={classes}: the labels are numbers on a scale; name a class for each by --label_map"
        )
    kept, rejected = [], list(reading.rejected)
    for utterance in reading.utterances:
        label = tidy(utterance.label)
        if _is_number(label):
            attributes = {VALUE: parse_number(label), **utterance.attributes}
            kept.append(replace(utterance, label="", attributes=attributes))
        else:
            reason = f"label {label!r} is not a number, as most labels are"
            rejected.append(Rejection(utterance.id, utterance.wav, reason))
    warning = (
        f"the labels are numbers on a scale, and are the attribute {VALUE}: train with --config.target=attributes, or "
        "name a class for each number by --label_map"
    )
    return replace(
        reading,
        utterances=tuple(kept),
        rejected=tuple(rejected),
        expected={},
        warnings=(*reading.warnings, warning),
    )


_MAX_CODES = 30
"""The largest number of different whole numbers that are taken for the codes of classes."""


def _is_number(label: str) -> bool:
    try:
        parse_number(label)
    except ValueError:
        return False
    return True


def _is_value(label: str) -> bool:
    """Return whether a label is a number with decimals, such as 1.170 or 1,170."""
    return _is_number(label) and not re.fullmatch(r"[+-]?[0-9]+", label)


def _with_expected(
    reading: Reading,
    label_map: Mapping[str, str],
    class_of: Mapping[str, str],
    kept: Sequence[Utterance],
    rejected: Sequence[Rejection],
    warnings: Sequence[str],
) -> Reading:
    """Return the reading with other utterances, and the counts of the original release by the new labels."""
    new = {label: label_map.get(label, label) for label in reading.expected}
    classes = {label: class_of.get(name, "") if class_of else name for label, name in new.items()}
    expected = _total((classes[label], count) for label, count in reading.expected.items() if classes[label])
    return replace(
        reading,
        utterances=tuple(kept),
        rejected=tuple(rejected),
        expected=expected,
        warnings=(*reading.warnings, *warnings),
    )


def _total(counts: Iterable[tuple[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for label, count in counts:
        total[label] = total.get(label, 0) + count
    return total


def _shown(counts: Mapping[str, Any], number: int = 12) -> str:
    names = [name[:40] for name in list(counts)[:number]]
    return ", ".join(names) + (f" and {len(counts) - number} more" if len(counts) > number else "")


def _unique(value: str, pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for label, new in pairs:
        if found.setdefault(tidy(label), tidy(new)) != tidy(new):
            raise UsageError(f"--label_map={value}: two classes for {tidy(label)}")
    if not found:
        raise UsageError(f"--label_map={value}: no labels; write A=angry,H=happy or a file of such pairs")
    return found


def _json_pairs(text: str) -> list[tuple[str, str]]:
    pairs = json.loads(text, object_pairs_hook=list)
    if not isinstance(pairs, list) or not all(isinstance(pair, tuple) for pair in pairs):
        raise ValueError('not an object such as {"A": "angry"}')
    return [(label, _text(new)) for label, new in pairs]


def _yaml_pairs(text: str) -> list[tuple[str, str]]:
    """Read the nodes themselves, in which `no` and `1.170` are texts and repeated keys are kept."""
    node = yaml.compose(text, Loader=yaml.BaseLoader)
    if not isinstance(node, yaml.MappingNode):
        raise ValueError("not a mapping such as A: angry")
    return [(_text(label.value), _text(new.value)) for label, new in node.value]


def _table_pairs(text: str) -> list[tuple[str, str]]:
    lines = [line for line in text.splitlines() if line.strip()]
    rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=best_delimiter(lines, 2), strict=True))
    rows = [row for row in rows if any(row)]
    if wrong := [number for number, row in enumerate(rows, start=1) if len(row) != 2]:
        raise ValueError(f"row {wrong[0]} is not a label and its class")
    if rows and all(cell.strip().lower() in names for cell, names in zip(rows[0], _MAP_HEADERS, strict=True)):
        rows = rows[1:]
    return [(label, new) for label, new in rows]


def _text(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str | int | float):
        raise ValueError("a class is not a text")
    return str(value)


_MAP_READERS = {
    ".json": _json_pairs,
    ".yaml": _yaml_pairs,
    ".yml": _yaml_pairs,
    ".csv": _table_pairs,
    ".tsv": _table_pairs,
}
