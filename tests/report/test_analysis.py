"""Every statistic of a report is computed once."""

from collections import Counter
from functools import cached_property

import pytest

from helpers.fake_run import make_utterances, session_folds, write_fake_run
from jaxser.evaluation import run_folder
from jaxser.evaluation.run_folder import Run
from jaxser.report import calibration, checks, comparison_page, groups, page, temperature
from jaxser.report.page import Options

pytestmark = pytest.mark.usefixtures("few_draws")

UTTERANCES = make_utterances(140)
STATISTICS = {
    calibration: ("calibration", "mistakes"),
    checks: ("leaks", "exchanged"),
    temperature: ("scaling",),
    groups: ("by_class", "by_gender", "by_speaker"),
}


@pytest.fixture
def calls(monkeypatch):
    """Count the calls of every statistic, and of `intervals` by their utterances and arguments."""
    counts = Counter()

    def count(key, function):
        def counted(*args, **options):
            counts[key] += 1
            return function(*args, **options)

        return counted

    for module, names in STATISTICS.items():
        for name in names:
            monkeypatch.setattr(module, name, count(name, getattr(module, name)))
    intervals = groups.intervals

    def counted_intervals(run, by, **options):
        tested = tuple(sorted(set(run.predictions.utterance.tolist())))
        counts["intervals", run.folder, tested, by] += 1
        return intervals(run, by, **options)

    monkeypatch.setattr(groups, "intervals", counted_intervals)
    selected = Run.test_predictions.func
    counted_selection = cached_property(
        lambda run: count(("test predictions", run.folder, len(run.predictions.true), id(run)), selected)(run)
    )
    counted_selection.__set_name__(Run, "test_predictions")
    monkeypatch.setattr(Run, "test_predictions", counted_selection)
    return counts


def test_report_of_a_run_computes_every_statistic_once(tmp_path, calls):
    write_fake_run(tmp_path, epochs=1)
    page.write(tmp_path)
    names = {name for of_module in STATISTICS.values() for name in of_module}
    assert {name: calls[name] for name in names} == dict.fromkeys(names, 1)
    whole = len(run_folder.read_run(tmp_path).predictions.true)
    assert [n for key, n in calls.items() if key[:3] == ("test predictions", tmp_path, whole)] == [1]
    intervals = {key: n for key, n in calls.items() if key[0] == "intervals"}
    assert len(intervals) > 10
    assert set(intervals.values()) == {1}


def test_comparison_computes_every_statistic_once_per_run(tmp_path, calls):
    for draw, name in enumerate(("a", "b", "c")):
        folds = session_folds(UTTERANCES)
        write_fake_run(tmp_path / name, utterances=UTTERANCES, folds=folds, epochs=1, draw=draw)
    runs = [run_folder.read_run(tmp_path / name) for name in ("a", "b", "c")]
    comparison_page.write(runs, tmp_path / "out", Options())
    names = {name for of_module in STATISTICS.values() for name in of_module} - {"scaling"}
    assert {name: calls[name] for name in names} == dict.fromkeys(names, 3)
    whole = len(runs[0].predictions.true)
    assert [n for key, n in calls.items() if key[0] == "test predictions" and key[2] == whole] == [1, 1, 1]
    assert {n for key, n in calls.items() if key[0] == "intervals"} == {1}
