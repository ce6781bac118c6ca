"""Reproduction of a table: its rows, which of them are trained, and what is printed."""

import json
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from helpers import tiny
from helpers.fake_run import make_utterances, session_folds, write_fake_run
from jaxser import experiment, papers, report, reproduce
from jaxser.data.folds import Protocol, make_folds
from jaxser.evaluation import run_folder
from jaxser.report import settings
from jaxser.report.tables import markdown
from jaxser.types import UsageError

NO_DATA = Path("no_prepared_datasets")
ROWS = [row for rows in papers.tables().values() for row in rows if row.variant]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_every_row_has_a_config_under_all_protocols(row):
    paper, full, quick = (
        reproduce.config_of(row, "demo", protocol, NO_DATA) for protocol in reproduce.PROTOCOLS
    )
    assert (full.variant, full.dataset, full.as_published) == (row.variant.name, "demo", False)
    assert (quick.dataset, quick.seeds, quick.copies, quick.protocol.name) == (
        "demo_quick",
        1,
        "none",
        "holdout",
    )
    assert quick.epochs <= 10
    assert quick.hyper.learning_rate == full.hyper.learning_rate
    assert (paper.as_published, paper.training, paper.optimizer.schedule) == (True, "paper", "constant")
    own = reproduce.config_of(row, "paper", "paper", NO_DATA)
    assert own.dataset == row.corpus
    assert papers.printed(own.to_dict()).variant == row.variant
    assert own.hyper == paper.hyper or row.corpus == "meld"
    assert (own.epochs, own.batch_size) == (paper.epochs, paper.batch_size) or row.corpus == "meld"


def test_the_papers_own_settings_on_every_corpus():
    """He: noise in validation, padded sounds. Ramet: 4 training sessions, his selection and L2. Rajan: raw features."""
    for dataset in ("iemocap", "demo", "ravdess"):
        he = reproduce.config_of(papers.row("he2021_ilt_cat/t2/042"), dataset, "paper", NO_DATA)
        assert (he.copies, he.recipe, he.selection) == ("train_and_validation", "cat_padded", "wa")
        assert (he.hyper.learning_rate, he.batch_size, he.epochs, he.optimizer.b2) == (1e-4, 40, 100, 0.99)
        ramet = reproduce.config_of(papers.row("ramet2018_lstm_attention/t1/054"), dataset, "paper", NO_DATA)
        assert (ramet.protocol.select, ramet.selection, ramet.normalise) == (
            "test",
            "wa_plus_ua",
            "train_neutral",
        )
        assert (ramet.hyper.l2, ramet.hyper.learning_rate) == (0.05, 3e-5)
        assert (ramet.batch_size, ramet.epochs, ramet.model.as_published) == (32, 200, True)
        rajan = reproduce.config_of(papers.row("rajan2022_self_cross/t1/083"), dataset, "paper", NO_DATA)
        assert (rajan.normalise, rajan.batch_size, rajan.seeds) == ("none", 32, 10)
    demo = tiny.everything(60)
    folds = make_folds(demo, Protocol(**ramet.protocol.to_dict() | {"name": "session", "groups": ()}))
    sessions = demo.column("session")
    assert [len(set(sessions[fold.train])) for fold in folds] == [4] * 5


def test_rajan_is_trained_on_the_folds_of_yoon(tmp_path):
    row = papers.row("rajan2022_self_cross/t1/083")
    config = reproduce.config_of(row, "yoon", "paper", NO_DATA)
    assert config.protocol.name == "corpus"
    assert reproduce.config_of(row, "yoon", "config", NO_DATA).protocol.name == "random"
    data = tiny.everything(9)
    ids = data.column("id").tolist()
    own = [{"name": "fold01", "train": ids[:5], "validation": ids[5:7], "test": ids[7:]}]
    (tmp_path / "folds.json").write_text(json.dumps({"folds": own}), encoding="utf-8")
    [fold] = make_folds(replace(data, folder=tmp_path), Protocol(**config.protocol))
    assert (fold.name, fold.train.tolist(), fold.validation.tolist(), fold.test.tolist()) == (
        "fold01",
        [0, 1, 2, 3, 4],
        [5, 6],
        [7, 8],
    )
    with pytest.raises(UsageError, match="protocol corpus: no folds were published with tiny"):
        make_folds(data, Protocol(**config.protocol))


def differences_of(identity, config, tmp_path, **options):
    """The lines below a table whose only trained row has this config."""
    write_fake_run(tmp_path / "run", seeds=1, epochs=1, **options)
    run, row = run_folder.read_run(tmp_path / "run"), papers.row(identity)
    run = replace(run, config=replace(run.config, fields=run_folder.plain(config.to_dict())))
    return reproduce.differences([row], {row.id: run})


def test_each_setting_that_differs_from_the_paper_is_a_line(tmp_path):
    identity = "ramet2018_lstm_attention/t1/054"
    config = reproduce.config_of(papers.row(identity), "demo", "config", NO_DATA)
    lines = differences_of(identity, config, tmp_path)
    assert {
        "Training sessions: printed 4; here 3",
        "L2: printed 0.05; here 0.0005",
        "Learning rate: printed 3e-05; here 0.0003",
        "Epochs, at most: printed 200; here 10",
        "Epoch selected by: printed wa_plus_ua; here ua",
        "Part that selects the epoch: printed test; here validation",
        "Padding as published: printed yes; here no",
        "Schedule of the learning rate: printed constant; here cosine",
    } <= set(lines)
    assert not any(line.startswith("Batch size") for line in lines)  # 32 in both


def test_copies_padding_batch_and_caveats_are_lines(tmp_path):
    identity = "he2021_ilt_cat/t2/042"
    config = reproduce.config_of(papers.row(identity), "demo", "config", NO_DATA)
    lines = differences_of(identity, config, tmp_path)
    assert {
        "Copies of recordings in: printed train_and_validation; here train",
        "Recipe: printed cat_padded (zero-padded to 7.5 s, not masked); here cat (padding is masked)",
        "Batch size: printed 40; here 32",
        "Learning rate: printed 0.0001; here 0.001",
        "Caveat: White-noise augmentation is applied to training AND validation data.",
    } <= set(lines)


def test_what_the_paper_does_not_state_is_not_attributed_to_it(tmp_path):
    identity = "lee2020_can/t2/005"
    config = reproduce.config_of(papers.row(identity), "demo", "config", NO_DATA)
    assert "Epochs, at most: printed not stated; here 10" in differences_of(identity, config, tmp_path)


@pytest.mark.parametrize(
    "identity", ["he2021_ilt_cat/t2/042", "ramet2018_lstm_attention/t1/054", "sun2021_mcsan/t1/013"]
)
def test_a_run_as_published_differs_in_no_setting(identity):
    row = papers.row(identity)
    config = reproduce.config_of(row, "demo", "paper", NO_DATA)
    assert settings.differences(row, run_folder.plain(config.to_dict())) == []


def test_the_caveats_of_all_rows_are_known():
    caveats = {caveat for row in ROWS for caveat in row.caveats}
    assert any("misprint" in caveat for caveat in caveats)
    assert any("replace the last item" in caveat for caveat in caveats)
    assert any("10-fold" in caveat for caveat in caveats)


def test_a_line_that_does_not_hold_for_all_rows_names_its_rows(tmp_path):
    rows = [papers.row(f"rajan2022_self_cross/t2/{n:03}") for n in (84, 85)]
    write_fake_run(tmp_path / "run", seeds=1, epochs=1, variant="cross")
    run = run_folder.read_run(tmp_path / "run")
    lines = reproduce.differences(rows, {row.id: run for row in rows})
    [misprint] = [line for line in lines if "misprint" in line]
    assert misprint.endswith("misprint (Cross, T+V+A)")
    assert "Corpus: printed IEMOCAP; here synthetic demo speech" in lines
    config = reproduce.config_of(rows[0], "demo", "config", NO_DATA)
    found = settings.differences(rows[0], run_folder.plain(config.to_dict()))
    assert ("Normalised over", "none (published code)", "train") in found


def test_training_frames_count_folds_seeds_epochs_and_copies():
    row = papers.row("he2021_ilt_cat/t2/042")
    data = tiny.everything(60)
    config = reproduce.config_of(row, "demo", "config", NO_DATA)
    once = reproduce.training_frames(config, data)
    config.seeds *= 2
    config.epochs *= 3
    assert reproduce.training_frames(config, data) == pytest.approx(6 * once)
    config.copies = "none"
    single = reproduce.training_frames(config, data)
    config.copies = "train"
    assert single < reproduce.training_frames(config, data) < 2 * single


def test_times_are_projected_from_measured_runs():
    projection = reproduce.Projection()
    assert projection.seconds("can", 100.0) is None
    projection.add("can", frames=100.0, seconds=50.0)
    projection.add("mcsan", frames=100.0, seconds=150.0)
    assert projection.seconds("can", 200.0) == 100
    assert projection.seconds("xu", 200.0) == 200  # the mean of both networks


@pytest.fixture
def trained(monkeypatch):
    """The names of the runs that are trained; training writes made-up results."""
    asked = []

    def train(config, dataset, folder, *, command, log):
        asked.append(folder.name)
        write_fake_run(folder, seeds=1, epochs=1, dataset=config.dataset, variant=config.variant)

    monkeypatch.setattr(experiment, "run_experiment", train)
    monkeypatch.setattr(experiment, "load_dataset", lambda config, folder, log: tiny.everything(60))
    return asked


@pytest.fixture
def reported(monkeypatch):
    """The names of the runs of which a report is asked for; none is written."""
    asked = []
    monkeypatch.setattr(report, "write", lambda folder: asked.append(folder.name))
    return asked


def test_a_table_in_the_papers_order_and_only_missing_rows_trained(trained, reported, tmp_path):
    logged = []
    path = reproduce.reproduce("lee2020/table3", "demo", "quick", tmp_path, tmp_path, logged.append)
    assert trained == ["can-can-demo_quick", "can-equal_segmentation-demo_quick"]
    assert logged == [
        "lee2020/table3: 2 of 2 runs to train",
        "\n1/2 can-can-demo_quick",
        "\n2/2 can-equal_segmentation-demo_quick (about 1 min left)",
    ]
    text = path.read_text(encoding="utf-8")
    assert "python -m jaxser.reproduce --table=lee2020/table3 --dataset=demo --protocol=quick" in text
    rows = [line for line in text.splitlines() if line.startswith("| CAN")]
    assert [row.split(" | ")[0] for row in rows] == [
        "| CAN, segmentation Aligned",
        "| CAN, segmentation Equal",
    ]
    assert "| 57.9 ± 1.9 |" in rows[0]
    assert "demo numbers" in text
    assert "- Corpus: printed IEMOCAP; here synthetic demo speech" in text
    table4 = reproduce.reproduce("lee2020/table4", "demo", "quick", tmp_path, tmp_path, logged.append)
    assert len(trained) == 6
    assert reported == trained
    found = json.loads(table4.with_suffix(".json").read_text(encoding="utf-8"))
    assert [row["id"] for row in found["rows"]] == [f"lee2020_can/t4/{n:03}" for n in range(8, 13)]
    assert found["rows"][0]["run"] == "can-can-demo_quick"
    assert found["rows"][1]["printed"]["wa"] == ["0.570", "0.018"]
    assert found["rows"][1]["std_over"] == {"printed": "folds", "ours": "5 folds"}


@pytest.mark.usefixtures("trained", "reported")
def test_rajans_columns_have_their_standard_names(tmp_path):
    path = reproduce.reproduce("rajan2022/table2", "demo", "quick", tmp_path, tmp_path, lambda line: None)
    text = path.read_text(encoding="utf-8")
    [self_attention] = [line for line in text.splitlines() if line.startswith("| Self, ")]
    assert "| 64.2 ± 1.9 |" in self_attention.replace("  ", " ")
    assert "prints WA and UA under each other's names" in text


def test_rows_that_stay_cited_are_printed_without_ours(trained, tmp_path):
    path = reproduce.reproduce("sun2021/table2", "demo", "quick", tmp_path, tmp_path, lambda line: None)
    assert trained == ["mcsan-mcsan-demo_quick"]
    assert (tmp_path / trained[0] / "report" / "index.html").is_file()
    [cited] = [line for line in path.read_text(encoding="utf-8").splitlines() if "cMKL" in line]
    assert "(cited)" in cited
    assert "| 55.5 | – |" in cited


def printed_cells(table):
    """The cells of a table's Markdown, by row and column."""
    [header, _, *rows] = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in markdown(table).splitlines()
        if line.startswith("|")
    ]
    return {row[0]: dict(zip(header, row, strict=True)) for row in rows}


def test_he_is_printed_with_two_decimals_as_in_the_paper():
    cells = printed_cells(reproduce.comparison("he2021/table1", papers.tables()["he2021/table1"], {}))
    plus = cells["ILT, concatenation, with positions"]
    assert (plus["WA, printed"], plus["UA, printed"]) == ("66.21", "67.40")
    baseline = cells["CNN-LSTM-transformer (baseline2), without positions"]
    assert (baseline["WA, printed"], baseline["UA, printed"]) == ("65.60", "67.36")
    [ramet] = [row for row in papers.tables()["ramet2018/table1"] if row.id.endswith("054")]
    assert str(ramet.scores["ua"][0]) == "0.596"


def test_printed_scores_keep_their_decimals():
    """As many decimals as the paper prints: He two, Ramet one (both in %), all others three (fractions)."""
    percent = {"he2021_ilt_cat": 2, "ramet2018_lstm_attention": 1}
    for rows in papers.tables().values():
        for row in rows:
            for value in (one for pair in row.scores.values() for one in pair if one is not None):
                assert -value.as_tuple().exponent == percent.get(row.paper, 1) + 2, row.id


def scores_of(run, metric="wa"):
    """The test scores by fold and seed."""
    return {(r.fold, r.seed): r.test[metric] for r in run.results.replicas}


@pytest.mark.parametrize(
    ("identity", "over", "kind"),
    [
        ("rajan2022_self_cross/t1/083", "15 runs (5 folds × 3 seeds)", "runs"),
        ("lee2020_can/t2/005", "5 folds, 3 seeds averaged", "folds"),
        ("rajan2022_self_cross/t1/081", "5 folds, 3 seeds averaged", "not stated"),  # of AMH's README
        ("he2021_ilt_cat/t1/032", "5 folds, 3 seeds averaged", "–"),
    ],
)
def test_our_standard_deviation_is_of_the_printed_kind_and_named(identity, over, kind, tmp_path):
    write_fake_run(tmp_path, seeds=3)
    run, row = run_folder.read_run(tmp_path), papers.row(identity)
    scores = scores_of(run)
    by_fold = [np.mean([scores[f, s] for s in range(3)]) for f in sorted({fold for fold, _ in scores})]
    expected = np.std(list(scores.values()) if kind == "runs" else by_fold, ddof=1)
    [cells] = printed_cells(reproduce.comparison("a/table1", [row], {row.id: run})).values()
    assert cells["WA, ours"] == f"{100 * np.mean(by_fold):.1f} ± {100 * expected:.1f}"
    assert (cells["± ours, over"], cells["± printed, over"]) == (over, kind)


def test_a_single_fold_has_a_standard_deviation_over_seeds_and_says_so(tmp_path):
    utterances = make_utterances()
    write_fake_run(tmp_path, seeds=3, utterances=utterances, folds=session_folds(utterances)[:1])
    run, row = run_folder.read_run(tmp_path), papers.row("lee2020_can/t2/005")
    [cells] = printed_cells(reproduce.comparison("a/table1", [row], {row.id: run})).values()
    expected = np.std(list(scores_of(run).values()), ddof=1)
    assert cells["WA, ours"].endswith(f" ± {100 * expected:.1f}")
    assert (cells["± ours, over"], cells["± printed, over"]) == ("3 seeds", "folds")


def test_a_single_run_has_no_standard_deviation(tmp_path):
    utterances = make_utterances()
    write_fake_run(tmp_path, seeds=1, utterances=utterances, folds=session_folds(utterances)[:1])
    run, row = run_folder.read_run(tmp_path), papers.row("he2021_ilt_cat/t1/032")
    [cells] = printed_cells(reproduce.comparison("a/table1", [row], {row.id: run})).values()
    assert "±" not in cells["WA, ours"]
    assert "± ours, over" not in cells
    lee = replace(row, id="x", scores=papers.row("lee2020_can/t2/005").scores, std_over="folds")
    [cells] = printed_cells(reproduce.comparison("a/table1", [lee], {lee.id: run})).values()
    assert (cells["± ours, over"], cells["± printed, over"]) == ("–", "folds")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--table=lee2020/table9"], "--table=lee2020/table9 is not one of lee2020/table2"),
        ([], "--table is missing; --list lists all tables"),
        (["--table=lee2020/table4", "--protocol=fast"], "--protocol=fast is not one of paper, config, quick"),
    ],
)
def test_wrong_usage_is_one_line(arguments, message, capsys):
    assert reproduce.run([*arguments, "--cache_dir="]) == 2
    assert message in capsys.readouterr().err


def test_a_misspelt_flag_is_one_line(capsys):
    with pytest.raises(SystemExit) as error:
        reproduce.run(["--tabel=lee2020/table4"])
    message = capsys.readouterr().err
    assert (error.value.code, message.count("\n")) == (2, 1)
    assert "unrecognized arguments: --tabel=lee2020/table4" in message


def test_the_list_names_every_table(capsys):
    assert reproduce.run(["--list"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in papers.tables())
    assert "5 of  5 rows" in printed


def test_an_unknown_protocol_is_named():
    with pytest.raises(UsageError, match="--protocol=slow is not one of paper, config, quick"):
        reproduce.config_of(ROWS[0], "demo", "slow", NO_DATA)


@pytest.mark.usefixtures("reported")
def test_each_protocol_has_its_own_runs_and_file(trained, tmp_path):
    paths = [
        reproduce.reproduce("sun2021/table2", "demo", protocol, tmp_path, tmp_path, lambda line: None)
        for protocol in reproduce.PROTOCOLS
    ]
    assert trained == ["mcsan-mcsan-demo-paper", "mcsan-mcsan-demo", "mcsan-mcsan-demo_quick"]
    names = ["sun2021-table2-demo-paper.md", "sun2021-table2-demo.md", "sun2021-table2-demo-quick.md"]
    assert [path.name for path in paths] == names


def test_every_variant_that_a_row_names_is_its_configs():
    for row in ROWS:
        assert row.variant.name in import_module(f"jaxser.configs.{papers.CONFIGS[row.paper]}").VARIANTS
