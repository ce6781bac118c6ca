"""The tensors of a Hugging Face folder: read, checked and renamed. Nothing is unpickled."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from jaxser.encoders.configuration import Fields
from jaxser.types import InputError

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLED = "pytorch_model.bin"

_LEAVES = {"kernel": "weight", "scale": "weight", "embedding": "weight", "bias": "bias"}
_DTYPES = {"F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}
_WEIGHT_NORM = {  # of PyTorch before and since 2.0
    "parametrizations.weight.original0": "weight_g",
    "parametrizations.weight.original1": "weight_v",
}


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files of a folder.

    Raises:
        InputError: if there are none, or if a file of the index is missing.
    """
    if (folder / INDEX).is_file():
        shards = Fields.read(folder / INDEX).values.get("weight_map")
        if not isinstance(shards, dict) or not shards or not all(isinstance(v, str) for v in shards.values()):
            raise InputError(f"{folder / INDEX}: has no weight_map")
        files = [folder / Path(name).name for name in sorted(set(shards.values()))]
        if lacking := [path.name for path in files if not path.is_file()]:
            raise InputError(f"{folder / INDEX}: {_listed(lacking)} is missing; download the folder again")
        return files
    files = [folder / WEIGHTS] if (folder / WEIGHTS).is_file() else sorted(folder.glob("*.safetensors"))
    if len(files) == 1:
        return files
    if len(files) > 1:
        raise InputError(f"{folder}: several safetensors files without {INDEX}")
    if (folder / PICKLED).is_file() or list(folder.glob("pytorch_model*.bin")):
        raise InputError(
            f"{folder}: only pickled weights ({PICKLED}); convert them: python -m jaxser.encoders.convert {folder}"
        )
    raise InputError(f"{folder}: no weights ({WEIGHTS})")


def read_parameters(
    folder: Path, names: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]], prefixes: Sequence[str]
) -> tuple[dict[str, np.ndarray], tuple[str, ...], str]:
    """Read the parameters of an encoder from the safetensors files of a folder.

    Args:
        folder: a Hugging Face folder.
        names: the tensor of each module or parameter, with `{}` for the index of a layer.
        shapes: the shape of each parameter by its path, such as "layer_0/norm/scale".
        prefixes: what may precede the names of the tensors.

    Returns:
        The parameters in float32, the names of tensors that do not belong to the encoder (heads, decoders), and the
        SHA-256 of the names, types, shapes and bytes of those that do.

    Raises:
        InputError: if tensors are missing, unknown, misshapen or not finite, or if a file is damaged.
    """
    tensors = _Tensors(weight_files(folder))
    wanted = {path: tensor_name(path, names) for path in shapes}
    prefix = max(prefixes, key=lambda p: sum(tensors.has(p + name) for name in wanted.values()))
    tensors.check(folder, prefix, set(wanted.values()))
    parameters, digest = {}, hashlib.sha256()
    for path, name in sorted(wanted.items(), key=lambda item: item[1]):
        stored = tensors.read(prefix + name, digest, name)
        value = _to_flax_layout(path, stored)
        if value.shape != shapes[path]:
            expected = _to_flax_layout(path, np.broadcast_to(False, shapes[path])).shape
            raise InputError(
                f"{folder}: tensor {prefix + name} has shape {list(stored.shape)}, but config.json implies "
                f"{list(expected)}"
            )
        parameters[path] = value
    return parameters, tensors.outside(prefix, set(wanted.values())), digest.hexdigest()


def read_optional(
    folder: Path, name: str, shape: tuple[int, ...], prefixes: Sequence[str]
) -> np.ndarray | None:
    """Read a tensor that a folder may lack, in float32; None if it does.

    Raises:
        InputError: if the tensor is misshapen or not finite, or if a file is damaged.
    """
    tensors = _Tensors(weight_files(folder))
    for full in (prefix + name for prefix in prefixes):
        if tensors.has(full):
            value = tensors.read(full, hashlib.sha256(), name)
            if value.shape != shape:
                raise InputError(
                    f"{folder}: tensor {full} has shape {list(value.shape)}, but config.json implies {list(shape)}"
                )
            return value
    return None


def tensor_name(path: str, names: Mapping[str, str]) -> str:
    """Return the name of a parameter's tensor, without a prefix."""
    template = re.sub(r"_(\d+)(?=/|$)", "_{}", path)
    numbers = re.findall(r"_(\d+)(?=/|$)", path)
    for known in (path, template):
        if known in names:
            return names[known].format(*numbers)
    module, _, leaf = path.rpartition("/")
    module = module if module in names else template.rpartition("/")[0]
    return f"{names[module].format(*numbers)}.{_LEAVES[leaf]}"


def _to_flax_layout(path: str, tensor: np.ndarray) -> np.ndarray:
    """Transpose a kernel: the input of a PyTorch kernel is its second axis, that of a Flax kernel the last but one."""
    return tensor.T if path.endswith("kernel") else tensor


class _Tensors:
    """The tensors of several safetensors files."""

    def __init__(self, files: Sequence[Path]):
        self._where: dict[str, tuple[Path, str]] = {}  # by the name without the variants of weight norm
        for path in files:
            try:
                with safe_open(path, "np") as content:
                    keys = list(content.keys())
            except (SafetensorError, OSError) as error:
                raise _damaged(path, error) from None
            for key in keys:
                if key.endswith(".num_batches_tracked"):  # a count of training steps
                    continue
                name = key
                for new, old in _WEIGHT_NORM.items():
                    name = name.replace(new, old)
                if name in self._where:
                    raise InputError(f"{path}: tensor {name} is also in {self._where[name][0].name}")
                self._where[name] = (path, key)

    def has(self, name: str) -> bool:
        """Return whether a tensor is stored, as it is or as direction and length (weight norm)."""
        return name in self._where or {f"{name}_g", f"{name}_v"} <= self._where.keys()

    def check(self, folder: Path, prefix: str, wanted: set[str]) -> None:
        """Raise an InputError if tensors are missing, or if the encoder has other ones."""
        if lacking := sorted(name for name in wanted if not self.has(prefix + name)):
            if len(lacking) == len(wanted):
                raise InputError(
                    f"{folder}: its {len(self._where)} tensors are not those of this encoder family"
                )
            raise InputError(f"{folder}: missing tensors: {_listed([prefix + name for name in lacking])}")
        outside = set(self.outside(prefix, wanted))
        known = wanted | {f"{name}_{part}" for name in wanted for part in "gv"}
        surplus = sorted(n for n in self._where if n not in outside and n.removeprefix(prefix) not in known)
        if surplus:
            raise InputError(f"{folder}: tensors that config.json does not imply: {_listed(surplus)}")

    def outside(self, prefix: str, wanted: set[str]) -> tuple[str, ...]:
        """Return the tensors that do not belong to the encoder."""
        parts = {name.split(".")[0] for name in wanted}
        return tuple(
            sorted(
                name
                for name in self._where
                if not name.startswith(prefix) or name.removeprefix(prefix).split(".")[0] not in parts
            )
        )

    def read(self, name: str, digest: Any, label: str) -> np.ndarray:
        """Read a tensor in float32, and add it to a digest."""
        if name in self._where:
            return self._read(name, digest, label)
        length = self._read(f"{name}_g", digest, f"{label}_g")
        direction = self._read(f"{name}_v", digest, f"{label}_v")
        where = self._where[f"{name}_g"][0]
        if length.ndim != direction.ndim or any(
            a not in (1, b) for a, b in zip(length.shape, direction.shape, strict=True)
        ):
            raise InputError(f"{where}: {name}_g and {name}_v do not fit together")
        axes = tuple(axis for axis, size in enumerate(length.shape) if size == 1)
        norm = np.sqrt(np.sum(np.square(direction, dtype=np.float64), axis=axes, keepdims=True))
        if not norm.all():
            raise InputError(f"{where}: {name}_v has a direction of length 0")
        return (direction * (length / norm)).astype(np.float32)

    def _read(self, name: str, digest: Any, label: str) -> np.ndarray:
        path, key = self._where[name]
        try:
            with safe_open(path, "np") as content:
                dtype = content.get_slice(key).get_dtype()
                if dtype not in _DTYPES:
                    raise InputError(f"{path}: {key} has type {dtype} (supported: {', '.join(_DTYPES)})")
                tensor = content.get_tensor(key)
        except (SafetensorError, OSError) as error:
            raise _damaged(path, error) from None
        digest.update(json.dumps([label, dtype, list(tensor.shape)]).encode())
        digest.update(np.ascontiguousarray(tensor).tobytes())
        value = tensor.astype(np.float32)
        if not np.isfinite(value).all():
            raise InputError(f"{path}: {key} has NaN or infinite values")
        return value


def _damaged(path: Path, error: Exception) -> InputError:
    reason = getattr(error, "strerror", None) or " ".join(str(error).split())
    return InputError(f"{path}: truncated or not a safetensors file ({reason}); download it again")


def _listed(names: Sequence[str], limit: int = 3) -> str:
    rest = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + rest
