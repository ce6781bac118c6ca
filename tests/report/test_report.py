"""Reports of one run: well-formed, self-contained HTML with the numbers of results.json, for any corpus."""

import csv
import re
import xml.etree.ElementTree as ET
from collections import Counter
from dataclasses import replace
from decimal import Decimal
from importlib import import_module

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score

from helpers.fake_run import make_utterances, session_folds, with_fields, write_fake_run
from jaxser import papers, report
from jaxser.evaluation import intervals, run_folder
from jaxser.evaluation.pretrained import PretrainedEncoder
from jaxser.evaluation.results import RunResults
from jaxser.inference import figure_text
from jaxser.report import groups, media, run_tables, style, tables
from jaxser.report.__main__ import main
from jaxser.report.analysis import Analysis
from jaxser.types import InputError

HOSTILE = "<script>alert('x')</script> & \"$\\frac$\" |*_ --> ]]> [31m"
"""Text that tries to be markup."""

CONTROLS = "\x1b[2J\x00\x9b\u202e"
"""What a terminal obeys and XML forbids."""


def page_of(folder, **options):
    value = write_fake_run(folder, **options)
    return value, report.write(folder).read_text(encoding="utf-8")


pytestmark = pytest.mark.usefixtures("few_draws")


@pytest.fixture(scope="module")
def fake(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return folder, *page_of(folder)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A run whose texts all try to be markup, with speakers and sentences that are shared by all parts."""
    folder = tmp_path_factory.mktemp("run")
    utterances = make_utterances(140)
    folds = session_folds(utterances)
    for row in range(0, 140, 3):
        transcript = f"say {HOSTILE} again please {CONTROLS}"
        fields = {"speaker": f"{HOSTILE}{CONTROLS}", "transcript": transcript, "flags": (HOSTILE,)}
        utterances = with_fields(utterances, row, **fields)
    protocol = {"name": HOSTILE, "note": HOSTILE, "metric": HOSTILE, "select": HOSTILE}
    return page_of(folder, utterances=utterances, folds=folds, protocol=protocol, dataset=HOSTILE)[1], folder


def rows_of(page: str, name: str) -> list[list[str]]:
    """The rows of a table on the page; a cell is the exact numbers in it, or its text if it has none."""
    table = next(e for e in ET.fromstring(page).iter("table") if e.get("id") == f"table-{name}")
    return [[_cell(cell) for cell in row] for row in table.find("tbody")]


def _cell(cell):
    numbers = tuple(float(data.get("value")) for data in cell.iter("data"))
    return numbers or "".join(cell.itertext()).strip()


# The page as a document


def test_page_is_well_formed_and_its_links_have_targets(fake, hostile):
    for page in (fake[2], hostile[0]):
        root = ET.fromstring(page)  # strict: the page is XML as well
        ids = Counter(e.get("id") for e in root.iter() if e.get("id"))
        assert max(ids.values()) == 1
        targets = re.findall(r'(?:href="|url\()#([^")]+)', page)
        assert len(targets) > 10
        assert set(targets) <= ids.keys()
        assert len(list(root.iter("svg"))) == 6


def test_first_section_has_scores_confusion_matrix_and_learning_curves(fake):
    first, *others = (e for e in ET.fromstring(fake[2]).iter("section"))
    ids = [e.get("id") for e in first.iter() if e.get("id") and e.tag != "g"]
    figures = [i for i in ids if i.startswith("figure-")]
    assert [i for i in ids if i.startswith("tile-")] == ["tile-wa", "tile-ua", "tile-f1_weighted"]
    assert sorted(figures) == ["figure-confusion", "figure-loss", "figure-ua"]
    assert others


def test_leak_checks_are_one_sentence_if_nothing_leaks(fake):
    section = next(e for e in ET.fromstring(fake[2]).iter("section") if e.get("id") == "leaks")
    assert [e.tag for e in section] == ["h2", "p", "details"]
    assert section.find("p").text.startswith("No utterances, byte-identical recordings,")
    assert section.find("details").get("open") is None


def test_page_loads_nothing(fake, hostile):
    for page in (fake[2], hostile[0]):
        assert "http:" not in page
        assert "https:" not in page
        assert "@import" not in page
        for element in ET.fromstring(page).iter():
            assert element.tag not in ("script", "iframe", "object", "embed", "img", "base")
            assert element.get("src") is None
            assert not any(name.startswith("on") for name in element.attrib)
            if element.tag == "link":
                assert element.get("href").startswith("data:")


def test_texts_of_the_corpus_are_escaped(hostile):
    page, folder = hostile
    text = "".join(ET.fromstring(page).itertext())
    assert HOSTILE in text
    assert "<script" not in page
    assert "<script" not in (folder / "report" / "tables.md").read_text(encoding="utf-8")


def test_control_characters_are_escaped_in_every_file(hostile):
    page, folder = hostile
    texts = [
        page,
        *(
            p.read_text(encoding="utf-8")
            for p in (folder / "report").rglob("*.*")
            if p.suffix not in (".png", ".csv")
        ),
    ]
    assert len(texts) > 8
    for text in texts:
        assert not set(CONTROLS) - set("[2J") & set(text)
    assert r"\x1b[2J\x00\x9b\u202e" in page


def test_page_allows_no_script_and_no_network(fake):
    (policy,) = re.findall(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)"', fake[2])
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert rules["img-src"] == rules["media-src"] == "data:"
    assert "script-src" not in rules
    assert not any(e.tag.endswith("script") for e in ET.fromstring(fake[2]).iter())


def test_labels_of_other_scripts_are_in_the_page_and_escaped_in_png(tmp_path, monkeypatch):
    def search(marks):
        return (), "".join(mark for mark in marks if mark in "生气")

    monkeypatch.setattr(figure_text, "_search", search)
    classes = ("生气", "neu", "=sad")
    utterances = [replace(u, label=classes[n % 3]) for n, u in enumerate(make_utterances(70))]
    with pytest.warns(UserWarning, match="no installed font has the characters 气生"):
        _, page = page_of(
            tmp_path, utterances=utterances, classes=classes, seeds=1, epochs=1, best_possible=None
        )
    assert "生气" in page
    assert "生气" in (tmp_path / "report" / "figures" / "confusion.svg").read_text(encoding="utf-8")
    first = (tmp_path / "report" / "tables" / "recall.csv").read_text(encoding="utf-8").splitlines()
    assert first[3].startswith("'=sad,")
    tex = (tmp_path / "report" / "tables.tex").read_text(encoding="utf-8")
    assert "% pdfLaTeX lacks 2 of the characters: 气 生" in tex


def test_figures_use_the_colours_of_the_theme(fake):
    page = fake[2]
    svg = "".join(re.findall(r"<svg.*?</svg>", page, flags=re.S))
    used = set(re.findall(r"var\(--([\w-]+)\)", svg))
    dark = page[page.index("prefers-color-scheme: dark") :]
    assert used <= set(style.COLOURS)
    for name in used:
        assert f"--{name}:" in page[: page.index("prefers-color-scheme: dark")]
        assert f"--{name}:" in dark
    assert not re.search(r"#[0-9a-f]{6}", svg)  # a fixed colour would be wrong in one of the themes


# Numbers


def test_tiles_show_the_summary(fake):
    _, value, page = fake
    root = ET.fromstring(page)
    for name in ("wa", "ua", "f1_weighted"):
        tile = next(e for e in root.iter("div") if e.get("id") == f"tile-{name}")
        mean, std = (data for data in tile.iter("data"))
        assert float(mean.get("value")) == value["summary"]["mean"][name]
        assert float(std.get("value")) == value["summary"]["std_over_folds"][name]
        assert mean.text == f"{100 * value['summary']['mean'][name]:.1f}"
        assert "over 5 folds" in "".join(tile.itertext())


def test_table_and_csv_have_every_replica(fake):
    folder, value, page = fake
    rows = rows_of(page, "replicas")
    with (folder / "report" / "results.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(rows) == len(lines) == len(value["replicas"]) == 10
    for row, line, replica in zip(rows, lines, value["replicas"], strict=True):
        assert row[:2] == [replica["fold"], str(replica["seed"])]
        assert row[-4:] == [(replica["test"][name],) for name in ("wa", "ua", "f1_weighted", "f1_macro")]
        assert float(line["ua"]) == replica["test"]["ua"]
        assert float(line["recall_sur"]) == replica["test"]["recall"]["sur"]


def test_speakers_and_genders_are_scored_separately(fake):
    folder, _, page = fake
    run = run_folder.read_run(folder)
    p = run.predictions
    rows = rows_of(page, "speakers")
    assert len(rows) == 10
    for field, table in (("speaker", rows), ("gender", rows_of(page, "genders"))):
        groups = np.array([getattr(run.utterances[i], field) for i in p.utterance])
        for row in table:
            chosen = [(p.split == "test") & (p.seed == seed) & (groups == row[0]) for seed in (0, 1)]
            wa = np.mean([accuracy_score(p.true[c], p.predicted[c]) for c in chosen])
            ua = np.mean([balanced_accuracy_score(p.true[c], p.predicted[c]) for c in chosen])
            number, own_wa, wa_ends, own_ua, ua_ends = row[-5:]
            assert number == str(chosen[0].sum())
            np.testing.assert_allclose([*own_wa, *own_ua], [wa, ua], atol=1e-6)
            assert wa_ends[0] <= own_wa[0] <= wa_ends[1]
            assert ua_ends[0] <= own_ua[0] <= ua_ends[1]


def test_recalls_and_best_possible(fake):
    _, value, page = fake
    recall = value["summary"]["recall"]
    for name, number, shown, pooled, (low, high) in rows_of(page, "recall"):
        assert shown == (recall["mean"][name], recall["std_over_folds"][name])
        assert int(number) > 0
        assert low <= pooled[0] <= high
    best = {row[0]: row[1:] for row in rows_of(page, "best_possible")}
    assert best["words only"] == [(0.71,), (0.62,)]
    assert best["this run"][0] == (value["summary"]["mean"]["wa"], value["summary"]["std"]["wa"])


# Texts


def test_demo_numbers_are_marked_as_such(fake, tmp_path):
    folder, _, page = fake
    mark = "Demo numbers, synthetic speech"
    assert mark in page
    assert "Demo numbers" in (folder / "report" / "tables.md").read_text(encoding="utf-8")
    real = page_of(tmp_path, synthetic=False, best_possible=None, dataset="iemocap", seeds=1, epochs=1)[1]
    assert mark not in real
    assert 'id="best"' not in real


def test_page_shows_warnings(tmp_path):
    utterances = make_utterances(140)
    moved = with_fields(utterances, 0, speaker=utterances[14].speaker)
    value, page = page_of(tmp_path, utterances=moved, folds=session_folds(utterances), not_finite=[("2", 1)])
    text = "".join(ET.fromstring(page).itertext())
    assert len(value["warnings"]) == 2
    assert all(sentence in text for sentence in value["warnings"])
    assert "heard in training" in text


def test_paper_scores_are_shown_with_the_same_kind_of_spread(tmp_path):
    options = {"dataset": "iemocap", "synthetic": False, "seeds": 2, "epochs": 1}
    value, page = page_of(tmp_path, variant="no_cross", **options)
    theirs, ours = rows_of(page, "paper")
    assert theirs == ["MCSAN w/o cross (table 3)", (0.596, 0.012), (0.536, 0.028)]
    summary = value["summary"]
    assert ours[1:] == [(summary["mean"][n], summary["std_over_folds"][n]) for n in ("wa", "ua")]
    assert "on another corpus" not in page
    aspects = {row[0]: row[1:] for row in rows_of(page, "aspects")}
    assert aspects["Corpus"] == ["IEMOCAP", "IEMOCAP"]
    assert aspects["Folds"] == ["10 (8:1:1)", "5"]
    assert aspects["Speaker-independent"][1] == "yes"


def test_page_warns_if_the_paper_used_another_corpus(fake):
    assert "This run is on another corpus, so the two rows cannot be compared" in fake[2]


def test_every_variant_of_mcsan_has_a_row_in_the_paper():
    printed = {
        "mcsan": "MCSAN (proposed)",
        "audio_only": "MCSAN w/o text",
        "text_only": "MCSAN w/o audio",
        "no_self": "MCSAN w/o self",
        "no_cross": "MCSAN w/o cross",
        "cross_then_self": "MCSAN cross + self (seq)",
        "self_then_cross": "MCSAN self + cross (seq)",
        "two_layers": "MCSAN N = 2",
        "three_layers": "MCSAN N = 3",
    }
    config = {"paper": "sun2021_mcsan", "subset": "all"}
    for variant, model in printed.items():
        assert papers.printed({**config, "variant": variant, "dataset": "iemocap"}).model == model
    meld = papers.printed({**config, "variant": "mcsan", "dataset": "meld"})
    assert (meld.scores, meld.std_over) == ({"f1_weighted": (Decimal("0.592"), None)}, "")
    demo = papers.printed({**config, "variant": "mcsan", "dataset": "demo"})
    assert (demo.scores["wa"], demo.std_over) == ((Decimal("0.612"), Decimal("0.012")), "folds")
    assert papers.printed({**config, "variant": "nothing", "dataset": "demo"}) is None
    assert papers.printed({"variant": "mcsan", "dataset": "demo"}) is None


def test_every_row_that_a_paper_ran_has_a_variant():
    rows = [row for table in papers.tables().values() for row in table]
    assert len(rows) == 88
    assert len(papers.tables()) == 12
    assert sum(not row.cited for row in rows) == 65
    for row in rows:
        if row.variant:
            variants = import_module(f"jaxser.configs.{papers.CONFIGS[row.paper]}").VARIANTS
            assert row.variant.name in variants, row.id
        else:
            assert row.cited, row.id


def test_exchanged_scores_of_rajan_are_corrected():
    row = papers.row("rajan2022_self_cross/t1/083")
    assert row.exchanged
    assert row.scores["wa"] == (Decimal("0.642"), Decimal("0.019"))
    assert papers.row("he2021_ilt_cat/t2/042").scores["wa"] == (Decimal("0.6810"), None)


# Unusual runs


@pytest.mark.parametrize(
    "options",
    [
        {"seeds": 1, "epochs": 1},
        {"not_finite": [(str(fold), seed) for fold in range(1, 6) for seed in range(2)]},
        {"folds": session_folds(make_utterances())[:1]},
        {"utterances": with_fields(make_utterances(), 0, speaker="", gender="")},
        {"environment": {}, "model": "other", "variant": "", "best_possible": None},
    ],
    ids=["one epoch", "all lost", "one fold", "a nameless speaker", "a model without a paper"],
)
def test_every_run_has_a_page(tmp_path, options):
    ET.fromstring(page_of(tmp_path, **options)[1])


def test_page_of_a_sweep_shows_all_settings(tmp_path):
    value = write_fake_run(tmp_path, seeds=1, epochs=1)
    summary = value["summary"]
    value["summaries"] = {"": summary, "learning_rate=0.1": summary}
    run_folder.write_json(tmp_path / run_folder.RESULTS, value)
    run_folder.write_digests(tmp_path)
    page = report.write(tmp_path).read_text(encoding="utf-8")
    assert [row[0] for row in rows_of(page, "settings")] == ["", "learning_rate=0.1"]
    assert "has the best validation UA and is reported" in page


def test_only_the_speakers_with_most_utterances_are_listed(tmp_path, monkeypatch):
    utterances = make_utterances(700)
    for row in range(0, 700, 5):
        utterances = with_fields(utterances, row, speaker=f"guest{row}")
    write_fake_run(tmp_path, utterances=utterances, seeds=1, epochs=1)
    monkeypatch.setattr(groups, "MAX_SPEAKERS", 8)
    table = run_tables.speakers(Analysis(run_folder.read_run(tmp_path)))
    assert len(table.rows) == 8
    assert "8 of 150 speakers" in table.caption


def test_command_rewrites_a_page_and_rejects_wrong_usage(fake, tmp_path, capsys, monkeypatch):
    page = fake[0] / "report" / "index.html"
    page.unlink()
    monkeypatch.setattr("sys.argv", ["report", str(fake[0])])
    assert main() == 0
    assert page.read_text(encoding="utf-8") == fake[2]
    monkeypatch.setattr("sys.argv", ["report", str(tmp_path)])
    assert main() == 1
    assert re.fullmatch(r"jaxser\.report: .* is not a run.*\n", capsys.readouterr().err)
    for wrong in ([], ["--otu=here", str(fake[0])]):
        monkeypatch.setattr("sys.argv", ["report", *wrong])
        with pytest.raises(SystemExit) as error:
            main()
        assert error.value.code == 2
        assert re.fullmatch(r"jaxser\.report: .* \(--help shows all flags\)\n", capsys.readouterr().err)
    monkeypatch.setattr("sys.argv", ["report", str(fake[0]), "--metric=f1"])
    assert main() == 2
    assert "--metric=f1 is not one of wa, ua" in capsys.readouterr().err
    with pytest.raises(InputError):
        report.write(tmp_path / "nowhere")


def test_recordings_are_found_by_path_or_name(tmp_path):
    for path in ("a/1.wav", "b/1.wav", "b/2.flac"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).touch()
    found = media.find_recordings(tmp_path, ["a/1", "b/1", "2", "3"])
    assert found == {"a/1": tmp_path / "a/1.wav", "b/1": tmp_path / "b/1.wav", "2": tmp_path / "b/2.flac"}
    with pytest.raises(
        InputError, match=r"has no recording that is named after an utterance, such as 3\.wav"
    ):
        media.find_recordings(tmp_path, ["3"])


def test_card_states_only_what_is_known_of_the_corpus(tmp_path):
    for dataset, sentence in {
        "ravdess": "The corpus is acted speech",
        "mine": "or spontaneous speech is unknown",
    }.items():
        value = write_fake_run(tmp_path / dataset, dataset=dataset)
        run_folder.write_json(tmp_path / dataset / run_folder.RESULTS, {**value, "synthetic": False})
        run_folder.write_digests(tmp_path / dataset)
        report.write(tmp_path / dataset)
        card = (tmp_path / dataset / "report" / "card.md").read_text(encoding="utf-8")
        assert sentence in card
        command = run_folder.read_run(tmp_path / dataset).config.command
        assert f"\nThe command:\n\n    {command}\n" in card


def test_markdown_tables_keep_their_columns():
    table = tables.Table(
        "t", "a|b", ("x", "y"), (("a|b\n<i>", tables.Score(0.5, 0.25)), ("c", tables.Score(None)))
    )
    lines = tables.markdown(table).splitlines()
    assert lines[2:] == ["| x | y |", "|---|---:|", "| a\\|b &lt;i> | 50.0 ± 25.0 |", "| c | – |"]


def test_identical_resamples_give_no_interval():
    interval = intervals.Interval(("a",), "wa", "speaker", 0.0, 0.0, 0.0, 10)
    assert run_tables.interval_cells(interval) == (tables.Score(0.0), tables.Range(None, None))
    cells = run_tables.interval_cells(replace(interval, high=0.2))
    assert cells == (tables.Score(0.0), tables.Range(0.0, 0.2))


def test_the_pretrained_encoder_is_named(tmp_path):
    """On the page and in the card, as in results.json; reports of runs without one do not mention it."""
    encoder = PretrainedEncoder("wavlm", "c" * 64, "exact", (6,), False, 320, 768, 12, 94_381_936)
    value, page = page_of(tmp_path / "run", encoder=encoder)
    card = (tmp_path / "run" / "report" / "card.md").read_text(encoding="utf-8")
    assert value["encoder"] == encoder.to_json()
    for text in (page, card):
        assert f"Pretrained encoder: {encoder}." in text
    del value["encoder"]  # as earlier versions wrote it
    run_folder.write_results(tmp_path / "run", RunResults.from_json(value))
    assert "Pretrained encoder" not in report.write(tmp_path / "run").read_text(encoding="utf-8")
