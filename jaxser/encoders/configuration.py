"""The fields of a config.json, with one-line errors."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxser.types import InputError

MAX_LAYERS = 1000

_REQUIRED: Any = object()


@dataclass(frozen=True)
class Fields:
    """The fields of a JSON file. A field that is missing or null has its default."""

    path: Path
    values: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path) -> Fields:
        """Read a JSON file.

        Raises:
            InputError: if the file cannot be read, or is not a JSON object.
        """
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from None
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}: not valid JSON ({error})") from None
        if not isinstance(values, dict):
            raise InputError(f"{path}: not a JSON object")
        return cls(path, values)

    def _get(self, name: str, default: Any, expected: str, is_valid: Any) -> Any:
        value = self.values.get(name)
        if value is None:
            if default is _REQUIRED:
                raise InputError(f"{self.path}: field {name!r} is missing")
            return default
        if not is_valid(value):
            raise InputError(f"{self.path}: {name}={value!r} is not {expected}")
        return value

    def count(self, name: str, default: int = _REQUIRED) -> int:
        """Return a positive integer."""
        return self._get(name, default, "a positive integer", _is_count)

    def layers(self, name: str, default: int = _REQUIRED) -> int:
        """Return a number of layers, of which each is traced."""
        expected = f"a positive integer of at most {MAX_LAYERS}"
        return self._get(name, default, expected, lambda v: _is_count(v) and v <= MAX_LAYERS)

    def divisor(self, name: str, default: int, of: str, size: int) -> int:
        """Return a positive integer that divides the field `of`, which is `size`."""
        value = self.count(name, default)
        if size % value:
            raise InputError(f"{self.path}: {name}={value} does not divide {of}={size}")
        return value

    def counts(self, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
        """Return a list of positive integers."""
        expected = "a list of positive integers"
        return tuple(self._get(name, default, expected, _is_counts))

    def number(self, name: str, default: float) -> float:
        """Return a number that is not negative."""
        return float(
            self._get(
                name,
                default,
                "a number",
                lambda v: isinstance(v, int | float) and v >= 0 and v != float("inf"),
            )
        )

    def flag(self, name: str, default: bool) -> bool:
        """Return a truth value."""
        return self._get(name, default, "true or false", lambda v: isinstance(v, bool))

    def choice(self, name: str, choices: Iterable[str], default: str = _REQUIRED) -> str:
        """Return one of several names."""
        choices = tuple(choices)
        expected = f"one of {', '.join(choices)}"
        return self._get(name, default, expected, lambda v: isinstance(v, str) and v in choices)

    def require(self, name: str, value: Any) -> None:
        """Check that a field is missing or has a value."""
        self._get(name, value, f"supported (only {value!r} is)", lambda v: v == value)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_counts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_count, value))
