"""The tables of a comparison of several runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jaxser import corpora
from jaxser.data.across import LEAVE_ONE_OUT
from jaxser.evaluation.metrics import describe
from jaxser.evaluation.run_scores import NAMES, Spread
from jaxser.evaluation.targets import ATTRIBUTES, CLASSES, VOTES, Classes
from jaxser.papers import emobox
from jaxser.report import across, groups
from jaxser.report.analysis import Analysis
from jaxser.report.comparison import Comparable, deciding_test
from jaxser.report.protocols import corpus_title
from jaxser.report.run_tables import best_possible_score, interval_cells, score, unit
from jaxser.report.tables import Cell, Number, Range, Score, Table

DEFINITIONS = (
    "WA is the accuracy over all utterances, UA the mean of the per-class recalls, and weighted F1 the mean of the "
    "per-class F1 weighted by the number of utterances."
)

DEFINITIONS_OF_ATTRIBUTES = (
    "CCC is the concordance correlation coefficient, Pearson the correlation, and RMSE the root mean square error on "
    "the scale of the corpus, each averaged over attributes."
)

DEFINITIONS_OF_VOTES = (
    "Divergences are between votes and predictions, in bits; macro F1 is over classes with a share above 1/C; the "
    "entropy error is the mean absolute difference of entropies; WA and UA are over utterances with a majority."
)

_DEFINITIONS = {
    CLASSES: DEFINITIONS,
    ATTRIBUTES: DEFINITIONS_OF_ATTRIBUTES,
    VOTES: DEFINITIONS_OF_VOTES,
}
_OTHERS = ("wilcoxon", "by_utterance", "unpaired")
_BY_UTTERANCE = {CLASSES: "p McNemar", ATTRIBUTES: "p squared errors", VOTES: "p divergences"}


def all_tables(found: Comparable) -> dict[str, Table | None]:
    """Return every table of a set by its name in the template; None if it does not apply."""
    if found.target.kind != CLASSES:
        return {
            "scores": scores(found),
            "comparisons": comparisons(found),
            "attributes": by_attribute(found) if found.target.kind == ATTRIBUTES else None,
        }
    return {
        "scores": scores(found),
        "comparisons": comparisons(found),
        "recalls": recalls(found),
        "worst": worst(found),
        "genders": genders(found),
        "speakers": speakers(found),
    }


def scores(found: Comparable) -> Table:
    """Return means and standard deviations.

    The best are bold, and scores that differ from them are marked.
    """
    runs, compared = found.runs, found.target.compared
    spreads = {metric: {run.name: run.spread(metric) for run in runs} for metric in compared}
    best = {metric: _best(of, metric) for metric, of in spreads.items()}
    known = [metric for metric in compared if metric in found.target.bounded]
    known = known if any(run.results.best_possible for run in runs) else []
    over = "folds" if len(runs[0].run.folds) > 1 else "seeds"
    rows: list[tuple[Cell, ...]] = []
    for run in runs:
        cells = (_score(found, spreads[m][run.name], run.name, best[m], over) for m in compared)
        ceilings = (best_possible_score(run.run, m) for m in known)
        rows.append((run.name, run.results.summary.seeds, *cells, *ceilings))
    titles = {metric: describe(metric).title for metric in compared}
    header = ("run", "seeds", *titles.values(), *(f"{titles[m]}, best possible" for m in known))
    return Table(f"scores{found.suffix}", _scores_caption(found, over), header, tuple(rows))


def comparisons(found: Comparable) -> Table | None:
    """Return every pair and metric, with the other tests for reference."""
    rows: list[tuple[Cell, ...]] = []
    for metric in found.target.compared:
        for pair in found.pairs[metric]:
            others = [getattr(pair.details, name, None) for name in _OTHERS]
            described = describe(metric)
            rows.append(
                (
                    described.title,
                    pair.a,
                    pair.b,
                    score(metric, pair.difference),
                    Range(pair.low, pair.high, described.is_percentage),
                    Number(pair.p),
                    score(metric, pair.detectable),
                    *("–" if test is None else Number(test.p) for test in others),
                )
            )
    by_utterance = _BY_UTTERANCE[found.target.kind]
    columns = ("metric", "run", "minus", "difference", "95 % interval", "p (Holm)", "detectable")
    header = (*columns, "p Wilcoxon", by_utterance, "p unpaired t")
    in_points = " in points" if found.target.kind == CLASSES else ""
    caption = (
        f"Differences{in_points}. {deciding_test(found)} decides; “detectable” is the smallest true difference that it "
        "finds with 80 % power. Intervals are for each pair by itself; the other p values are uncorrected and for "
        "reference only."
    )
    return Table(f"comparisons{found.suffix}", caption, header, tuple(rows)) if rows else None


def by_attribute(found: Comparable) -> Table:
    """Return the scores of every attribute by run."""
    target = found.target
    names = [f"{metric}_{name}" for name in target.names for metric in target.compared]
    rows: list[tuple[Cell, ...]] = []
    for run in found.runs:
        own = run.results.summary
        rows.append((run.name, *(score(m, own.mean.get(m), own.std_over_folds.get(m)) for m in names)))
    caption = "Scores by attribute, mean ± standard deviation over folds"
    header = ("run", *(describe(name).title for name in names))
    return Table(f"attributes{found.suffix}", caption, header, tuple(rows))


def recalls(found: Comparable) -> Table:
    """Return the recall of every class by run."""
    classes = found.runs[0].results.classes
    rows: list[tuple[Cell, ...]] = []
    for run in found.runs:
        own = run.results.summary
        recall = (Score(own.recall_mean.get(c), own.recall_std_over_folds.get(c)) for c in classes)
        rows.append((run.name, *recall))
    caption = "Recall by class (%), mean ± standard deviation over folds"
    return Table(f"recalls{found.suffix}", caption, ("run", *classes), tuple(rows))


def worst(found: Comparable) -> Table | None:
    """Return the class, gender and speaker with the lowest score of each run."""
    rows: list[tuple[Cell, ...]] = []
    for kind in ("class", "gender", "speaker"):
        for run in found.runs:
            for one in run.worst:
                if one.kind == kind:
                    cells = interval_cells(one.score)
                    rows.append((run.name, kind, one.group.name, one.group.utterances, one.metric, *cells))
    header = ("run", "group", "lowest", "utterances", "score", "pooled", "95 % interval")
    caption = f"The lowest class, gender and speaker of each run (%); intervals {groups.CLUSTERED}"
    return Table(f"worst{found.suffix}", caption, header, tuple(rows)) if rows else None


def genders(found: Comparable) -> Table | None:
    """Return UA by gender and run; None unless two genders are known."""
    rows: list[tuple[Cell, ...]] = []
    for run in found.runs:
        for group in run.by_gender:
            rows.append((run.name, group.name, group.utterances, *interval_cells(group.ua)))
    caption = f"UA by gender (%); intervals {groups.CLUSTERED}"
    header = ("run", "gender", "utterances", "UA", "95 % interval")
    return Table(f"genders{found.suffix}", caption, header, tuple(rows)) if rows else None


def speakers(found: Comparable) -> Table | None:
    """Return UA of every speaker by run; None if no speakers are known."""
    by_run = [{group.name: group.ua for group in run.by_speaker} for run in found.runs]
    rows: list[tuple[Cell, ...]] = []
    for group in found.runs[0].by_speaker:
        own = [of.get(group.name) for of in by_run]
        rows.append((group.name, group.utterances, *(Score(ua.value if ua else None) for ua in own)))
    header = ("speaker", "utterances", *(run.name for run in found.runs))
    caption = "UA by speaker (%), averaged over seeds; the report of each run has the intervals"
    return Table(f"speakers{found.suffix}", caption, header, tuple(rows)) if rows else None


def matrix(runs: Sequence[Analysis], metric: str = "ua") -> Table | None:
    """Return what each run was trained on, and its score on each corpus.

    It is None if no run has several datasets.
    Below runs of a pair that is in EmoBox's table, there are its accuracies.
    """
    if not any(one.results.by_corpus for one in runs):
        return None
    rows_of = {one.name: (_trained_on(one), _scores(one, metric)) for one in runs}
    tested = list(dict.fromkeys(name for _, scores in rows_of.values() for name in scores))
    rows: list[tuple[Cell, ...]] = []
    for name, (trained, scores) in rows_of.items():
        rows.append((name, trained, *(_cell(scores.get(one)) for one in tested)))
    measured = {
        (one.results.dataset, name) for one in runs for name in _scores(one, metric) if one.results.by_corpus
    }
    trained_on = [one for one in emobox.CORPORA if any((one, name) in measured for name in emobox.CORPORA)]
    for corpus in trained_on:
        for encoder, accuracies in emobox.ACCURACIES.items():
            cells = [_cell(accuracies.get((corpus, name))) for name in tested]
            rows.append((f"EmoBox: {encoder}", corpora.find(corpus).title, *cells))
    title = describe(metric).title
    caption = f"{title} on each corpus, averaged over folds and seeds"
    if trained_on:
        caption += (
            "; in EmoBox’s rows, the accuracy on balanced test sets of four classes (Ma et al. 2024, table 5)"
        )
    header = ("run", "trained on", *(f"on {corpora.find(name).title}" for name in tested))
    return Table("across", caption, header, tuple(rows))


def printed(runs: Sequence[Analysis]) -> Table | None:
    """Return the papers' scores, each above those of the run.

    It is None if no run reproduces a paper's row.
    """
    rows: list[tuple[Cell, ...]] = []
    for run in runs:
        if row := run.printed:
            kind = f"over {row.std_over}" if row.std_over else "not given"
            source = f"{row.model} ({row.paper.split('_')[0]}, table {row.table})"
            theirs = (Score(*row.scores[m]) if m in row.scores else "–" for m in Classes.compared)
            rows.append((source, row.protocol["dataset"], kind, *theirs))
            own = run.results.summary
            stds: Mapping[str, float | None] = {
                "folds": own.std_over_folds,
                "runs": own.std_over_runs,
            }.get(row.std_over, {})
            rows.append(
                (
                    run.name,
                    corpus_title(run),
                    kind,
                    *(Score(own.mean[m], stds.get(m)) for m in Classes.compared),
                )
            )
    header = ("", "corpus", "±", *(NAMES[metric] for metric in Classes.compared))
    caption = (
        "The papers’ scores (%), each above the run of the same variant. Scores on different corpora or under "
        "different protocols cannot be compared. WA and UA are as defined above, even if a paper "
        "exchanges the names."
    )
    return Table("printed", caption, header, tuple(rows)) if rows else None


def _trained_on(analysis: Analysis) -> str:
    names = across.names_of(analysis.config)
    if names is None:
        return analysis.corpus.title
    if analysis.results.protocol.get("name") == LEAVE_ONE_OUT:
        return f"the others of {across.listed(names.training)}"
    return across.listed(names.training)


def _scores(analysis: Analysis, metric: str) -> dict[str, float | None]:
    """Return the score of a run on each corpus."""
    if analysis.results.by_corpus:
        return {name: scores[metric] for name, scores in analysis.results.by_corpus.items()}
    return {analysis.results.dataset: analysis.results.summary.mean.get(metric)}


def _cell(value: float | None) -> Cell:
    return "–" if value is None else Score(value)


def _best(spreads: Mapping[str, Spread], metric: str) -> str:
    """Return the name of the run with the best mean."""
    gain = describe(metric).gain
    return max(spreads, key=lambda name: gain(spreads[name].mean))


def _score(found: Comparable, spread: Spread, name: str, best: str, over: str) -> Score:
    """Return a score of a run; `best` is the name of the best run."""
    pair = found.pair(name, best, spread.metric)
    std = spread.over_folds if over == "folds" else spread.over_seeds
    mark = " †" if pair and pair.significant else ""
    in_percent = describe(spread.metric).is_percentage
    return Score(spread.mean, std, name == best and len(found.runs) > 1, mark, in_percent)


def _scores_caption(found: Comparable, over: str) -> str:
    first = found.runs[0]
    folds = len(first.run.folds)
    has_classes = found.target.kind == CLASSES
    what = f"{len(first.results.classes)} classes" if has_classes else ", ".join(found.target.names)
    definitions = _DEFINITIONS[found.target.kind]
    caption = (
        f"Test scores{unit(first.run)} on {first.corpus_name}, {what}, "
        f"{folds} fold{'s' if folds != 1 else ''}: mean ± standard deviation over {over}. {definitions}"
    )
    if len(found.runs) < 2:
        return caption
    return f"{caption} Bold: the best. †: differs significantly from the best. {deciding_test(found)}."
