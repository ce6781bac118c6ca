"""Export the network of a run as one file that runs without jaxser.

It is a `jax.export` artefact for CPU, CUDA and TPU.

    python -m jaxser.export --run=runs/mcsan --fold=Ses01 --seed=0 --out=mcsan.zip

The file is a zip of `network.bin` (the artefact, with its normalisation), `description.json` (inputs, classes and how
features are extracted) and `vocabulary.json`; nothing in it is pickled. Without --fold and --seed, the network is the
mean over all replicas. Exit status: 0 on success, 1 if the run cannot be used, 2 for wrong usage.
"""

from __future__ import annotations

import argparse
import json
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jaxser import cli

with cli.importing("jaxser.export"):
    import jax
    import jax.export
    import jax.numpy as jnp

    from jaxser import files
    from jaxser.cli import run_command
    from jaxser.evaluation.environment import environment
    from jaxser.evaluation.targets import ATTRIBUTES, CLASSES, VOTES
    from jaxser.inference.ensemble import Ensemble
    from jaxser.inference.saved_model import load
    from jaxser.types import UsageError

PROGRAM = "jaxser.export"

PLATFORMS = ("cpu", "cuda", "tpu")
FORMAT = "jaxser export 1"

OUTPUTS = {CLASSES: "probabilities", ATTRIBUTES: "attributes", VOTES: "probabilities"}
"""The name of the output, by target."""

MEANINGS = {
    "audio": "feature frames of the recording, as the recipe extracts them",
    "words": "indices of the lower-cased words in vocabulary.json; 1 for an unknown word",
    "segments": "the frames of all words, concatenated",
    "segment_lengths": "the number of frames of each word",
    "video": "features of the video frames that show the speaker",
    "prosody": "functionals of the whole recording",
    "waveform": "16-bit samples at 16 kHz",
}

_SYMBOLS = {
    "audio": "9*audio",  # a multiple of 9, so that two poolings by 3 leave no remainder
    "words": "words",
    "segments": "segments",
    "segment_lengths": "words",
    "video": "video",
    "prosody": "1",
    "waveform": "waveform",
}
_SIZES = ("batch", "audio", "words", "segments", "video", "waveform")

Specs = dict[str, jax.ShapeDtypeStruct]


def export(ensemble: Ensemble, sizes: Mapping[str, int] | None = None) -> jax.export.Exported:
    """Export the mean prediction of the replicas as a function of features.

    Its input is `{"audio": ..., "audio_length": ..., ...}`, with features before normalisation, and its output is
    `{"probabilities": [batch, classes]}` or `{"attributes": [batch, attributes]}`.

    Args:
        ensemble: the networks to export.
        sizes: fixed sizes of `batch`, `audio`, `words`, `segments`, `video` or `waveform`. All other sizes are
            symbolic, except lengths that the network requires.

    Raises:
        UsageError: if the network needs fixed sizes, or `sizes` does not match the network.
    """
    specs = input_specs(ensemble, sizes or {})

    def outputs(inputs):
        arrays = {name: inputs[name] for name in ensemble.model.needs}
        lengths = {name: inputs[f"{name}_length"] for name in arrays}
        estimates = jax.lax.map(
            lambda one: ensemble.estimates(one, arrays, lengths, ensemble.encoder), ensemble.replicas
        )
        return {OUTPUTS[ensemble.target.kind]: ensemble.target.readable(estimates).mean(0)}

    try:
        with _no_source_locations():
            return jax.export.export(jax.jit(outputs), platforms=PLATFORMS)(specs)
    except (TypeError, ValueError, NotImplementedError, jax.errors.InconclusiveDimensionOperation) as error:
        if all(isinstance(size, int) for spec in specs.values() for size in spec.shape):
            raise
        reason = " ".join(str(error).split())[:160]
        raise UsageError(
            f"this network needs fixed sizes: give {_example(ensemble)} (without them: {reason})"
        ) from None


def write(ensemble: Ensemble, exported: jax.export.Exported, path: Path, root: Path | None = None) -> None:
    """Write the zip file, which is complete or absent; the same run gives the same bytes.

    Args:
        ensemble: the networks that were exported.
        exported: the artefact.
        path: the zip file.
        root: the folder below which no link is followed; by default, that of the file.

    Raises:
        InputError: if the path leads through a link.
        OSError: if the file cannot be written.
    """
    root = root or path.parent
    parts: dict[str, str | bytes] = {
        "network.bin": bytes(exported.serialize()),
        "description.json": _json(describe(ensemble, exported)),
        "vocabulary.json": _json(ensemble.vocabulary.words),
    }
    with files.open_binary(root, path.relative_to(root)) as file, zipfile.ZipFile(file, "w") as archive:
        for name, content in parts.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)


def describe(ensemble: Ensemble, exported: jax.export.Exported) -> dict[str, Any]:
    """Return the contents of description.json, for users of the artefact without jaxser."""
    ((inputs,), _) = jax.tree.unflatten(exported.in_tree, exported.in_avals)
    results, output = ensemble.run_results, OUTPUTS[ensemble.target.kind]
    return {
        "format": FORMAT,
        "use": f'jax.export.deserialize(network.bin).call(inputs)["{output}"]: [batch, {ensemble.target.kind}]',
        "model": results.model,
        "variant": results.variant,
        "dataset": results.dataset,
        "synthetic": results.synthetic,
        "replicas": [{"fold": fold, "seed": seed} for fold, seed in ensemble.members],
        "classes": ensemble.classes,
        **({} if ensemble.target.kind == CLASSES else {"target": ensemble.target.to_json()}),
        "inputs": {
            name: {"dtype": str(spec.dtype), "shape": _shape(spec.shape), "meaning": _meaning(name)}
            for name, spec in inputs.items()
        },
        "padding": "zeros after the valid steps; a symbol in a shape stands for any size",
        "normalisation": "part of the network: pass features as the recipe extracts them",
        "features": {
            "recipe": ensemble.recipe.name,
            "version": ensemble.recipe.version,
            "parameters": dict(ensemble.recipe.parameters),
        },
        "platforms": exported.platforms,
        "versions": {name: environment()[name] for name in ("jaxser", "jax", "flax")},
    }


@contextmanager
def _no_source_locations() -> Iterator[None]:
    """Keep the paths of source files out of JAX programs."""
    before = jax.config.values["jax_traceback_in_locations_limit"]
    jax.config.update("jax_traceback_in_locations_limit", 0)
    try:
        yield
    finally:
        jax.config.update("jax_traceback_in_locations_limit", before)


def input_specs(ensemble: Ensemble, sizes: Mapping[str, int]) -> Specs:
    """Return the shapes and dtypes of the inputs; sizes that are not fixed are symbolic.

    Raises:
        UsageError: if `sizes` does not match the network.
    """
    needs, fixed = ensemble.model.needs, dict(ensemble.model.lengths)
    for name, size in sizes.items():
        if name != "batch" and name not in needs:
            raise UsageError(f"--{name}: this network does not read it; it reads {', '.join(needs)}")
        if fixed.get(name, size) != size:
            raise UsageError(f"--{name}={size}: this network requires {fixed[name]}")
        if size < 1:
            raise UsageError(f"--{name}={size} must be at least 1")
    fixed |= sizes
    if "words" in fixed:
        fixed["segment_lengths"] = fixed["words"]
    scope = jax.export.SymbolicScope()
    specs: Specs = {}
    for name in needs:
        spec = ensemble.arrays[name]
        dimensions = (fixed.get("batch", "batch"), fixed.get(name, _SYMBOLS[name]), *spec.shape[1:])
        batch, *rest = jax.export.symbolic_shape(", ".join(map(str, dimensions)), scope=scope)
        specs[name] = jax.ShapeDtypeStruct((batch, *rest), spec.dtype)
        specs[f"{name}_length"] = jax.ShapeDtypeStruct((batch,), jnp.int32)
    return specs


def _example(ensemble: Ensemble) -> str:
    """Return flags for the longest recording that the recipe allows."""
    parameters = ensemble.recipe.parameters
    longest = {
        "audio": parameters["max_frames"],
        "words": parameters.get("max_words", 128),
        "segments": parameters["max_frames"],
        "waveform": parameters["max_frames"],
        "video": ensemble.recipe.precomputed.get("video", 1),
    }
    sizes = {"batch": 1} | {n: size for n, size in longest.items() if n in ensemble.model.needs}
    return " ".join(f"--{name}={size}" for name, size in sizes.items())


def _shape(shape: Sequence[Any]) -> list[int | str]:
    return [size if isinstance(size, int) else str(size) for size in shape]


def _meaning(name: str) -> str:
    array = name.removesuffix("_length")
    return MEANINGS.get(name, f"the number of valid steps of {array} in each recording")


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status; errors are printed on one line."""
    args = _parser().parse_args(arguments)
    return run_command(PROGRAM, lambda: _export(args), output=args.out or args.run)


def _export(args: argparse.Namespace) -> int:
    ensemble = load(args.run, fold=args.fold, seed=args.seed, encoder=args.encoder)
    sizes = {name: size for name in _SIZES if (size := getattr(args, name)) is not None}
    exported = export(ensemble, sizes)
    path = args.out or args.run / "export" / f"{_name(args)}.zip"
    write(ensemble, exported, path, None if args.out else args.run)
    shapes = ", ".join(
        f"{name} {spec['shape']}" for name, spec in describe(ensemble, exported)["inputs"].items()
    )
    number = len(ensemble.members)
    print(
        f"{path}: {path.stat().st_size / 1e6:.1f} MB, {number} replica{'s' * (number > 1)}, for {', '.join(PLATFORMS)}"
    )
    print(f"inputs: {shapes}".replace("'", ""))
    return 0


def _name(args: argparse.Namespace) -> str:
    parts = {"fold": args.fold, "seed": args.seed}
    chosen = [f"{name}-{value}" for name, value in parts.items() if value is not None]
    return "-".join(chosen) or "all"


def _parser() -> argparse.ArgumentParser:
    parser = cli.parser(PROGRAM, "python -m jaxser.export", __doc__)
    parser.add_argument("--run", type=Path, required=True, help="the folder of a finished run")
    parser.add_argument("--fold", help="export only the replicas of this fold (default: all)")
    parser.add_argument("--seed", type=int, help="export only the replicas of this seed (default: all)")
    parser.add_argument("--out", type=Path, help="the output file (default: <run>/export/fold-F-seed-S.zip)")
    parser.add_argument(
        "--encoder", type=Path, help="the folder of the pretrained encoder in front of the network"
    )
    for name in _SIZES:
        parser.add_argument(f"--{name}", type=int, help=f"fix the size of {name} (default: any)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
