"""The run folder before training: which run it holds, and what is cleaned up in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import google_crc32c

from jaxser import files
from jaxser.config import flatten
from jaxser.configs import common
from jaxser.evaluation import run_folder
from jaxser.evaluation.records import RunConfig
from jaxser.training.multihost import broadcast_from_primary
from jaxser.types import Dataset, UsageError


def is_finished(folder: Path) -> bool:
    """Return whether a folder holds a finished run, on all processes."""
    return broadcast_from_primary((folder / run_folder.RESULTS).is_file())


def claim(folder: Path, asked: RunConfig) -> None:
    """Write what a new run is asked to do, or clean up after an interrupted one."""
    for name in (".", run_folder.MODEL, f"{run_folder.CHECKPOINTS}/ended"):
        files.remove_leftovers(folder, name)
    if (folder / run_folder.CONFIG).is_file():
        files.remove(folder, run_folder.DIGESTS)  # written before the results, which are missing
    else:
        run_folder.write_config(folder, asked)


def check_same(folder: Path, asked: RunConfig) -> None:
    """Check that a folder was started with the same config and dataset.

    Raises:
        UsageError: if it was not.
    """
    if changed := first_difference(run_folder.read_config(folder), asked):
        raise UsageError(
            f"{folder} holds a run of another {changed}; give another --workdir, or remove that folder"
        )


def digest_of(dataset: Dataset) -> str:
    """Return a CRC-32C that tells datasets apart.

    It covers what determines the shards, and the encoder of their waveforms; of merged datasets, those of each.
    """
    parts = ["name", "recipe", "version", "shards", "labels", "embeddings"]
    parts += ["common"] if dataset.sources else []  # the common classes of the labels of merged datasets
    manifest = run_folder.plain({name: dataset.manifest.get(name) for name in parts})
    if dataset.encoder is not None:
        manifest["encoder"] = dataset.encoder.digest
    return f"{google_crc32c.value(json.dumps(manifest, sort_keys=True).encode()):08x}"


def first_difference(before: RunConfig, asked: RunConfig) -> str:
    """Describe the first difference that changes results; empty if there is none."""
    if before.dataset != asked.dataset:
        return "version of the dataset" + " or encoder" * bool(asked.fields["encoder"]["folder"])
    fields, new = flatten(before.fields), flatten(asked.fields)
    old = _defaults() | fields
    without_effect = {"corpus", "note", "encoder.folder"}
    for name in sorted((fields.keys() | new.keys()) - without_effect):
        if old.get(name) != new.get(name):
            return f"config: {name} was {json.dumps(old.get(name))} and is now {json.dumps(new.get(name))}"
    return ""


def _defaults() -> dict[str, Any]:
    """Return the value of each field that a run of an earlier version may lack."""
    fields = common.base_config("", paper="").to_dict()
    return flatten(run_folder.plain({**fields, "sweep": dict.fromkeys(fields["hyper"], ())}))
