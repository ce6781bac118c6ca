"""Quality flags: what is unusual about an utterance as a recipe reads it."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from jaxser.features import text
from jaxser.features.extraction import Precomputed, segment_bounds
from jaxser.features.recipes import Recipe, splits_characters, tokens
from jaxser.types import Utterance


def quality_flags(
    recipe: Recipe,
    utterance: Utterance,
    samples: Float[np.ndarray, " samples"],
    precomputed: Precomputed | None = None,
) -> tuple[str, ...]:
    """Return the flags that apply to an utterance under a recipe.

    They are `silent`, `clipped`, `no_words`, `characters` (words are single characters, as the script has no spaces),
    `cut_<array>` for what exceeds the recipe's limits, and, for recipes with word segments, `cut_segments`,
    `equal_segments` and `bad_alignment`.
    """
    words = tokens(recipe, utterance)
    flags = {
        **(_sound_flags(recipe, samples, precomputed or {}) if recipe.has_sound else {}),
        "cut_words": len(words) > recipe.parameters.get("max_words", 0),
        "no_words": words == (text.NO_WORDS,),
        "characters": splits_characters(recipe, utterance),
    }
    if "segmentation" in recipe.parameters:
        flags |= _segment_flags(recipe, utterance, len(samples))
    return tuple(flag for flag, applies in flags.items() if applies)


_SILENCE = 2.0**-15  # the smallest step of 16-bit samples
_FULL_SCALE = 0.999
_CLIPPED_SHARE = 0.001


def _sound_flags(
    recipe: Recipe, samples: Float[np.ndarray, " samples"], precomputed: Precomputed
) -> dict[str, bool]:
    peak = np.abs(samples)
    rows = {"audio": recipe.num_frames(len(samples))} | {
        name: len(array) for name, array in precomputed.items()
    }
    limits = {"audio": recipe.parameters["max_frames"], **recipe.precomputed}
    return {
        "silent": bool(peak.max() < _SILENCE),
        "clipped": bool((peak >= _FULL_SCALE).mean() > _CLIPPED_SHARE),
        **{f"cut_{name}": count > limits[name] for name, count in rows.items()},
    }


def _segment_flags(recipe: Recipe, utterance: Utterance, num_samples: int) -> dict[str, bool]:
    bounds, is_aligned = segment_bounds(recipe, utterance, num_samples)
    longest = recipe.num_frames(int((bounds[:, 1] - bounds[:, 0]).max()))
    wanted = recipe.parameters["segmentation"] == "aligned" and tokens(recipe, utterance) != (text.NO_WORDS,)
    return {
        "cut_segments": longest > recipe.parameters["max_segment_frames"],
        "equal_segments": wanted and not is_aligned,
        "bad_alignment": wanted and not is_aligned and bool(utterance.words),
    }
