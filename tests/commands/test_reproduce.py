"""Reproduction of a table: its rows, which of them are trained, and what is printed."""

import json
from importlib import import_module
from pathlib import Path

import pytest

from helpers import tiny
from helpers.fake_run import write_fake_run
from jaxser import experiment, papers, reproduce
from jaxser.types import UsageError

NO_DATA = Path("no_prepared_datasets")
ROWS = [row for rows in papers.tables().values() for row in rows if row.variant]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_every_row_has_a_config_under_both_protocols(row):
    full, quick = (reproduce.config_of(row, "demo", protocol, NO_DATA) for protocol in reproduce.PROTOCOLS)
    assert (full.variant, full.dataset) == (row.variant.name, "demo")
    assert (quick.dataset, quick.seeds, quick.copies, quick.protocol.name) == (
        "demo_quick",
        1,
        "none",
        "holdout",
    )
    assert quick.epochs <= 10
    assert quick.hyper.learning_rate == full.hyper.learning_rate
    own = reproduce.config_of(row, "paper", "paper", NO_DATA)
    assert own.dataset == row.corpus
    assert papers.printed(own.to_dict()).variant == row.variant


def test_training_frames_count_folds_seeds_epochs_and_copies():
    row = papers.row("he2021_ilt_cat/t2/042")
    data = tiny.everything(60)
    config = reproduce.config_of(row, "demo", "paper", NO_DATA)
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


def test_a_table_in_the_papers_order_and_only_missing_rows_trained(trained, tmp_path):
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
    found = json.loads(table4.with_suffix(".json").read_text(encoding="utf-8"))
    assert [row["id"] for row in found["rows"]] == [f"lee2020_can/t4/{n:03}" for n in range(8, 13)]
    assert found["rows"][0]["run"] == "can-can-demo_quick"


def test_rajans_columns_have_their_standard_names(trained, tmp_path):
    path = reproduce.reproduce("rajan2022/table2", "demo", "quick", tmp_path, tmp_path, lambda line: None)
    text = path.read_text(encoding="utf-8")
    [self_attention] = [line for line in text.splitlines() if line.startswith("| Self, ")]
    assert "| 64.2 ± 1.9 |" in self_attention.replace("  ", " ")
    assert "prints WA and UA under each other's names" in text


def test_rows_that_stay_cited_are_printed_without_ours(trained, tmp_path):
    path = reproduce.reproduce("sun2021/table2", "demo", "quick", tmp_path, tmp_path, lambda line: None)
    assert trained == ["mcsan-mcsan-demo_quick"]
    [cited] = [line for line in path.read_text(encoding="utf-8").splitlines() if "cMKL" in line]
    assert "(cited)" in cited
    assert "| 55.5 | – |" in cited


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--table=lee2020/table9"], "--table=lee2020/table9 is not one of lee2020/table2"),
        ([], "--table is missing; --list lists all tables"),
        (["--table=lee2020/table4", "--protocol=fast"], "--protocol=fast is not one of paper, quick"),
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
    with pytest.raises(UsageError, match="--protocol=slow is not one of paper, quick"):
        reproduce.config_of(ROWS[0], "demo", "slow", NO_DATA)


def test_every_variant_that_a_row_names_is_its_configs():
    for row in ROWS:
        assert row.variant.name in import_module(f"jaxser.configs.{papers.CONFIGS[row.paper]}").VARIANTS
