"""The papers' printed results (`results.yaml`), and the config that trains each row."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache
from importlib.resources import files
from typing import Any

import yaml


@dataclass(frozen=True)
class Variant:
    """A variant of the paper's config that trains a row, with further changed fields."""

    name: str
    changes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Printed:
    """A row of a paper's table: scores as fractions, under the standard names WA and UA.

    Attributes:
        model: as the paper calls it, with what distinguishes it from other rows of the table.
        cited: whether the paper cites the row instead of having run it.
        std_over: what standard deviations are over: "folds" or "runs"; "" if the paper prints none or does not say.
        scores: mean and standard deviation by our name of the metric, with as many decimals as are printed.
        caveats: what a reader of the row must know.
        not_stated: settings that the paper does not state, by their paths in its config.
        exchanged: whether the paper prints WA under the name of UA, and UA under that of WA.
        variant: None if the row is not trained, only cited.
    """

    id: str
    paper: str
    title: str
    venue: str
    table: str
    model: str
    cited: bool
    std_over: str
    scores: Mapping[str, tuple[Decimal | None, Decimal | None]]
    exchanged: bool
    caveats: tuple[str, ...]
    not_stated: tuple[str, ...]
    protocol: Mapping[str, Any]
    variant: Variant | None

    @property
    def corpus(self) -> str:
        """The name of the corpus, as in `jaxser.corpora`."""
        return self.protocol["dataset"].lower()


CONFIGS = {
    "lee2020_can": "can",
    "sun2021_mcsan": "mcsan",
    "he2021_ilt_cat": "cat_ilt",
    "ramet2018_lstm_attention": "lstm_attention",
    "rajan2022_self_cross": "self_cross",
}
"""The config of each paper."""

_IMPROVISED = {"subset": "improvised"}

VARIANTS: Mapping[str, Mapping[str, Variant]] = {
    "lee2020_can": {
        "t2/001": Variant("text_model"),
        "t2/002": Variant("audio_model"),
        "t2/003": Variant("mha"),
        "t2/004": Variant("xu"),
        "t2/005": Variant("can"),
        "t3/006": Variant("can"),
        "t3/007": Variant("equal_segmentation"),
        "t4/008": Variant("can"),
        "t4/009": Variant("no_stop_gradient"),
        "t4/010": Variant("no_align_loss"),
        "t4/011": Variant("no_stop_gradient_no_align_loss"),
        "t4/012": Variant("no_cross_attention"),
    },
    "sun2021_mcsan": {
        "t1/013": Variant("mdre"),
        "t1/014": Variant("mha"),
        "t1/015": Variant("xu"),
        "t1/016": Variant("can"),
        "t1/017": Variant("amh"),
        "t1/018": Variant("mcsan"),
        "t2/022": Variant("mcsan"),
        "t3/023": Variant("mcsan"),
        "t3/024": Variant("text_only"),  # w/o audio
        "t3/025": Variant("audio_only"),  # w/o text
        "t3/026": Variant("no_self"),
        "t3/027": Variant("no_cross"),
        "t3/028": Variant("cross_then_self"),
        "t3/029": Variant("self_then_cross"),
        "t3/030": Variant("two_layers"),
        "t3/031": Variant("three_layers"),
    },
    "he2021_ilt_cat": {
        "t1/032": Variant("cnn_transformer_no_positions"),
        "t1/033": Variant("cnn_transformer"),
        "t1/034": Variant("cnn_lstm_transformer_no_positions"),
        "t1/035": Variant("cnn_lstm_transformer"),
        "t1/036": Variant("ilt_concatenation"),
        "t1/037": Variant("ilt_concatenation_positions"),
        "t1/038": Variant("ilt_plus"),
        "t1/039": Variant("ilt_plus_positions"),
        "t1/040": Variant("ilt_trainable_plus"),
        "t1/041": Variant("ilt_trainable_plus_positions"),
        "t2/042": Variant("cat"),
        "t2/043": Variant("cnn_transformer"),
        "t2/044": Variant("lstm_transformer"),
        "t2/045": Variant("cnn_lstm"),
        "t2/046": Variant("cat_cnn_to_lstm"),
        "t2/047": Variant("cat_lstm_to_cnn"),
    },
    "ramet2018_lstm_attention": {
        "t1/048": Variant("mean_pool"),
        "t1/049": Variant("mean_pool", _IMPROVISED),
        "t1/050": Variant("zhou"),
        "t1/051": Variant("zhou", _IMPROVISED),
        "t1/052": Variant("yang"),
        "t1/053": Variant("yang", _IMPROVISED),
        "t1/054": Variant("lstm_attention"),
        "t1/055": Variant("lstm_attention", _IMPROVISED),
        "t2/063": Variant("lstm_attention"),
        "t2/064": Variant("lstm_attention", _IMPROVISED),
    },
    "rajan2022_self_cross": {
        "t1/065": Variant("self_t"),
        "t1/066": Variant("self_v"),
        "t1/067": Variant("self_a"),
        "t1/068": Variant("mdre_tv"),
        "t1/069": Variant("mha_tv"),
        "t1/070": Variant("cross_tv"),
        "t1/071": Variant("self_tv"),
        "t1/072": Variant("mdre_ta"),
        "t1/073": Variant("mha_ta"),
        "t1/074": Variant("cross_ta"),
        "t1/075": Variant("self_ta"),
        "t1/076": Variant("mdre_va"),
        "t1/077": Variant("mha_va"),
        "t1/078": Variant("cross_va"),
        "t1/079": Variant("self_va"),
        "t1/080": Variant("mdre_tva"),
        "t1/081": Variant("amh"),
        "t1/082": Variant("cross"),
        "t1/083": Variant("self"),
        "t2/084": Variant("cross_no_sp"),
        "t2/085": Variant("cross"),
        "t2/086": Variant("self_no_sp"),
        "t2/087": Variant("self"),
        "t2/088": Variant("cross_self"),
    },
}
"""The variant that trains each row, by paper and the rest of the row's id; rows that are not listed are only cited."""

_FIELDS = {"WA": "wa", "UA": "ua", "weighted_F1": "f1_weighted"}


def tables() -> dict[str, tuple[Printed, ...]]:
    """Return the result tables of the five papers by name, such as `lee2020/table4`.

    Rows are in the paper's order.
    """
    by_name: dict[str, list[Printed]] = {}
    for row in _rows():
        if row.paper in CONFIGS:
            by_name.setdefault(f"{row.paper.split('_')[0]}/table{row.table}", []).append(row)
    return {name: tuple(rows) for name, rows in by_name.items()}


def printed(config: Mapping[str, Any]) -> Printed | None:
    """Return the row that a run of this config is compared with, or None.

    A row on the same corpus is preferred, and then one that the paper ran itself over one that it cites.
    """
    if config.get("target", "classes") != "classes":
        return None  # no paper's table has other targets
    fitting = [row for row in _rows() if row.paper == config.get("paper") and _is_of(row, config)]
    corpus = config.get("corpus") or config.get("dataset")
    same_corpus = [row for row in fitting if row.corpus == corpus]
    return next(iter(sorted(same_corpus or fitting, key=lambda row: row.cited)), None)


def row(identity: str) -> Printed:
    """Return a row by its id, such as `lee2020_can/t2/005`."""
    return next(one for one in _rows() if one.id == identity)


def _is_of(row: Printed, config: Mapping[str, Any]) -> bool:
    if row.variant is None or row.variant.name != config.get("variant"):
        return False
    return row.variant.changes.get("subset", "all") == config.get("subset", "all")


@cache
def _rows() -> tuple[Printed, ...]:
    return tuple(_read())


def _read() -> Iterator[Printed]:
    text = files("jaxser").joinpath("papers/results.yaml").read_text(encoding="utf-8")
    # the safe loader, in C if libyaml is installed
    data = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    for entry in data["results"]:
        paper = data["papers"][entry["paper"]]
        protocol = data["protocols"][entry["protocol"]]
        is_percent = paper["unit"] == "percent"
        has_std = any(value["std"] is not None for value in entry["metrics"].values())
        yield Printed(
            id=entry["id"],
            paper=entry["paper"],
            title=paper["title"],
            venue=paper["venue"],
            table=entry["table"],
            model=_name(entry),
            cited="cited" in entry["role"],
            std_over=protocol.get("std_over", "") if has_std else "",
            scores={
                _FIELDS[name]: (_fraction(value["mean"], is_percent), _fraction(value["std"], is_percent))
                for name, value in entry["metrics"].items()
                if name in _FIELDS
            },
            exchanged=entry["paper"] in CONFIGS
            and any(value.get("printed_as") for value in entry["metrics"].values()),
            caveats=(*protocol.get("caveats", ()), *filter(None, [entry.get("note")])),
            not_stated=tuple(paper.get("not_stated", ())),
            protocol=protocol,
            variant=VARIANTS.get(entry["paper"], {}).get(entry["id"].split("/", 1)[1]),
        )


def _name(entry: Mapping[str, Any]) -> str:
    """Return the model, with the columns that distinguish the rows of its table.

    "Ours" would be mistaken for jaxser's.
    """
    columns = [entry.get("fusion")]
    if "positional_encoding" in entry:
        columns.append("with positions" if entry["positional_encoding"] else "without positions")
    if entry["paper"].startswith("rajan") and "modality" in entry:
        columns.append(entry["modality"])
    if "improvised" in entry["protocol"]:
        columns.append("improvised")
    model = re.sub(r" ?\(ours\)", " (proposed)", entry["model"])
    return ", ".join([model, *filter(None, columns)])


def _fraction(value: str | None, is_percent: bool) -> Decimal | None:
    return None if value is None else Decimal(value).scaleb(-2 if is_percent else 0)
