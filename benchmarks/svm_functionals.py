"""A linear SVM on openSMILE functionals, on the same folds as a run of jaxser.

    pip install jaxser[lld]
    python benchmarks/svm_functionals.py --run runs/mcsan-audio_only-ravdess --root RAVDESS

For each fold, the features are standardised by its training part, C is chosen by the UA on its validation part (the
smallest C if several are best), and the test part is scored once. The SVM is scikit-learn's LinearSVC (squared hinge,
one class against the rest), which did better on the validation parts of RAVDESS than the plain hinge. Of the run, only
`folds.json` and `utterances.jsonl` are needed; if it is finished, its own scores are printed too. A recording is found
under the root by its name without the suffix, which is the id of an utterance in IEMOCAP, RAVDESS and EmoDB.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from jaxtyping import Float, Int
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from jaxser import files
from jaxser.data.leaks import FoldIds
from jaxser.evaluation import metrics, run_folder
from jaxser.evaluation.results import ReplicaResult, Summary
from jaxser.evaluation.scores import Scores
from jaxser.evaluation.summary import summarise
from jaxser.types import InputError, Status

FEATURE_SETS = {"eGeMAPSv02": 88, "ComParE_2016": 6373}
COSTS = tuple(10.0 ** np.arange(-2, 2.5, 0.5))


def main() -> int:
    """Run the command, and return its exit status."""
    options = _options()
    try:
        _, _, folds = run_folder.read_folds(options.run)
        labels = {utterance.id: utterance.label for utterance in run_folder.read_utterances(options.run)}
        ids = sorted({i for fold in folds for i in (*fold.train, *fold.validation, *fold.test)})
        recordings = find_recordings(options.root, ids)
    except InputError as error:
        print(f"svm_functionals: {error}", file=sys.stderr)
        return 1
    classes = sorted({labels[i] for i in ids})
    label = np.array([classes.index(labels[i]) for i in ids])
    for name in options.features:
        features = cached_functionals(recordings, name, options.cache, options.workers)
        results = [evaluate(fold, ids, features, label, classes) for fold in folds]
        _print_scores(
            f"linear SVM, {name} ({features.shape[1]})", summarise([replica for replica, _ in results])
        )
        print(f"  C by fold: {', '.join(f'{tested.cost:.3g}' for _, tested in results)}")
        if options.predictions:
            _write_predictions(options.predictions / f"svm-{name}.csv", results, labels)
    if (options.run / run_folder.RESULTS).is_file():
        own = run_folder.read_results(options.run)
        _print_scores(f"{own.model}, {own.variant}", own.summary)
    return 0


def find_recordings(root: Path, ids: Sequence[str]) -> list[Path]:
    """Return the recording of each id, in the same order."""
    audio = (path for path in sorted(root.rglob("*")) if path.suffix.lower() in (".wav", ".flac"))
    by_name = {path.stem: path for path in audio if not path.name.startswith("._")}
    if missing := [i for i in ids if i not in by_name]:
        raise InputError(
            f"{root} has no recording of {missing[0]} ({len(missing)} of {len(ids)} are missing)"
        )
    return [by_name[i] for i in ids]


def functionals(path: Path, name: str) -> Float[np.ndarray, " D"]:
    """Compute the functionals of a whole recording; channels are averaged."""
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return _smile(name).process_signal(samples.mean(axis=1), rate).to_numpy()[0]


def cached_functionals(
    recordings: Sequence[Path], name: str, folder: Path, workers: int
) -> Float[np.ndarray, "N D"]:
    """Return the functionals of all recordings.

    They are cached in a file named after the recordings' names and sizes.
    """
    key = "".join(f"{path.name} {path.stat().st_size}\n" for path in recordings)
    path = folder / f"functionals-{name}-{hashlib.sha256(key.encode()).hexdigest()[:12]}.npz"
    if path.is_file():
        with np.load(path, allow_pickle=False) as file:
            return file["features"]
    with ProcessPoolExecutor(workers) as pool:
        rows = list(pool.map(partial(functionals, name=name), recordings, chunksize=16))
    with files.open_binary(folder, path.name) as file:
        np.savez_compressed(file, features=np.stack(rows))
    return np.stack(rows)


@dataclass(frozen=True)
class Tested:
    """The test predictions of a fold, and the value of C that its validation part chose."""

    ids: Sequence[str]
    predicted: Sequence[str]
    cost: float


def evaluate(
    fold: FoldIds,
    ids: Sequence[str],
    features: Float[np.ndarray, "N D"],
    label: Int[np.ndarray, " N"],
    classes: Sequence[str],
) -> tuple[ReplicaResult, Tested]:
    """Train on a fold; return its scores, as those of a replica, and its test predictions."""
    row_of = {name: row for row, name in enumerate(ids)}
    train, validation, test = ([row_of[i] for i in part] for part in (fold.train, fold.validation, fold.test))
    inputs = _standardised(features, train)

    def confusion(model: LinearSVC, rows: list[int]) -> Float[np.ndarray, "C C"]:
        return metrics.confusion(label[rows], model.predict(inputs[rows]), np.ones(len(rows)), len(classes))

    models = {cost: LinearSVC(C=cost, dual=False).fit(inputs[train], label[train]) for cost in COSTS}
    best = max(COSTS, key=lambda cost: metrics.scores(confusion(models[cost], validation))["ua"])
    replica = ReplicaResult(
        fold=fold.name,
        seed=0,
        status=Status.STOPPED.final_label,
        best_epoch=0,
        validation=Scores.of(confusion(models[best], validation), classes),
        test=Scores.of(confusion(models[best], test), classes),
    )
    predicted = [classes[row] for row in models[best].predict(inputs[test])]
    return replica, Tested(fold.test, predicted, best)


def _standardised(features: Float[np.ndarray, "N D"], train: list[int]) -> Float[np.ndarray, "N d"]:
    """Standardise the features by the training part, and scale them so that their number does not matter.

    If there are more features than training utterances, they are rotated into the space that the training part spans.
    This does not change a linear SVM, and training takes seconds instead of minutes.
    """
    scaled = StandardScaler().fit(features[train]).transform(features).astype(np.float64)
    if scaled.shape[1] > len(train):
        scaled = scaled @ np.linalg.svd(scaled[train], full_matrices=False)[2].T
    return scaled / np.sqrt(features.shape[1])


@cache
def _smile(name: str) -> Any:
    import opensmile

    return opensmile.Smile(getattr(opensmile.FeatureSet, name), opensmile.FeatureLevel.Functionals)


def _print_scores(name: str, summary: Summary) -> None:
    scores = []
    for title, metric in (("WA", "wa"), ("UA", "ua")):
        mean, std = summary.mean[metric], summary.std[metric]
        scores.append(f"{title} {mean:.3f}" + ("" if std is None else f" ± {std:.3f}"))
    pooled = ""
    if summary.pooled:
        pooled = f"; pooled WA {summary.pooled['wa']:.3f}, UA {summary.pooled['ua']:.3f}"
    print(f"{name}: {', '.join(scores)} (± over {summary.std_over}){pooled}")


def _write_predictions(
    path: Path, results: Sequence[tuple[ReplicaResult, Tested]], labels: Mapping[str, str]
) -> None:
    def rows() -> Iterator[tuple[str, ...]]:
        yield ("utterance", "fold", "seed", "true", "predicted")
        for replica, tested in results:
            for i, predicted in zip(tested.ids, tested.predicted, strict=True):
                yield (i, replica.fold, "0", labels[i], predicted)

    files.write_csv(path.parent, path.name, rows())


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--run", type=Path, required=True, help="folder of the run whose folds and labels are used"
    )
    parser.add_argument("--root", type=Path, required=True, help="folder of the corpus")
    parser.add_argument("--features", nargs="+", choices=FEATURE_SETS, default=list(FEATURE_SETS))
    parser.add_argument(
        "--cache", type=Path, default=Path.home() / ".cache" / "jaxser", help="folder for functionals"
    )
    parser.add_argument(
        "--predictions", type=Path, help="folder for the test predictions, one CSV per feature set"
    )
    parser.add_argument("--workers", type=int, default=2, help="number of processes that compute functionals")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
