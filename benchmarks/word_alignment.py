"""Errors of forced alignment against a corpus's own word times.

    python -m benchmarks.word_alignment                                    # the demo corpus, whose times are true
    python -m benchmarks.word_alignment --corpus=ravdess --root=RAVDESS    # without word times: levels alone

Prints the errors of the starts and ends of words, and by how much the speech between the first and the last word is
louder than the rest of its recording.
"""

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from jaxser.data_prep.align import align_words
from jaxser.data_prep.demo.corpus import make
from jaxser.data_prep.readers import import_reader
from jaxser.features.audio import SAMPLE_RATE, read_audio
from jaxser.types import Utterance, Word

FLOOR = 1e-12  # of a mean square


def main() -> None:
    arguments = _arguments()
    with tempfile.TemporaryDirectory() as folder:
        root = arguments.root or Path(folder) / "demo_release"
        if not arguments.root:
            make(root=root, utterances=arguments.utterances, progress=False)
        reading = import_reader(arguments.corpus).read(root)
        own = {one.id: one for one in reading.utterances}
        without = replace(reading, utterances=tuple(replace(one, words=None) for one in reading.utterances))
        kept = Path(folder) / "kept" / "words.jsonl"
        found = align_words(arguments.corpus, without, root, "pocketsphinx", kept, arguments.workers)
        print("{aligner}: {aligned} aligned, {not_aligned} not".format(**found.facts["alignment"]))
        pairs = [(one.words, own[one.id].words) for one in found.utterances]
        _print_errors([(words, true) for words, true in pairs if words and true])
        _print_levels(root, [one for one in found.utterances if one.words])


def errors(words: Sequence[Word], true: Sequence[Word]) -> list[tuple[float, float]]:
    """Return the errors of each word's start and end in seconds; none if the words differ."""
    if [one.text for one in words] != [one.text for one in true]:
        return []
    return [(one.start - other.start, one.end - other.end) for one, other in zip(words, true, strict=True)]


def level_difference(samples: np.ndarray, words: Sequence[Word]) -> float:
    """Return the level between the first and the last word minus that of the rest, in dB."""
    start, end = (int(time * SAMPLE_RATE) for time in (words[0].start, words[-1].end))
    power = samples.astype(np.float64) ** 2
    rest = np.concatenate([power[:start], power[end:], [FLOOR]])
    return float(10 * np.log10(max(power[start:end].mean(), FLOOR) / max(rest.mean(), FLOOR)))


def _print_errors(pairs: Sequence[tuple[Sequence[Word], Sequence[Word]]]) -> None:
    found = np.array([error for words, true in pairs for error in errors(words, true)]).reshape(-1, 2)
    if not len(found):
        return
    for name, values in (("starts", found[:, 0]), ("ends", found[:, 1]), ("both", found)):
        median, high = 1e3 * np.percentile(np.abs(values), (50, 90))
        print(f"{name}: error {median:.0f} ms (median), {high:.0f} ms (90th percentile); {len(values)} words")


def _print_levels(root: Path, utterances: Sequence[Utterance]) -> None:
    levels = np.array(
        [level_difference(read_audio(root / one.wav).samples, one.words or ()) for one in utterances]
    )
    low, median = np.percentile(levels, (10, 50))
    print(f"speech is {median:.0f} dB above the rest (median; 10th percentile {low:.0f} dB)")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--corpus", default="demo", help="a corpus in English (default: demo)")
    parser.add_argument("--root", type=Path, help="its folder (default: a demo corpus is made)")
    parser.add_argument("--utterances", type=int, default=400, help="of the demo corpus (default: 400)")
    parser.add_argument("--workers", type=int, default=1, help="number of processes (default: 1)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
