"""The summary that is printed when a dataset has been prepared."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from jaxser.data import shards
from jaxser.types import Reading

from .build import IGNORED, REJECTED, BuildPlan


def print_recognised(console: Console, reading: Reading) -> None:
    """Print the layout that was recognised, and how each column was read."""
    if "layout" not in reading.facts:
        return
    columns = ", ".join(f"{column} = {own}" for column, own in reading.facts["columns"].items())
    ignored = ", ".join(reading.facts.get("ignored_columns", ()))
    console.print(
        f"read as {reading.facts['layout']}: {columns}" + (f"; not used: {ignored}" if ignored else "")
    )


def print_summary(console: Console, plan: BuildPlan, seconds: float) -> None:
    """Print the counts by label, what is not used, the quality flags, and the dataset's size."""
    manifest = json.loads((plan.directory / shards.MANIFEST).read_text(encoding="utf-8"))
    console.print(f"{plan.name}: {manifest['utterances']} utterances")
    console.print(_label_table(manifest["labels"]["found"], manifest["labels"]["expected"]))
    see = f" (see {plan.directory / REJECTED})" if manifest["rejected"] else ""
    flags = ", ".join(f"{flag} {count}" for flag, count in manifest["flags"].items()) or "none"
    console.print(f"rejected: {manifest['rejected']}{see}; quality flags: {flags}")
    for line in _other_counts(manifest, plan.directory / IGNORED):
        console.print(line)
    if characters := manifest["flags"].get("characters"):
        console.print(
            f"{characters} transcripts are in a script without spaces and are read as single characters; to use words, "
            "divide them by spaces with a segmenter and give --segmenter=spaces"
        )
    if coverage := manifest["embeddings"].get("coverage"):
        console.print(
            f"GloVe covers {coverage['types']:.1%} of the vocabulary and {coverage['tokens']:.1%} of the text"
        )
        if duplicates := coverage.get("duplicates"):
            console.print(f"words with several vectors, of which the first is used: {duplicates}")
    megabytes = sum(shard["bytes"] for shard in manifest["shards"]) / 1e6
    console.print(
        f"{plan.directory}: {megabytes:.1f} MB in {manifest['number_of_shards']} shards, {seconds:.1f} s"
    )


def _other_counts(manifest: Mapping[str, Any], ignored: Path) -> list[str]:
    """Return one line for each kind of item that is not used, or is used twice, if there are any."""
    left_out = manifest["labels"]["left_out"]
    counted = ", ".join(f"{label} {count}" for label, count in left_out.items())
    lines = {
        f"left out by their labels: {counted}": len(left_out),
        f"byte-identical copies, each used once: {manifest['copies']}": manifest["copies"],
        f"recordings that are identical to one of another id: {manifest['identical_recordings']}": manifest[
            "identical_recordings"
        ],
        f"ignored files and lines about utterances that are used: {manifest['ignored']} (see {ignored})": manifest[
            "ignored"
        ],
    }
    return [line for line, count in lines.items() if count]


def _label_table(found: Mapping[str, int], expected: Mapping[str, int]) -> Table:
    """Return the number of utterances by label, beside that of the original release if it is known."""
    table = Table("label")
    columns = {"found": found, **({"in the original release": expected} if expected else {})}
    for title in columns:
        table.add_column(title, justify="right")
    for label in sorted({**found, **expected}):
        table.add_row(label or "no label", *(str(counts.get(label, 0)) for counts in columns.values()))
    return table
