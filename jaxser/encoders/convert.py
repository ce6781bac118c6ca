"""Convert a Hugging Face folder's pytorch_model.bin to model.safetensors.

    python -m jaxser.encoders.convert FOLDER

Needs PyTorch: pip install 'jaxser[convert]'. The file is read with `weights_only=True`, which loads tensors and runs no
code of the file. The folder's pickled files are kept.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxser import cli
from jaxser.encoders.checkpoint import PICKLED, WEIGHTS
from jaxser.types import InputError, UsageError

_SHARDS = "pytorch_model-*-of-*.bin"


def convert(folder: str | Path) -> Path:
    """Write model.safetensors from the pickled weights of a folder, and return its path.

    Raises:
        InputError: if the folder has no pickled weights, or if they cannot be read as tensors.
        UsageError: if PyTorch is not installed, or if model.safetensors exists.
    """
    folder = Path(folder)
    target = folder / WEIGHTS
    if target.exists():
        raise UsageError(f"{target}: exists already; nothing to convert")
    files = [folder / PICKLED] if (folder / PICKLED).is_file() else sorted(folder.glob(_SHARDS))
    if not files:
        raise InputError(f"{folder}: no {PICKLED}")
    try:
        from safetensors.torch import save_file
    except ImportError:
        raise UsageError("converting needs PyTorch: pip install 'jaxser[convert]'") from None
    tensors: dict[str, Any] = {}
    for path in files:
        tensors |= {name: tensor.contiguous().clone() for name, tensor in _read(path).items()}
    unfinished = target.with_suffix(".unfinished")
    save_file(tensors, unfinished)
    os.replace(unfinished, target)
    return target


def _read(path: Path) -> Mapping[str, Any]:
    import torch

    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # PyTorch raises many types for damaged files
        reason = " ".join(str(error).split())[:100]
        raise InputError(f"{path}: cannot be read as tensors alone ({reason})") from None
    if not isinstance(content, dict) or not all(isinstance(t, torch.Tensor) for t in content.values()):
        raise InputError(f"{path}: not a table of tensors")
    return content


def main() -> int:
    """Run the command."""
    parser = cli.parser("convert", "python -m jaxser.encoders.convert", __doc__)
    parser.add_argument("folder", type=Path, help="a folder with config.json and pytorch_model.bin")
    arguments = parser.parse_args()

    def work() -> int:
        print(convert(arguments.folder))
        return 0

    return cli.run_command("convert", work, output=arguments.folder)


if __name__ == "__main__":
    sys.exit(main())
