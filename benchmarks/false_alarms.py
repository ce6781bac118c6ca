"""How often each test finds a difference between equal models; it should in 5 %.

    python -m benchmarks.false_alarms              simulated corpora, as in docs/explanation/statistics.md
    python -m benchmarks.false_alarms runs/mcsan   the seeds of a run, split into random halves

Models are equal in one of two ways. *Other seeds*: one network is trained again (A/A). *Other model*: neither of two
networks is better over all corpora, but each is better on some utterances, as when architectures are compared. A run
can only be tested for the first.

Exit status: 0 done, 1 the folder is not a finished run, 2 wrong usage.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxser import cli
from jaxser.cli import run_command
from jaxser.evaluation import comparisons, run_scores
from jaxser.evaluation.hypothesis_tests import LEVEL, corrected_t_test, mcnemar, signed_rank, unpaired_t_test
from jaxser.evaluation.run_folder import Run, read_run
from jaxser.types import UsageError

TESTS = {
    "corrected": "corrected resampled t-test, folds",
    "paired": "paired t-test, folds",
    "wilcoxon": "Wilcoxon, folds",
    "mcnemar": "McNemar, utterances",
    "paired_runs": "paired t-test, runs",
    "unpaired_runs": "unpaired t-test, runs",
}
"""The tests, and the observations that each assumes to be independent; the last is that of Rajan et al. (2022)."""

SPLITS = {"session": "5 sessions", "random": "10 random splits"}


class Trial(NamedTuple):
    """The scores of two models.

    Attributes:
        advantage: how often `a` classifies each utterance correctly minus how often `b` does.
        ratio: test utterances per training utterance.
    """

    a: Float[np.ndarray, "folds seeds"]
    b: Float[np.ndarray, "folds seeds"]
    advantage: Float[np.ndarray, " N"]
    ratio: float


def p_values(trial: Trial) -> dict[str, float]:
    """Return the p value of each of `TESTS`.

    The signed-rank test is left out if there are too few folds for it.
    """
    by_fold = trial.a.mean(axis=1) - trial.b.mean(axis=1)
    results = {
        "corrected": corrected_t_test(by_fold, trial.ratio),
        "paired": corrected_t_test(by_fold, 0.0),
        "mcnemar": mcnemar(trial.advantage),
        "paired_runs": corrected_t_test((trial.a - trial.b).ravel(), 0.0),
        "unpaired_runs": unpaired_t_test(trial.a.ravel(), trial.b.ravel()),
    }
    if len(by_fold) >= comparisons.MIN_FOLDS_FOR_RANKS:
        results["wilcoxon"] = signed_rank(by_fold)
    return {name: result.p for name, result in results.items()}


def rates(trials: Iterable[Trial]) -> dict[str, float]:
    """Return the fraction of trials in which each test finds a difference at 5 %."""
    values = [p_values(trial) for trial in trials]
    return {name: float(np.mean([p[name] < LEVEL for p in values])) for name in TESTS if name in values[0]}


def simulated(rng: np.random.Generator, splits: str, seeds: int, *, same: bool) -> Trial:
    """Simulate two equally good classifiers on a new corpus of 500 utterances.

    The corpus has two classes and two views of 12 features with the same distribution, which share half of their noise.
    The classes are easier to tell apart in some sessions than in others. Each seed draws 16 random features (tanh) of a
    view, on which ridge regression is trained.

    Args:
        rng: draws the corpus and the features.
        splits: a key of `SPLITS`.
        seeds: the number of seeds.
        same: whether both classifiers see the same view, so that only their seeds differ.
    """
    number, dimensions, features = 500, 12, 16
    label = rng.choice([-1.0, 1.0], number)
    session = np.repeat(np.arange(5), number // 5)
    clarity = 0.7 * (1 + 0.15 * rng.standard_normal(5))[session] * label
    noise = rng.standard_normal((3, number, dimensions))
    direction = rng.standard_normal((2, dimensions))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    views = (noise[:2] + noise[2]) / np.sqrt(2) + clarity[:, None] * direction[:, None, :]

    parts = list(_splits(rng, splits, session))
    scores, hits = np.zeros((2, len(parts), seeds)), np.zeros((2, number))
    for model, view in enumerate(views[[0, 0]] if same else views):
        for fold, (train, test) in enumerate(parts):
            weights = rng.standard_normal((seeds, dimensions, features)) / np.sqrt(dimensions)
            hidden = np.tanh(view @ weights)  # [seeds, N, features]
            known = hidden[:, train].swapaxes(1, 2)
            gram = known @ hidden[:, train] + np.eye(features)
            readout = np.linalg.solve(gram, (known @ label[train])[..., None])
            hit = np.sign((hidden[:, test] @ readout)[..., 0]) == label[test]  # [seeds, test]
            scores[model, fold] = hit.mean(axis=1)
            hits[model, test] += hit.mean(axis=0)
    tests = np.bincount(np.concatenate([test for _, test in parts]), minlength=number)
    advantage = (hits[0] - hits[1])[tests > 0] / tests[tests > 0]
    return Trial(
        scores[0], scores[1], advantage, float(np.mean([len(test) / len(train) for train, test in parts]))
    )


def _splits(
    rng: np.random.Generator, splits: str, session: Int[np.ndarray, " N"]
) -> Iterator[tuple[Int[np.ndarray, " train"], Int[np.ndarray, " test"]]]:
    """Return the training and test rows of each fold.

    Folds are by session (another one validates), or 80 % and 15 % at random.
    """
    if splits == "session":
        for k in range(5):
            yield np.flatnonzero(~np.isin(session, (k, (k + 1) % 5))), np.flatnonzero(session == k)
    else:
        for _ in range(10):
            rows = rng.permutation(len(session))
            yield rows[len(rows) // 5 :], rows[: len(rows) * 3 // 20]


def halves(run: Run, metric: str, rng: np.random.Generator) -> Iterator[Trial]:
    """Split the seeds of a run into two random halves, again and again without end.

    Raises:
        UsageError: if fewer than four seeds have a score in every fold.
    """
    scores, correct = run_scores.replica_scores(run, metric), run_scores.correct(run)
    complete = np.flatnonzero(np.isfinite(scores).all(axis=0))
    if len(complete) < 4:
        raise UsageError(
            f"{run.folder} has {len(complete)} seeds with a score in every fold: train with four or more"
        )
    while True:
        first, second = rng.permutation(complete)[: len(complete) // 2 * 2].reshape(2, -1)
        advantage = correct[:, first].mean(axis=1) - correct[:, second].mean(axis=1)
        yield Trial(scores[:, first], scores[:, second], advantage, run_scores.test_train_ratio(run))


def markdown(rows: Mapping[str, Mapping[str, float]]) -> str:
    """Return a Markdown table of false alarms in percent, with one row per case."""
    lines = [
        "| " + " | ".join(("false alarms (%)", *TESTS.values())) + " |",
        "|---" + "|---:" * len(TESTS) + "|",
    ]
    for case, own in rows.items():
        cells = (f"{100 * own[name]:.1f}" if name in own else "–" for name in TESTS)
        lines.append("| " + " | ".join((case, *cells)) + " |")
    return "\n".join(lines)


def main() -> int:
    """Run the command, and return its exit status."""
    parser = cli.parser("benchmarks.false_alarms", "python -m benchmarks.false_alarms", __doc__)
    parser.add_argument("run", nargs="?", help="the folder of a finished run with four or more seeds")
    parser.add_argument("--trials", type=int, default=1000, help="comparisons per case (%(default)s)")
    parser.add_argument("--metric", default="ua", help="the metric that is compared (%(default)s)")
    options = parser.parse_args()

    def work() -> int:
        own = options.run and _of_run(options.run, options.metric, options.trials)
        print(markdown(own or _simulated(options.trials)))
        return 0

    return run_command("benchmarks.false_alarms", work)


def _of_run(folder: str, metric: str, number: int) -> dict[str, dict[str, float]]:
    trials = halves(read_run(folder), metric, np.random.default_rng(0))
    return {f"{folder}, other seeds": rates(next(trials) for _ in range(number))}


def _simulated(number: int) -> dict[str, dict[str, float]]:
    rng = np.random.default_rng(0)
    rows = {}
    for splits, title in SPLITS.items():
        for seeds in (1, 10):
            for same in (True, False):
                case = f"{title}, {seeds} seed{'s' * (seeds > 1)}, other {'seeds' if same else 'model'}"
                rows[case] = rates(simulated(rng, splits, seeds, same=same) for _ in range(number))
    return rows


if __name__ == "__main__":
    sys.exit(main())
