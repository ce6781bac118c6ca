"""The tables of one run."""

from __future__ import annotations

from collections import defaultdict

from jaxser import corpora
from jaxser.data.merging import corpus_of
from jaxser.evaluation import metrics
from jaxser.evaluation.intervals import Interval
from jaxser.evaluation.metrics import describe
from jaxser.evaluation.overfitting import overfitting
from jaxser.evaluation.records import EpochRecord
from jaxser.evaluation.run_folder import Run
from jaxser.evaluation.run_scores import NAMES
from jaxser.evaluation.targets import CLASSES
from jaxser.papers import Printed
from jaxser.report import checks
from jaxser.report.analysis import Analysis
from jaxser.report.groups import CLUSTERED, Group, grouped, tested_ids
from jaxser.report.tables import Cell, Range, Score, Table, csv_text

OBSERVERS = {
    "prior": "most frequent class",
    "text": "words only",
    "audio": "voice only",
    "late_fusion": "words and voice, scores added",
    "joint": "words and voice together",
}
"""The models whose best possible accuracy on the demo corpus is known."""

_COLUMNS = ("WA", "95 % interval of WA", "UA", "95 % interval of UA")


def all_tables(analysis: Analysis) -> dict[str, Table | None]:
    """Return every table of a run by its name in the template; None if it does not apply."""
    run, row = analysis.run, analysis.printed
    return {
        "headline": headline(run),
        "intervals": intervals(analysis),
        "settings": settings(run),
        "paper": paper(run, row) if row else None,
        "best_possible": best_possible(run),
        "recalls": recalls(analysis),
        "corpora": by_corpus(run),
        "speakers": speakers(analysis),
        "genders": genders(analysis),
        "leaks": checks.leak_table(analysis.leaks, run),
        "answers": answers(analysis),
        "mistakes": mistakes(analysis),
        "folds": folds(run),
        "replicas": replicas(run),
    }


def results_csv(run: Run) -> str:
    """Return the test scores of each replica as CSV, in fractions.

    They are empty for a replica without scores.
    """
    results = run.results
    header = ["model", "variant", "dataset", "fold", "seed", "setting", "status", "best_epoch"]
    names, classes = results.target.score_names, results.classes if results.target.kind == CLASSES else ()
    header += [*names, *(f"recall_{name}" for name in classes)]
    rows = []
    for one in results.replicas:
        scores = [one.test[name] if one.test else None for name in names]
        recalls = [one.test.recall.get(name) if one.test else None for name in classes]
        identity = [results.model, results.variant, results.dataset, one.fold, one.seed, one.setting]
        rows.append([*identity, one.status, one.best_epoch, *scores, *recalls])
    return csv_text(header, rows)


def headline(run: Run) -> Table:
    """Return the scores: their mean, three standard deviations, and the pooled score."""
    found = run.results.summary
    columns = (found.mean, found.std_over_folds, found.std_over_seeds, found.std_over_runs, found.pooled)
    rows: list[tuple[Cell, ...]] = [
        (describe(name).title, *(score(name, (column or {}).get(name)) for column in columns))
        for name in run.results.target.score_names
    ]
    header = ("", "mean", "± over folds", "± over seeds", "± over runs", "pooled")
    return Table("scores", f"Test scores{unit(run)}", header, tuple(rows))


def unit(run: Run) -> str:
    """Return what a caption adds if scores are in percent."""
    return " (%)" if describe(run.results.target.headline).is_percentage else ""


def score(name: str, mean: float | None, std: float | None = None) -> Score:
    """Return the cell of a score."""
    return Score(mean, std, in_percent=describe(name).is_percentage)


def intervals(analysis: Analysis) -> Table:
    """Return the pooled scores with their intervals over utterances and over speakers."""
    pooled = analysis.results.summary.pooled or {}
    rows: list[tuple[Cell, ...]] = []
    for metric in analysis.results.target.score_names:
        ranges = [interval_cells(analysis.interval(metric, by))[1] for by in ("utterance", "speaker")]
        rows.append((describe(metric).title, score(metric, pooled.get(metric)), *ranges))
    header = ("", "pooled", "over utterances", "over speakers")
    caption = f"Pooled test scores{unit(analysis.run)} with 95 % bootstrap intervals"
    return Table("intervals", caption, header, tuple(rows))


def recalls(analysis: Analysis) -> Table:
    """Return the recall of each class: mean over folds, and pooled with its interval."""
    found = analysis.results.summary
    rows: list[tuple[Cell, ...]] = []
    for group in analysis.by_class:
        mean = Score(found.recall_mean.get(group.name), found.recall_std_over_folds.get(group.name))
        rows.append((group.name, group.utterances, mean, *interval_cells(group.wa)))
    header = ("class", "test utterances", "recall, ± over folds", "pooled", "95 % interval")
    return Table("recall", f"Recall by class (%); intervals {CLUSTERED}", header, tuple(rows))


def genders(analysis: Analysis) -> Table | None:
    """Return WA and UA by gender; None unless two are known."""
    rows = [(group.name, group.utterances, *_group_cells(group)) for group in analysis.by_gender]
    caption = f"Test scores by gender (%), averaged over seeds; intervals {CLUSTERED}"
    return Table("genders", caption, ("gender", "utterances", *_COLUMNS), tuple(rows)) if rows else None


def by_corpus(run: Run) -> Table | None:
    """Return WA and UA by test corpus with intervals; None for a single dataset."""
    names = list(run.results.by_corpus)
    if not names:
        return None
    values = [corpus_of(i) for i in run.test_predictions.utterance.tolist()]
    rows: list[tuple[Cell, ...]] = []
    for group in grouped(run, names, values):
        mean = run.results.by_corpus[group.name]
        rows.append(
            (
                corpora.find(group.name).title,
                group.utterances,
                Score(mean["wa"]),
                Score(mean["ua"]),
                *interval_cells(group.ua),
            )
        )
    header = ("corpus", "test utterances", "WA", "UA", "UA, pooled", "95 % interval of UA")
    caption = f"Test scores by corpus (%), averaged over folds and seeds; intervals {CLUSTERED}"
    return Table("corpora", caption, header, tuple(rows))


def speakers(analysis: Analysis) -> Table | None:
    """Return WA and UA by test speaker; None if no speakers are known."""
    gender = speaker_genders(analysis.run)
    rows = [
        (group.name, gender[group.name], group.utterances, *_group_cells(group))
        for group in analysis.by_speaker
    ]
    caption = "Test scores by speaker (%), averaged over seeds; intervals resample the speaker’s utterances"
    known = len(gender.keys() - {""})
    if len(rows) < known:
        caption += f"; the {len(rows)} of {known} speakers with the most utterances"
    header = ("speaker", "gender", "utterances", *_COLUMNS)
    return Table("speakers", caption, header, tuple(rows)) if rows else None


def speaker_genders(run: Run) -> dict[str, str]:
    """Return the gender of each test speaker, "" if it is unknown."""
    tested = (run.utterances[i] for i in tested_ids(run))
    return {row.speaker: row.gender for row in tested}


def answers(analysis: Analysis) -> Table | None:
    """Return what is left if the least confident predictions are withheld."""
    if analysis.results.target.kind != CLASSES or analysis.scaling is None:
        return None
    rows = [
        tuple(map(Score, (one.share, one.threshold, one.coverage, one.accuracy)))
        for one in analysis.scaling.answers
    ]
    header = ("validation answered", "threshold of confidence", "test answered", "WA of the answers")
    caption = "Predictions that are withheld below a threshold of confidence (%), averaged over replicas"
    return Table("answers", caption, header, tuple(rows))


def mistakes(analysis: Analysis) -> Table | None:
    """Return the most confident mistakes; None if there are none."""
    rows = tuple(
        (m.utterance, m.true, m.predicted, Score(m.confidence), f"{m.wrong} of {m.replicas}", m.transcript)
        for m in analysis.mistakes
    )
    header = ("utterance", "true", "predicted", "mean probability", "replicas that are wrong", "transcript")
    caption = "The most confident mistakes, with probabilities (%) averaged over the replicas that test the utterance"
    return Table("mistakes", caption, header, rows) if rows else None


def folds(run: Run) -> Table:
    """Return the number of utterances in each part of each fold, and the test speakers."""
    rows = []
    for fold in run.folds:
        names = sorted({run.utterances[i].speaker for i in fold.test} - {""})
        shown = ", ".join(names) if len(names) <= 6 else f"{len(names)} speakers"
        rows.append((fold.name, len(fold.train), len(fold.validation), len(fold.test), shown or "unknown"))
    header = ("fold", "training", "validation", "test", "test speakers")
    return Table("folds", "Utterances in each part of each fold", header, tuple(rows))


def replicas(run: Run) -> Table:
    """Return status, epochs, scores and overfitting of every replica."""
    is_sweep, target = run.results.is_sweep, run.results.target
    headline = target.headline
    epochs: dict[tuple[str, int, str], list[EpochRecord]] = defaultdict(list)
    for record in run.epochs:
        epochs[record.replica].append(record)
    rows = []
    for one in run.results.replicas:
        own = sorted(epochs[one.fold, one.seed, one.setting], key=lambda record: record.epoch)
        found = overfitting(own, one.best_epoch)
        identity = (one.fold, one.seed, one.setting) if is_sweep else (one.fold, one.seed)
        scores = (score(name, one.test[name] if one.test else None) for name in target.main)
        validation = score(headline, one.validation[headline] if one.validation else None)
        counts = (own[-1].epoch + 1 if own else 0, _epoch(one.best_epoch), _epoch(found.since))
        rows.append(
            (
                *identity,
                one.status,
                *counts,
                score(headline, found.gap),
                score(headline, found.last),
                validation,
                *scores,
            )
        )
    header = ("fold", "seed", *(("setting",) if is_sweep else ()), "status", "epochs", "best epoch")
    title = describe(headline).title
    overfits = (
        "overfits since",
        f"training minus validation {title}",
        f"validation {title} of the last epoch",
    )
    caption = (
        f"All replicas{unit(run)}. Training {title} is that of the training steps, with dropout and augmentation. "
        "A replica overfits since the epoch after its lowest validation loss, if this loss ends 5 % higher and the "
        "training loss lower"
    )
    names = (describe(name).title for name in target.main)
    return Table("replicas", caption, (*header, *overfits, f"validation {title}", *names), tuple(rows))


def _epoch(epoch: int | None) -> Cell:
    return "–" if epoch is None else epoch + 1


def settings(run: Run) -> Table | None:
    """Return the settings of a sweep; None if nothing was swept."""
    results = run.results
    if not results.is_sweep:
        return None
    metric = results.chosen_by.removeprefix("validation ")
    rows: list[tuple[Cell, ...]] = [
        (
            name,
            _selecting(found.validation_score(metric), metric),
            *(score(m, found.mean[m], found.std[m]) for m in results.target.compared),
        )
        for name, found in results.summaries.items()
    ]
    chosen_by = f"validation {metrics.title(metric)}"
    caption = f"Settings{unit(run)}; “{results.setting}” has the best {chosen_by} and is reported"
    names = (describe(m).title for m in results.target.compared)
    return Table("settings", caption, ("setting", chosen_by, *names), tuple(rows))


def _selecting(score: float | None, metric: str) -> Cell:
    """Return the value that selects settings: a score, or the loss, whose negative is compared."""
    if score is None:
        return Score(None)
    if metric == "loss":
        return f"{-score:.3f}"
    described = [describe(name) for name in metric.split("_plus_")]
    return Score(abs(score) if described[0].lower_is_better else score, in_percent=described[0].is_percentage)


def paper(run: Run, row: Printed) -> Table:
    """Return the paper's scores above those of the run.

    Both have the same kind of standard deviation.
    """
    found = run.results.summary
    std = {"folds": found.std_over_folds, "runs": found.std_over_runs}.get(row.std_over, {})
    names = [name for name in NAMES if name in row.scores]
    theirs = [Score(*row.scores[name]) for name in names]
    ours = [Score(found.mean[name], std.get(name)) for name in names]
    caption = f"Scores in the paper and of this run (%{f', ± over {row.std_over}' if row.std_over else ''})"
    rows: tuple[tuple[Cell, ...], ...] = ((f"{row.model} (table {row.table})", *theirs), ("this run", *ours))
    return Table("paper", caption, ("", *(NAMES[name] for name in names)), rows)


def best_possible(run: Run) -> Table | None:
    """Return the demo corpus's best possible scores above the run's.

    It is None for other corpora.
    """
    best = run.results.best_possible or {}
    known = {name: best[name] for name in OBSERVERS if name in best}
    if not known:
        return None
    found, bounded = run.results.summary, run.results.target.bounded
    rows: list[tuple[Cell, ...]] = [
        (OBSERVERS[name], *(score(m, value[m]) for m in bounded)) for name, value in known.items()
    ]
    rows.append(("this run", *(score(m, found.mean[m], found.std[m]) for m in bounded)))
    what = "accuracy (%)" if run.results.target.kind == CLASSES else "scores"
    caption = f"Best possible {what} by what a model uses, and this run (± over {found.std_over})"
    return Table("best_possible", caption, ("", *(describe(m).title for m in bounded)), tuple(rows))


def best_possible_score(run: Run, metric: str) -> Score:
    """Return the best possible score of a model that reads the same as the run's.

    It is a dash if it is unknown.
    """
    best = (run.results.best_possible or {}).get(run.results.observer, {})
    return score(metric, best.get(metric))


def interval_cells(interval: Interval | None) -> tuple[Score, Range]:
    """Return a pooled score and its interval, or dashes.

    If all resamples agree (a recall of 0 or 1), they say nothing about the spread, and the interval is a dash.
    """
    if interval is None:
        return Score(None), Range(None, None)
    agree, found = interval.low == interval.high, score(interval.metric, interval.value)
    ends = Range(None, None) if agree else Range(interval.low, interval.high, found.in_percent)
    return found, ends


def _group_cells(group: Group) -> tuple[Cell, ...]:
    return (*interval_cells(group.wa), *interval_cells(group.ua))
