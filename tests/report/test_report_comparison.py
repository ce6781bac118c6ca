"""Comparisons of several runs, and results imported from other frameworks."""

import csv
import dataclasses
import re
import sys
import xml.etree.ElementTree as ET

import matplotlib
import numpy as np
import pytest
import soundfile
from matplotlib.backends.backend_agg import FigureCanvasAgg

from helpers.fake_run import BEST, make_utterances, session_folds, with_fields, write_fake_run
from jaxser import report
from jaxser.data.leaks import FoldIds
from jaxser.data.shards import read_records
from jaxser.evaluation import comparisons, run_folder, run_scores
from jaxser.report import (
    calibration,
    checks,
    comparison,
    comparison_page,
    comparison_tables,
    imports,
    latex,
    plots,
    tables,
)
from jaxser.report.__main__ import main
from jaxser.report.analysis import Analysis
from jaxser.report.comparison_plots import critical_difference
from jaxser.report.page import Options
from jaxser.report.style import STYLE
from jaxser.types import InputError, UsageError

UTTERANCES = make_utterances(140)
QUALITY = {"good": 2.6, "fair": 2.4, "middle": 2.0, "poor": 1.3, "odd": 2.4}


pytestmark = pytest.mark.usefixtures("few_draws")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Five runs of different quality; the run "odd" tests one utterance less."""
    folder = tmp_path_factory.mktemp("runs")
    folds = session_folds(UTTERANCES)
    short = FoldIds(folds[0].name, folds[0].train, folds[0].validation, folds[0].test[1:])
    for draw, (name, quality) in enumerate(QUALITY.items()):
        own = [short, *folds[1:]] if name == "odd" else folds
        options = {"utterances": UTTERANCES, "folds": own, "epochs": 2}
        write_fake_run(folder / name, quality=quality, draw=draw, **options)
    return folder


@pytest.fixture(scope="module")
def page(runs):
    """The comparison of all five runs and an import of one of them, as the command writes it."""
    write_predictions(runs / "theirs.csv", run_folder.read_run(runs / "fair"))
    with pytest.MonkeyPatch.context() as patch:
        given = [*(str(runs / name) for name in QUALITY), "--import", str(runs / "theirs.csv")]
        where = ["--out", str(runs / "out"), "--imported_to", str(runs / "imported")]
        patch.setattr("sys.argv", ["report", *given, *where])
        assert main() == 0
    return (runs / "out" / "index.html").read_text(encoding="utf-8")


def write_predictions(path, run, renamed=None, probabilities=True):
    """Write the test predictions of a run as another framework might do."""
    p = run.predictions
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        more = [f"p_{name}" for name in p.classes] if probabilities else []
        writer.writerow(["utterance", "fold", "seed", "true", "predicted", *more])
        for row in np.flatnonzero(p.split == "test"):
            taken = p.classes[p.predicted[row]]
            named = [p.classes[p.true[row]], (renamed or {}).get(taken, taken)]
            own = p.probabilities[row].tolist() if probabilities else []
            writer.writerow([p.utterance[row], p.fold[row], p.seed[row], *named, *own])


# The page


def test_page_is_well_formed_loads_nothing_and_names_what_is_not_compared(page):
    root = ET.fromstring(page)
    ids = [e.get("id") for e in root.iter() if e.get("id")]
    assert len(set(ids)) == len(ids)
    assert set(re.findall(r'(?:href="|url\()#([^")]+)', page)) <= set(ids)
    assert "http" not in page.replace("http-equiv", "")
    assert not {"script", "link"} & {e.tag for e in root.iter() if e.get("href") != "data:,"}
    (sentence,) = [e.text for e in root.find(".//*[@id='refused']")]
    assert sentence.startswith("Not compared: good and odd test different utterances in fold 1")


def test_matrix_shows_the_numbers_of_the_tests(page, runs):
    rows = ET.fromstring(page).find(".//*[@id='table-matrix-a']").find("tbody")
    names = [row[0].text for row in rows]
    assert sorted(names) == ["fair", "good", "middle", "poor", "theirs"]
    read = {name: run_folder.read_run(runs / name) for name in QUALITY if name != "odd"}
    read["theirs"] = run_folder.read_run(runs / "imported" / "theirs")
    ranking = comparisons.compare_all([read[name] for name in names], "ua")
    for one in ranking.comparisons:
        cell = rows[names.index(one.a)][1 + names.index(one.b)]
        shown = "".join(cell.itertext())
        assert float(cell.find("data").get("value")) == pytest.approx(one.difference)
        assert f"p = {one.p:.2g}" in shown
        assert f"detectable {100 * one.corrected.detectable:.1f}" in shown
        assert (cell.get("class") == "significant") == one.significant
        back = rows[names.index(one.b)][1 + names.index(one.a)]
        assert float(back.find("data").get("value")) == pytest.approx(-one.difference)
    text = " ".join("".join(ET.fromstring(page).itertext()).split())
    assert all(str(one) in text for one in ranking.comparisons)


def test_no_name_is_cut_off_or_hides_a_curve(runs):
    read = {f"a_run_with_a_long_name_{n}": run_folder.read_run(runs / "good") for n in range(10)}
    ranking = comparisons.compare_all(
        [run_folder.read_run(runs / name) for name in ("good", "fair", "poor")], "ua"
    )
    ranking = dataclasses.replace(ranking, runs=tuple(read)[:3])
    with matplotlib.rc_context(STYLE):
        ranks = critical_difference(ranking)
        curves = plots.learning_curve(read, "Validation UA (%)", plots.validation_score, share=True)
        for figure in (ranks, curves):
            FigureCanvasAgg(figure).draw()
    [legend] = curves.legends
    for figure, texts in ((ranks, ranks.axes[0].texts), (curves, legend.get_texts())):
        for text in texts:
            box = text.get_window_extent()
            assert figure.bbox.x0 <= box.x0 <= box.x1 <= figure.bbox.x1, text.get_text()
    assert legend.get_window_extent().y1 < curves.axes[0].get_window_extent().y0
    strokes = {(line.get_color(), str(line.get_linestyle())) for line in legend.get_lines()}
    assert len(strokes) == 10


def test_files_next_to_the_page(page, runs):
    out = runs / "out"
    names = {path.stem for path in (out / "figures").glob("*.png")}
    assert names == {path.stem for path in (out / "figures").glob("*.svg")}
    assert {"scores-a", "ranks-a", "calibration-a", "loss-a", "confusion-5-a", "scores-b"} <= names
    with (out / "tables" / "scores-a.csv").open(newline="") as file:
        lines = {line["run"]: line for line in csv.DictReader(file)}
    summary = run_folder.read_run(runs / "good").results.summary
    assert float(lines["good"]["UA"]) == summary.mean["ua"]
    assert float(lines["good"]["UA ±"]) == summary.std_over_folds["ua"]
    tex = (out / "tables.tex").read_text()
    assert tex.count(r"\begin{tabular}") == tex.count(r"\bottomrule") == len(list((out / "tables").iterdir()))
    assert r"\textbf{" in tex
    assert r"$^\dagger$" in tex
    assert "Demo numbers: synthetic speech." in (out / "tables.md").read_text()


def test_best_scores_are_bold_and_significant_differences_marked(runs):
    read = [run_folder.read_run(runs / name) for name in ("poor", "good", "fair")]
    ((found,), refused) = comparison.comparable_sets([Analysis(run) for run in read], "ua")
    assert refused == ()
    table = comparison_tables.scores(found)
    ua = {row[0]: row[table.header.index("UA")] for row in table.rows}
    means = {
        name: run_scores.spread(run, "ua").mean
        for name, run in zip(("poor", "good", "fair"), read, strict=True)
    }
    best = max(means, key=means.get)
    assert {name for name, cell in ua.items() if cell.best} == {best}
    for name in means.keys() - {best}:
        assert bool(ua[name].mark) == found.pair(name, best, "ua").significant
    assert ua["poor"].mark
    assert "Holm’s correction for 3 comparisons" in table.caption
    ceilings = {row[table.header.index("UA, best possible")].mean for row in table.rows}
    assert ceilings == {BEST["joint"]["ua"]}


def test_runs_of_one_fold_are_compared_by_their_predictions(tmp_path):
    folds = session_folds(UTTERANCES)[:1]
    for draw, name in enumerate(("a", "b")):
        write_fake_run(tmp_path / name, utterances=UTTERANCES, folds=folds, draw=draw, quality=3 - 2 * draw)
    read = [run_folder.read_run(tmp_path / name) for name in ("a", "b")]
    ((found,), _) = comparison.comparable_sets([Analysis(run) for run in read], "ua")
    (pair,) = found.pairs["ua"]
    assert pair.p == comparisons.compare_predictions(*read).p
    assert "the smallest true difference" in pair.verdict
    assert not found.rankings


def test_runs_of_other_classes_are_not_compared(tmp_path, runs):
    four = tuple(sorted({u.label for u in UTTERANCES}))[::-1]
    write_fake_run(tmp_path / "other", utterances=UTTERANCES, classes=four, epochs=1)
    sets, (sentence,) = comparison.comparable_sets(
        [Analysis(run_folder.read_run(folder)) for folder in (runs / "good", tmp_path / "other")], "ua"
    )
    assert [found.name for found in sets] == ["A", "B"]
    assert "have different classes" in sentence


def test_latex_is_escaped():
    cells = ("a_b & 50 % {x} \\cmd ~^<>", tables.Score(0.5, 0.25, True, " †"), tables.Range(0.1, None))
    made = latex.table(tables.Table("t", "c #1", ("x", "y", "z"), (cells,)))
    assert r"a\_b \& 50 \% \{x\} \textbackslash{}cmd" in made
    assert r"\textasciitilde{}\textasciicircum{}\textless{}\textgreater{}" in made
    assert r"\textbf{50.0 $\pm$ 25.0}$^\dagger$" in made
    assert r"\caption{c \#1}" in made
    assert r"\begin{tabular}{lrr}" in made


def test_latex_takes_no_text_for_arguments_or_dashes():
    made = latex.table(tables.Table("t", "c", ("[h]", "b"), (("*", "a--b"), ("[1]", "`x")))).splitlines()
    rows = [line for line in made if "&" in line]
    assert rows == [r"{[}h{]} & b \\", r"{*} & a-{}-b \\", r"{[}1{]} & \textasciigrave{}x \\"]
    latin = latex.document([tables.Table("t", "c", ("ü", "“x”"), ((1, 2),))])
    assert "pdfLaTeX" not in latin
    other = latex.document([tables.Table("t", "c", ("怒", "😠"), ((1, 2),))])
    assert other.splitlines()[1:3] == [
        "% pdfLaTeX lacks 2 of the characters: 怒 😠",
        r"% Use XeLaTeX or LuaLaTeX: \usepackage{fontspec} \setmainfont{a font that has them}",
    ]


def test_latex_typesets_numbers():
    row = ("run-2, 2026-11-21", "-1.8 to -5.2", "7.4e-05", *("x",) * 4)
    made = latex.table(tables.Table("t", "c", tuple("abcdefg"), (row,)))
    assert r"run-2, 2026-11-21 & $-$1.8 to $-$5.2 & $7.4\cdot10^{-5}$ & x" in made
    assert r"\resizebox{\linewidth}{!}{%" in made


# Planted errors


def test_planted_leaks_are_counted_and_listed(tmp_path):
    moved = with_fields(UTTERANCES, 0, speaker=UTTERANCES[14].speaker)
    moved = with_fields(moved, 1, sha256=UTTERANCES[15].sha256)
    write_fake_run(tmp_path / "leaky", utterances=moved, folds=session_folds(UTTERANCES), epochs=1, seeds=1)
    text = " ".join("".join(ET.fromstring(report.write(tmp_path / "leaky").read_text()).itertext()).split())
    run = run_folder.read_run(tmp_path / "leaky")
    table = checks.leak_table(checks.find_leaks(run), run)
    rows = {row[:2]: row[2:] for row in table.rows}
    assert rows["byte-identical recordings", "training and test"] == (1, 1, "1 of 5")
    assert rows["byte-identical recordings", "validation and test"] == (1, 1, "1 of 5")
    assert rows["speakers", "training and test"][0] == 1
    assert rows["transcripts", "training and test"] == (0, 0, "0 of 5")
    assert f"“{UTTERANCES[15].sha256}”" in text
    assert UTTERANCES[0].id in text
    card = (tmp_path / "leaky" / "report" / "card.md").read_text()
    assert "Byte-identical recordings are in both" in card
    assert "has never heard a person" in card


def test_exchanged_labels_are_detected(runs, tmp_path):
    run = run_folder.read_run(runs / "good")
    assert checks.exchanged(run.test_predictions) == []
    write_predictions(tmp_path / "swapped.csv", run, {"ang": "sad", "sad": "ang"}, probabilities=False)
    swapped = imports.import_csv(tmp_path / "swapped.csv", tmp_path / "run")
    (sentence,) = checks.exchanged(swapped.test_predictions)
    assert sentence.startswith("Labels may be exchanged: ang is predicted as sad, sad is predicted as ang.")


def test_leak_is_reported_once_for_all_runs_that_have_it(tmp_path):
    planted = with_fields(UTTERANCES, 0, sha256=UTTERANCES[-1].sha256)
    for draw, (name, utterances) in enumerate({"one": planted, "two": planted, "sound": UTTERANCES}.items()):
        options = {"utterances": utterances, "folds": session_folds(UTTERANCES), "epochs": 1, "seeds": 1}
        write_fake_run(tmp_path / name, draw=draw, **options)
    read = [run_folder.read_run(tmp_path / name) for name in ("one", "two", "sound")]
    out = comparison_page.write(read, tmp_path / "out", Options())
    listed = [line for line in (tmp_path / "out" / "tables.md").read_text().splitlines() if line[:2] == "- "]
    assert sum("Byte-identical" in line for line in listed) == 1
    assert any(line.startswith("- one, two: Byte-identical recordings") for line in listed)
    section = ET.fromstring(out.read_text(encoding="utf-8")).find(".//*[@id='warnings']")
    assert [e.text for e in section.iter("h3")] == ["one, two"]
    assert section.find("p").text.startswith("sound: No utterances, byte-identical recordings, speakers,")


# Imports


def test_import_has_the_scores_of_the_original_run(page, runs):
    run, theirs = run_folder.read_run(runs / "fair"), run_folder.read_run(runs / "imported" / "theirs")
    for part in ("mean", "std_over_folds", "pooled"):
        ours = getattr(run.results.summary, part)
        assert getattr(theirs.results.summary, part) == pytest.approx(ours)
    assert theirs.utterances[UTTERANCES[0].id].speaker == UTTERANCES[0].speaker  # from the other runs
    found = comparisons.compare(run, theirs)
    assert not any(found.by_fold)
    ours, other = Analysis(run).calibration, Analysis(theirs).calibration
    assert other.error == pytest.approx(ours.error, abs=1e-5)


def test_leak_checks_of_an_import_assume_training_on_everything_else(runs, tmp_path):
    write_predictions(tmp_path / "x.csv", run_folder.read_run(runs / "good"), probabilities=False)
    with (tmp_path / "who.csv").open("w", newline="") as file:
        rows = [(u.id, "shared" if n % 70 == 0 else u.speaker) for n, u in enumerate(UTTERANCES)]
        csv.writer(file).writerows([("utterance", "speaker"), *rows])
    run = imports.import_csv(tmp_path / "x.csv", tmp_path / "x", utterances=tmp_path / "who.csv")
    assert not any(fold.train for fold in run.folds)
    moved = with_fields(with_fields(UTTERANCES, 0, speaker="shared"), 70, speaker="shared")
    assert len({u.session for u in moved if u.speaker == "shared"}) == 1
    assert run.results.warnings == ()  # both utterances are in the same test part
    assert Analysis(run).calibration is None
    report.write(tmp_path / "x")
    rows[14] = (UTTERANCES[14].id, "shared")
    with (tmp_path / "who.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("utterance", "speaker"), *rows])
    run = imports.import_csv(tmp_path / "x.csv", tmp_path / "x", utterances=tmp_path / "who.csv")
    (warning,) = run.results.warnings
    assert warning.startswith("Speakers are in both training and test")


def test_errors_in_a_file_are_explained(tmp_path, runs):
    head, good = "utterance,fold,seed,true,predicted", "a,1,0,ang,sad"
    for text, message in (
        ("utterance,fold,true,predicted\n", "has no column seed"),
        (f"{head}\n", "has no lines below its header"),
        (
            f"{head}\n{good}\na,1,1,sad,sad\n",
            "x.csv:3 contradicts another line: utterance a is ang in one line and sad in another",
        ),
        (
            f"{head}\n{good}\n{good}\n",
            "x.csv:3 is a repetition: utterance a has two lines for fold 1, seed 0",
        ),
        (f"{head}\n{good}\nb,1,0,ang\n", "x.csv:3 is incomplete"),
        (f"{head}\na,1,zero,ang,sad\n", "seed 'zero', which is not a whole number"),
        (f"{head},p_ang,p_sad\n{good},0.4,0.4\n", "x.csv:2 has probabilities that do not sum to 1"),
    ):
        (tmp_path / "x.csv").write_text(text)
        with pytest.raises(InputError, match=message):
            imports.import_csv(tmp_path / "x.csv", tmp_path / "run")
    with pytest.raises(UsageError, match="has a run that was trained"):
        imports.import_csv(tmp_path / "x.csv", runs / "good")


def test_command_needs_a_run(monkeypatch, capsys, runs):
    monkeypatch.setattr("sys.argv", ["report"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    monkeypatch.setattr("sys.argv", ["report", str(runs / "good"), str(runs / "fair"), "--metric", "auc"])
    assert main() == 2
    assert "--metric=auc is not one of wa, ua, f1_weighted" in capsys.readouterr().err


# Calibration, mistakes, players, event files


def test_calibration_error_matches_a_hand_computation():
    """Two bins: confidence 0.9 is correct half of the time, 0.6 always."""
    confidence, right = np.array([0.9, 0.9, 0.6, 0.6]), np.array([True, False, True, True])
    count, sure, accurate = calibration._bins(confidence, right)
    error = np.nansum(count * np.abs(sure - accurate)) / 4
    assert error == pytest.approx((0.4 + 0.4) / 2)
    assert count[[8, 13]].tolist() == [2, 2]  # 0.6 is the upper edge of its bin


def test_mistakes_are_wrong_and_sorted_by_confidence(runs):
    run = run_folder.read_run(runs / "poor")
    found = Analysis(run).mistakes
    assert len(found) == calibration.MAX_MISTAKES
    assert [m.confidence for m in found] == sorted((m.confidence for m in found), reverse=True)
    p = run.test_predictions
    for m in found:
        own = p.utterance == m.utterance
        mean = p.probabilities[own].mean(axis=0)
        assert m.confidence == mean.max()
        assert m.predicted == p.classes[mean.argmax()] != m.true == run.utterances[m.utterance].label
        assert m.wrong == (p.predicted != p.true)[own].sum()


def test_players_are_embedded(runs, monkeypatch, tmp_path, capsys):
    (first, *_) = Analysis(run_folder.read_run(runs / "poor")).mistakes
    (tmp_path / "wavs" / "deep").mkdir(parents=True)
    soundfile.write(tmp_path / "wavs" / "deep" / f"{first.utterance}.wav", np.zeros((800, 2)), 16000)
    monkeypatch.setattr("sys.argv", ["report", str(runs / "poor"), "--audio", str(tmp_path / "wavs")])
    assert main() == 0
    page = (runs / "poor" / "report" / "index.html").read_text()
    (player,) = ET.fromstring(page).iter("audio")
    assert player.get("src").startswith("data:audio/flac;base64,ZkxhQ")  # fLaC
    monkeypatch.setattr("sys.argv", ["report", str(runs / "poor"), "--audio", str(tmp_path / "nowhere")])
    assert main() == 1
    assert "nowhere is not a folder" in capsys.readouterr().err


def test_event_files_have_the_curves_of_every_replica(runs, monkeypatch):
    """Our own reader checks the framing, and protobuf decodes the messages."""
    from tensorboardX.proto import event_pb2

    monkeypatch.setattr("sys.argv", ["report", str(runs / "poor"), "--tensorboard"])
    for _ in range(2):  # the second call replaces the files of the first
        assert main() == 0
    epochs = run_folder.read_run(runs / "poor").epochs
    folders = sorted((runs / "poor" / "tensorboard").iterdir())
    assert [folder.name for folder in folders] == sorted({f"fold-{e.fold}_seed-{e.seed}" for e in epochs})
    for folder in folders:
        (file,) = folder.iterdir()
        assert file.name == "events.out.tfevents.0000000000.jaxser"
        version, *events = map(event_pb2.Event.FromString, read_records(file))
        assert version.file_version == "brain.Event:2"
        scalars = {
            (event.step, value.tag): (value.simple_value, event.wall_time)
            for event in events
            for value in event.summary.value
        }
        own = [e for e in epochs if f"fold-{e.fold}_seed-{e.seed}" == folder.name]
        assert {step for step, _ in scalars} == {1, 2}
        for e in own:
            expected = {
                "train_loss": e.train_loss,
                "learning_rate": e.learning_rate,
                "validation/loss": e.validation_loss,
                "validation/ua": e.validation["ua"],
            }
            for tag, value in expected.items():
                found, seconds = scalars[e.epoch + 1, tag]
                assert found == pytest.approx(value, rel=1e-6)
                assert seconds == pytest.approx(1.5 * (e.epoch + 1))


def test_missing_tensorboardx_is_one_line(runs, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    monkeypatch.setattr("sys.argv", ["report", str(runs / "poor"), "--tensorboard"])
    assert main() == 2
    assert "--tensorboard needs tensorboardX, which is not installed" in capsys.readouterr().err
