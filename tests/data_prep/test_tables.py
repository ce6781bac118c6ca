"""Tables: delimiters, quotes, rows that do not fit, and the order of time."""

import csv
import io
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxser.data_prep.corpora import folder, meld, tables
from jaxser.types import InputError

HEADER = ["path", "label", "text"]


def write(root: Path, content: str | bytes, name: str = "metadata.csv") -> Path:
    (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def read(root: Path, content: str | bytes, name: str = "metadata.csv"):
    return folder.read(write(root, content, name), metadata=root / name)


def rejected(reading) -> dict[str, str]:
    return {entry.where: entry.reason for entry in reading.rejected}


def test_row_with_an_unquoted_comma_is_rejected_with_its_line(tmp_path):
    reading = read(tmp_path, "path,text,label,speaker\na.wav,Fine.,calm,s0\nb.wav,Well, no,angry,s0\n")
    assert [(u.id, u.label) for u in reading.utterances] == [("a", "calm")]
    assert rejected(reading) == {
        "metadata.csv:3": "5 cells, but 4 columns; quote a cell that contains a comma"
    }


@pytest.mark.parametrize(
    ("row", "used"),
    [
        ("b.wav,calm,Yes.", True),
        ("b.wav,calm", False),  # missing cells
        ("b.wav,calm,Yes.,", False),
        ('b.wav,calm,"Well, yes."', True),
        ('b.wav, calm , "Well, yes." ', True),
        ('b.wav,calm,"He said ""yes""."', True),
        ('b.wav,calm,He said "yes".', True),
        ('b.wav,calm,"Yes," he said.', False),  # text after a closing quote
        ('b.wav,calm,"one, two, three\nfour, five, six\nseven"', True),
    ],
)
def test_every_row_is_used_or_rejected(tmp_path, row, used):
    reading = read(tmp_path, f"path,label,text\na.wav,calm,No.\n{row}\nc.wav,calm,No.\n")
    assert [u.id for u in reading.utterances] == (["a", "b", "c"] if used else ["a", "c"])
    assert list(rejected(reading)) == ([] if used else ["metadata.csv:3"])
    assert reading.facts["rows"] == 3


STRAY = [
    {5: '"Hello'},
    {5: '"Hello', 20: 'the end"'},  # both would be in one cell of 16 lines, which is valid CSV
    {5: '"Hello', 20: '"Bye'},
    {5: '"Hi," she said'},
    {5: '"'},
    {5: '"" empty', 6: '""', 7: '"""'},
]


@pytest.mark.parametrize("stray", STRAY[:3])
def test_stray_quotes_never_swallow_rows(tmp_path, stray):
    rows = [f"{n}.wav;calm;{stray.get(n, 'Yes.')}" for n in range(2, 26)]
    with pytest.raises(InputError, match=r"table\.csv: line 5: a quote is not closed") as caught:
        read(tmp_path, "\n".join(["path;label;text", *rows, ""]), "table.csv")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("stray", STRAY)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_stray_quotes_between_tabs_are_text(tmp_path, stray, end):
    rows = [f"{n}.wav\tcalm\t{stray.get(n, 'Yes.')}" for n in range(2, 26)]
    reading = read(tmp_path, end.join(["path\tlabel\ttext", *rows, ""]), "table.tsv")
    assert not reading.rejected
    assert reading.facts["rows"] == 24
    expected = {f"{n}": stray.get(n, "Yes.") for n in range(2, 26)}
    expected |= {n: "" for n, text in expected.items() if text == '""'}
    assert {u.id: u.transcript for u in reading.utterances} == expected


def test_stray_quote_before_the_path_is_text_between_tabs(tmp_path):
    rows = ['"Hello\ta.wav\tcalm', "Yes.\tb.wav\tcalm", 'the "end"\tc.wav\tcalm', 'No."\td.wav\tcalm']
    reading = read(tmp_path, "\n".join(["text\tpath\tlabel", *rows, ""]), "table.tsv")
    assert [u.transcript for u in reading.utterances] == ['"Hello', "Yes.", 'the "end"', 'No."']


@pytest.mark.parametrize("cell", ["one\ttab", "two\nlines", "two\r\nlines", 'a "quote"', '"all"'])
def test_quoted_cells_between_tabs_are_unquoted(tmp_path, cell):
    table = io.StringIO(newline="")
    csv.writer(table, dialect="excel-tab").writerows(
        [HEADER, ["a.wav", "calm", cell], ["b.wav", "sad", "No."]]
    )
    reading = read(tmp_path, table.getvalue(), "table.tsv")
    assert [u.transcript for u in reading.utterances] == [cell, "No."]


def test_stray_quotes_never_swallow_rows_of_another_format(tmp_path):
    table = 'path,label,text\na.wav,calm,"oh\nb.flac,angry,hi"\nc.wav,calm,no\n'
    with pytest.raises(
        InputError, match=r"line 2: a quote is not closed \(its cell contains the row of line 3\)"
    ):
        read(tmp_path, table)


@pytest.mark.parametrize("blank", ["\u200b", "\u3000", "\xa0", "\ufeff \u2060", "\u2800"])
def test_labels_of_invisible_characters_are_missing(tmp_path, blank):
    reading = read(tmp_path, f"path,label\na.wav,{blank}\nb.wav,{blank}sad{blank}\n")
    assert rejected(reading) == {"metadata.csv:2": "no label"}
    assert [u.label for u in reading.utterances] == ["sad"]


@pytest.mark.parametrize("end", ["1e309", "9" * 400])
def test_an_end_that_is_no_finite_number_does_not_mean_the_whole_recording(tmp_path, end):
    reading = read(tmp_path, f"path,label,start,end\na.wav,sad,0,{end}\nb.wav,sad,-0,0.05\n")
    assert "not numbers of seconds" in rejected(reading)["metadata.csv:2"]
    assert [u.wav for u in reading.utterances] == ["b.wav#t=0.000000,0.050000"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_cut_tables_of_utf16_are_refused(tmp_path, encoding):
    table = "path,label\na.wav,calm\nb.wav,angry".encode(encoding)
    with pytest.raises(InputError, match=r"damaged: byte \d+ is not UTF-"):
        read(tmp_path, table[:-1])


@pytest.mark.parametrize(
    "table",
    [
        "sep=;\r\npath;label;start;end\r\na.wav;calm;1,5;2,75\r\n",
        '"sep=;"\npath;label;start;end\na.wav;calm;1,5;2,75\n',
        "path\tlabel\tstart\tend\na.wav\tcalm\t1,5\t2,75\n",
        'path,label,start,end\na.wav,calm,"1,5","2,75"\n',
        "path|label|start|end\na.wav|calm|1.5|2.75\n",
        "\n\npath,label,start,end\na.wav,calm,1.5,2.75\n",
        "path,label,start,end,,\na.wav,calm,1.5,2.75,,\n,,,,,\n",  # padded by a spreadsheet
        ",path,label,start,end\n0,a.wav,calm,1.5,2.75\n",  # with the index of pandas
        "path,label,start,end\ra.wav,calm,1.5,2.75\r",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_tables_of_spreadsheets_and_programs(tmp_path, table, encoding):
    reading = read(tmp_path, table.encode(encoding))
    assert [(u.id, u.label, u.wav) for u in reading.utterances] == [
        ("a", "calm", "a.wav#t=1.500000,2.750000")
    ]
    assert (reading.rejected, reading.warnings) == ((), ())


def test_delimiter_is_that_of_the_required_columns(tmp_path):
    [utterance] = read(tmp_path, "path\tlabel\tnotes (a, b, c, d)\na.wav\tcalm\t1, 2\n").utterances
    assert utterance.label == "calm"


def test_cell_in_a_column_without_a_name_is_a_surplus_cell(tmp_path):
    reading = read(tmp_path, "path,label,text,\na.wav,calm,Well, no\n")
    assert rejected(reading) == {
        "metadata.csv:2": "4 cells, but 3 columns; quote a cell that contains a comma"
    }


def test_mixed_line_ends_are_counted(tmp_path):
    reading = read(tmp_path, "path,label\r\na.wav,calm\nb.wav,calm\rc.wav\r\nd.wav,calm")
    assert [u.id for u in reading.utterances] == ["a", "b", "d"]
    assert rejected(reading) == {"metadata.csv:4": "1 cell, but 2 columns"}


def test_cell_of_a_damaged_file_is_rejected(tmp_path):
    reading = read(tmp_path, f"path,label\na.wav,{'x' * 200_000}\nb.wav,calm\n")
    assert rejected(reading) == {"metadata.csv:2": "column label has more than 100000 characters"}


def test_unusable_lines_of_json_are_rejected(tmp_path):
    lines = {
        '{"path": "a.wav", "label": "calm"}': "",
        '{"path": "b.wav", "label": "calm", "label": "angry"}': "two values of 'label'",
        '{"path": "c.wav", "Path": "d.wav", "label": "calm"}': "two values of 'path'",
        '{"path": "e.wav"': "not a JSON object",
        '["path"]': "not an object",
        '{"path": ["f.wav"], "label": "calm"}': "path is not a text or a number",
        '{"path": "g.wav", "label": null}': "no label",
        '{"path": "h\\u0000.wav", "label": "calm"}': "path has the control character U+0000",
        '{"path": "i.wav", "label": "calm", "words": [{"start": 1}]}': "",
    }
    reading = read(tmp_path, "\n".join(lines), "metadata.jsonl")
    assert [u.id for u in reading.utterances] == ["a", "i"]
    expected = [reason for reason in lines.values() if reason]
    for reason, found in zip(expected, rejected(reading).values(), strict=True):
        assert reason in found


def test_text_that_is_not_unicode_is_used_with_a_warning(tmp_path):
    reading = read(tmp_path, "path,label\na.wav,fröhlich\n".encode("latin-1"))
    assert reading.utterances[0].label == "fröhlich"
    assert reading.warnings == ("metadata.csv is not UTF-8 and was read as Windows-1252; check its accents",)


@pytest.mark.parametrize(
    ("cell", "number"),
    [("1.5", 1.5), ("1,5", 1.5), (" 2 ", 2.0), (",5", 0.5), ("1e-3", 1e-3), ("-1,170", -1.17)],
)
def test_numbers_may_have_a_decimal_comma(cell, number):
    assert tables.parse_number(cell) == number


@pytest.mark.parametrize("cell", ["", "1.000,5", "1,000,5", "1_000", "inf", "nan", "0x1", "one", "1 5"])
def test_other_numbers_are_refused(cell):
    with pytest.raises(ValueError, match="is not a number"):
        tables.parse_number(cell)


@settings(max_examples=200, deadline=None)
@given(
    rows=st.lists(st.lists(st.text("ab \"',;\t\n\r\\", max_size=6), min_size=3, max_size=3), max_size=6),
    dialect=st.sampled_from([",", ";", "\t"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
def test_rows_are_divided_as_by_the_csv_module(rows, dialect, quoting):
    file = io.StringIO(newline="")
    if dialect == "\t":  # where a quote before a tab on a line of its own is text
        rows = [[cell.replace("\t", " ") if {*"\r\n"} & {*cell} else cell for cell in row] for row in rows]
    csv.writer(file, delimiter=dialect, quoting=quoting).writerows(rows)
    found = [row.cells for row in tables.split_rows(Path("t.csv"), file.getvalue(), dialect)]
    assert found == [[cell.strip(" \t\r\n") for cell in row] for row in rows]


def test_split_rows_take_linear_time(monkeypatch):
    """Every character is matched a bounded number of times: the work for twice the rows is twice the work."""
    matches = []
    original = tables._LINE_END.match

    class Counting:
        def match(self, text, position=0):
            matches.append(1)
            return original(text, position)

        findall = staticmethod(tables._LINE_END.findall)
        split = staticmethod(tables._LINE_END.split)

    monkeypatch.setattr(tables, "_LINE_END", Counting())
    counts = []
    for number in (100, 200):
        matches.clear()
        list(tables.split_rows(Path("t.csv"), 'a.wav,calm,"x\ny"\n' * number, ","))
        counts.append(len(matches))
    assert counts == [100, 200]


@pytest.mark.real
def test_tables_of_meld_without_quotes_lose_no_row(tmp_path, real_data):
    """The training rows of MELD, joined by commas without quotes: every row with a comma in a cell is rejected."""
    with (real_data / "meld" / "train_sent_emo.csv").open(encoding="utf-8", newline="") as file:
        rows = [
            (f"{n}.wav", row["Utterance"], row["Emotion"], row["Speaker"])
            for n, row in enumerate(csv.DictReader(file))
        ]
    joined = "\n".join(["path,text,label,speaker", *(",".join(row) for row in rows), ""])
    with pytest.raises(InputError, match=r"line 4164: a quote is not closed .* the row of line 4165"):
        read(tmp_path, joined)
    clean = [row for row in rows if not any("," in cell for cell in row)]
    reading = read(tmp_path, joined.replace('"', "'"))
    assert len(rows) == 9_989 == len(reading.utterances) + len(reading.rejected)
    assert len(reading.utterances) == len(clean)
    texts = {(row[1].strip(" \xa0").replace('"', "'"), row[2]) for row in clean}
    assert {(u.transcript, u.label) for u in reading.utterances} == texts
    quoted = io.StringIO(newline="")
    csv.writer(quoted).writerows([("path", "text", "label", "speaker"), *rows])
    assert len(read(tmp_path, quoted.getvalue()).utterances) == 9_989
    assert len(meld.read(real_data / "meld").utterances) == 13_708


def test_json_and_csv_tables_agree(tmp_path):
    rows = [{"path": f"{n}.wav", "label": "calm", "text": f"a, {n}"} for n in range(3)]
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, HEADER)
    writer.writeheader()
    writer.writerows(rows)
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    assert read(tmp_path, file.getvalue()).utterances == read(tmp_path, lines, "metadata.jsonl").utterances
