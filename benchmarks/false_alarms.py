"""How often each test finds a difference between models that are equally good: it should in 5 % of cases.

    python -m jaxser.false_alarms              simulated corpora; docs/explanation/statistics.md has what it prints
    python -m jaxser.false_alarms runs/mcsan   a run's own seeds, cut into halves at random

Two models are equal in one of two ways. *Other seeds*: one network, trained again (A/A). *Other model*: two
networks, of which neither is better over all corpora, but each is on some utterances: what a comparison of
architectures has to do with. Only the first can be made of a run.

Exit status: 0 done, 1 the folder is no finished run, 2 wrong usage.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxser import cli
from jaxser.evaluation import comparisons
from jaxser.evaluation.hypothesis_tests import LEVEL, corrected_t_test, mcnemar, signed_rank, unpaired_t_test
from jaxser.evaluation.run_folder import Run, read_run
from jaxser.types import InputError, UsageError

TESTS = {
    "corrected": "corrected resampled t-test, folds",
    "paired": "paired t-test, folds",
    "wilcoxon": "Wilcoxon, folds",
    "mcnemar": "McNemar, utterances",
    "paired_runs": "paired t-test, runs",
    "unpaired_runs": "unpaired t-test, runs",
}
"""By name, with what each takes for independent; the last is that of Rajan et al. (2022)."""

SPLITS = {"session": "5 sessions", "random": "10 random splits"}


class Trial(NamedTuple):
    """What two models scored."""

    a: Float[np.ndarray, "folds seeds"]
    b: Float[np.ndarray, "folds seeds"]
    right: Float[np.ndarray, " N"]  # by utterance, how often a is right less how often b is
    ratio: float  # test over training utterances


def p_values(trial: Trial) -> dict[str, float]:
    """Every test's, by the names of `TESTS`; the signed-rank test only where there are folds enough."""
    by_fold = trial.a.mean(axis=1) - trial.b.mean(axis=1)
    found = {
        "corrected": corrected_t_test(by_fold, trial.ratio),
        "paired": corrected_t_test(by_fold, 0.0),
        "mcnemar": mcnemar(trial.right),
        "paired_runs": corrected_t_test((trial.a - trial.b).ravel(), 0.0),
        "unpaired_runs": unpaired_t_test(trial.a.ravel(), trial.b.ravel()),
    }
    if len(by_fold) >= comparisons.FEWEST_FOR_RANKS:
        found["wilcoxon"] = signed_rank(by_fold)
    return {name: result.p for name, result in found.items()}


def rates(trials: Iterable[Trial]) -> dict[str, float]:
    """The share of trials in which each test finds a difference at 5 %."""
    found = [p_values(trial) for trial in trials]
    return {name: float(np.mean([p[name] < LEVEL for p in found])) for name in TESTS if name in found[0]}


def simulated(rng: np.random.Generator, splits: str, seeds: int, *, same: bool) -> Trial:
    """Two classifiers of 500 utterances of two classes, equal in expectation, on a corpus drawn anew.

    The corpus has two views of 12 features, alike in distribution, half of their noise shared, the class
    told more clearly in some sessions than in others. A seed draws 16 random features (tanh) of a view, on
    which ridge regression is trained. With `same` both classifiers see one view and only seeds differ.
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
    scores, right = np.zeros((2, len(parts), seeds)), np.zeros((2, number))
    for model, view in enumerate(views[[0, 0]] if same else views):
        for fold, (train, test) in enumerate(parts):
            weights = rng.standard_normal((seeds, dimensions, features)) / np.sqrt(dimensions)
            hidden = np.tanh(view @ weights)  # [seeds, N, features]
            known = hidden[:, train].swapaxes(1, 2)
            gram = known @ hidden[:, train] + np.eye(features)
            readout = np.linalg.solve(gram, (known @ label[train])[..., None])
            hit = np.sign((hidden[:, test] @ readout)[..., 0]) == label[test]  # [seeds, test]
            scores[model, fold] = hit.mean(axis=1)
            right[model, test] += hit.mean(axis=0)
    tests = np.bincount(np.concatenate([test for _, test in parts]), minlength=number)
    apart = (right[0] - right[1])[tests > 0] / tests[tests > 0]
    return Trial(
        scores[0], scores[1], apart, float(np.mean([len(test) / len(train) for train, test in parts]))
    )


def _splits(
    rng: np.random.Generator, splits: str, session: Int[np.ndarray, " N"]
) -> Iterator[tuple[Int[np.ndarray, " train"], Int[np.ndarray, " test"]]]:
    """Rows for training and test. Sessions: one tests, the next validates. Random: 80 % train, 15 % test."""
    if splits == "session":
        for k in range(5):
            yield np.flatnonzero(~np.isin(session, (k, (k + 1) % 5))), np.flatnonzero(session == k)
    else:
        for _ in range(10):
            rows = rng.permutation(len(session))
            yield rows[len(rows) // 5 :], rows[: len(rows) * 3 // 20]


def halves(run: Run, metric: str, rng: np.random.Generator) -> Iterator[Trial]:
    """A run's seeds cut into two halves, again and again; without end.

    Raises:
        UsageError: fewer than four seeds have a score in every fold.
    """
    scores, right = comparisons.replica_scores(run, metric), comparisons.right(run)
    whole = np.flatnonzero(np.isfinite(scores).all(axis=0))
    if len(whole) < 4:
        raise UsageError(
            f"{run.folder} has {len(whole)} seeds with a score in every fold: train four or more"
        )
    while True:
        first, second = rng.permutation(whole)[: len(whole) // 2 * 2].reshape(2, -1)
        apart = right[:, first].mean(axis=1) - right[:, second].mean(axis=1)
        yield Trial(scores[:, first], scores[:, second], apart, comparisons.test_over_train(run))


def markdown(rows: Mapping[str, Mapping[str, float]]) -> str:
    """False alarms in percent, a row a case."""
    lines = [
        "| " + " | ".join(("false alarms (%)", *TESTS.values())) + " |",
        "|---" + "|---:" * len(TESTS) + "|",
    ]
    for case, found in rows.items():
        cells = (f"{100 * found[name]:.1f}" if name in found else "–" for name in TESTS)
        lines.append("| " + " | ".join((case, *cells)) + " |")
    return "\n".join(lines)


def main() -> int:
    parser = cli.parser("jaxser.false_alarms", "python -m jaxser.false_alarms", __doc__)
    parser.add_argument("run", nargs="?", help="the folder of a finished run of four seeds or more")
    parser.add_argument("--trials", type=int, default=1000, help="comparisons a case (%(default)s)")
    parser.add_argument("--metric", default="ua", help="of a run (%(default)s)")
    flags = parser.parse_args()
    rng = np.random.default_rng(0)
    try:
        if flags.run:
            trials = halves(read_run(flags.run), flags.metric, rng)
            print(markdown({f"{flags.run}, other seeds": rates(next(trials) for _ in range(flags.trials))}))
            return 0
    except (InputError, UsageError) as error:
        print(f"jaxser.false_alarms: {error}", file=sys.stderr)
        return 1 if isinstance(error, InputError) else 2
    rows = {}
    for splits, told in SPLITS.items():
        for seeds in (1, 10):
            for same in (True, False):
                case = f"{told}, {seeds} seed{'s' * (seeds > 1)}, other {'seeds' if same else 'model'}"
                rows[case] = rates(simulated(rng, splits, seeds, same=same) for _ in range(flags.trials))
    print(markdown(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
