"""Write a run's network as one file that needs no jaxser to run: a `jax.export` artefact for CPU, CUDA and TPU.

    python -m jaxser.export --run=runs/mcsan --fold=Ses01 --seed=0 --out=mcsan.zip

The file is a zip of `network.bin` (the artefact, its normalisation inside), `description.json` (inputs, classes, how
the features are made) and `vocabulary.json`; nothing in it is pickled. Without --fold and --seed the network is the
mean over all replicas. Exit status: 0 done, 1 the run cannot be used, 2 wrong usage.
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

import jax
import jax.export
import jax.numpy as jnp

from jaxser import cli
from jaxser.cli import exit_status
from jaxser.evaluation.run_folder import environment
from jaxser.inference.ensemble import Ensemble
from jaxser.inference.saved_model import load
from jaxser.types import UsageError

PROGRAM = "jaxser.export"

PLATFORMS = ("cpu", "cuda", "tpu")
FORMAT = "jaxser export 1"

MEANINGS = {
    "audio": "frames of the recording, as the recipe makes them",
    "words": "places of the lower-cased words in vocabulary.json, 1 for a word that is not there",
    "segments": "frames of each word, one word after the other",
    "segment_lengths": "frames of each word",
    "video": "pictures of the speaker",
    "prosody": "functionals of the whole recording",
}

_SYMBOLS = {
    "audio": "9*audio",  # two poolings by three leave no remainder
    "words": "words",
    "segments": "segments",
    "segment_lengths": "words",
    "video": "video",
    "prosody": "1",
}
_SIZES = ("batch", "audio", "words", "segments", "video")

Specs = dict[str, jax.ShapeDtypeStruct]


def export(ensemble: Ensemble, sizes: Mapping[str, int] | None = None) -> jax.export.Exported:
    """A function of features as the recipe makes them, `{"audio": ..., "audio_length": ..., ...}`, to
    `{"probabilities": [batch, classes]}`.

    Batch and lengths may be any, but for those in `sizes` (`batch`, `audio`, `words`, `segments`, `video`) and those
    that the network fixes.

    Raises:
        UsageError: the network cannot do without fixed sizes, or has not those that are given.
    """
    specs = input_specs(ensemble, sizes or {})

    def probabilities(inputs):
        arrays = {name: inputs[name] for name in ensemble.model.needs}
        lengths = {name: inputs[f"{name}_length"] for name in arrays}
        log_probs = jax.lax.map(
            lambda one: ensemble.forward(one, arrays, lengths).log_probs, ensemble.replicas
        )
        return {"probabilities": jnp.exp(log_probs).mean(0)}

    try:
        with _no_places():
            return jax.export.export(jax.jit(probabilities), platforms=PLATFORMS)(specs)
    except (TypeError, ValueError, NotImplementedError, jax.errors.InconclusiveDimensionOperation) as error:
        if all(isinstance(size, int) for spec in specs.values() for size in spec.shape):
            raise
        reason = " ".join(str(error).split())[:160]
        raise UsageError(
            f"this network needs fixed sizes: give {_example(ensemble)} (without them: {reason})"
        ) from None


def write(ensemble: Ensemble, exported: jax.export.Exported, path: Path) -> None:
    """Write the file; the same run gives the same bytes.

    Raises:
        OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    parts: dict[str, str | bytes] = {
        "network.bin": bytes(exported.serialize()),
        "description.json": _json(describe(ensemble, exported)),
        "vocabulary.json": _json(ensemble.vocabulary.words),
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in parts.items():
            file.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)


def describe(ensemble: Ensemble, exported: jax.export.Exported) -> dict[str, Any]:
    """What one has to know to use the artefact without jaxser."""
    ((inputs,), _) = jax.tree.unflatten(exported.in_tree, exported.in_avals)
    told = ensemble.results
    return {
        "format": FORMAT,
        "use": 'jax.export.deserialize(network.bin).call(inputs)["probabilities"]: [batch, classes]',
        "model": told["model"],
        "variant": told["variant"],
        "dataset": told["dataset"],
        "synthetic": told["synthetic"],
        "replicas": [{"fold": fold, "seed": seed} for fold, seed in ensemble.members],
        "classes": ensemble.classes,
        "inputs": {
            name: {"dtype": str(spec.dtype), "shape": _shape(spec.shape), "meaning": _meaning(name)}
            for name, spec in inputs.items()
        },
        "padding": "zeros after what is real; a symbol in a shape may be any number",
        "normalisation": "inside the network: give features as the recipe makes them",
        "features": {
            "recipe": ensemble.recipe.name,
            "version": ensemble.recipe.version,
            "parameters": dict(ensemble.recipe.parameters),
        },
        "platforms": exported.platforms,
        "versions": {name: environment()[name] for name in ("jaxser", "jax", "flax")},
    }


@contextmanager
def _no_places() -> Iterator[None]:
    """Without the names of source files and their folders, which JAX writes into its programs."""
    before = jax.config.values["jax_traceback_in_locations_limit"]
    jax.config.update("jax_traceback_in_locations_limit", 0)
    try:
        yield
    finally:
        jax.config.update("jax_traceback_in_locations_limit", before)


def input_specs(ensemble: Ensemble, sizes: Mapping[str, int]) -> Specs:
    """Shapes of the inputs; what is not fixed is symbolic."""
    needs, fixed = ensemble.model.needs, dict(ensemble.model.lengths)
    for name, size in sizes.items():
        if name != "batch" and name not in needs:
            raise UsageError(f"--{name}: this network reads none; it reads {', '.join(needs)}")
        if fixed.get(name, size) != size:
            raise UsageError(f"--{name}={size}: this network's is {fixed[name]}")
        if size < 1:
            raise UsageError(f"--{name}={size}: must be 1 or more")
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
    """Flags of the largest recording that the recipe makes."""
    parameters = ensemble.recipe.parameters
    longest = {
        "audio": parameters["max_frames"],
        "words": parameters.get("max_words", 128),
        "segments": parameters["max_frames"],
        "video": ensemble.recipe.elsewhere.get("video", 1),
    }
    sizes = {"batch": 1} | {n: size for n, size in longest.items() if n in ensemble.model.needs}
    return " ".join(f"--{name}={size}" for name, size in sizes.items())


def _shape(shape: Sequence[Any]) -> list[int | str]:
    return [size if isinstance(size, int) else str(size) for size in shape]


def _meaning(name: str) -> str:
    array = name.removesuffix("_length")
    return MEANINGS.get(name, f"how many steps of {array} are real, for each recording")


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line's exit status; errors are one line."""
    args = _parser().parse_args(arguments)
    return exit_status(PROGRAM, lambda: _export(args), output=args.out or args.run)


def _export(args: argparse.Namespace) -> int:
    ensemble = load(args.run, fold=args.fold, seed=args.seed)
    sizes = {name: size for name in _SIZES if (size := getattr(args, name)) is not None}
    exported = export(ensemble, sizes)
    path = args.out or args.run / "export" / f"{_name(args)}.zip"
    write(ensemble, exported, path)
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
    parser.add_argument("--fold", help="only the replicas of this fold (default: all)")
    parser.add_argument("--seed", type=int, help="only the replicas of this seed (default: all)")
    parser.add_argument("--out", type=Path, help="the file (default: <run>/export/fold-F-seed-S.zip)")
    for name in _SIZES:
        parser.add_argument(f"--{name}", type=int, help=f"a fixed size of {name} (default: any)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
