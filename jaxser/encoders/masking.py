"""SpecAugment (Park et al. 2019) on an encoder's features, as in the encoders' papers.

wav2vec 2.0, HuBERT, WavLM and data2vec are fine-tuned with spans of steps that are replaced by the mask embedding of
their pretraining, and with spans of features that are zero (Baevski et al. 2020, appendix B). Whisper's are zero along
both axes of its spectrum. Spans may overlap.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from jaxser.types import FieldError


@dataclass(frozen=True)
class Masking:
    """How much is masked.

    A row of n valid steps has `prob` x n / `length` spans, rounded up or down at random. Without overlaps, a share
    `prob` is therefore masked.

    Attributes:
        time_prob: the share of steps.
        time_length: steps of a span along time.
        feature_prob: the share of features.
        feature_length: features of a span.
    """

    time_prob: float = 0.0
    time_length: int = 10
    feature_prob: float = 0.0
    feature_length: int = 10

    @property
    def is_on(self) -> bool:
        """Whether anything is masked."""
        return bool(self.time_prob or self.feature_prob)

    def check(self) -> None:
        """Check the fields.

        Raises:
            FieldError: if one is out of range.
        """
        for axis, prob, length in (
            ("time", self.time_prob, self.time_length),
            ("feature", self.feature_prob, self.feature_length),
        ):
            if not 0 <= prob <= 1:
                raise FieldError(f"mask_{axis}_prob={prob} must be between 0 and 1")
            if length < 1:
                raise FieldError(f"mask_{axis}_length={length} must be at least 1")

    def apply(
        self,
        features: Float[Array, "B M E"],
        mask: Bool[Array, "B M"],
        embedding: Float[Array, " E"] | None,
        key: PRNGKeyArray,
    ) -> Float[Array, "B M E"]:
        """Mask spans of each row.

        Args:
            features: the features, which precede the transformer.
            mask: the valid steps, from the first on; only these are masked along time.
            embedding: what replaces a step; None is zeros.
            key: a random key.
        """
        time_key, feature_key = jax.random.split(key)
        rows, steps, width = features.shape
        if self.time_prob:
            hidden = spans(time_key, self.time_prob, self.time_length, mask.sum(1), steps)
            filled = jnp.zeros(width) if embedding is None else embedding
            features = jnp.where(hidden[..., None], filled.astype(features.dtype), features)
        if self.feature_prob:
            full = jnp.full(rows, width)
            hidden = spans(feature_key, self.feature_prob, self.feature_length, full, width)
            features = jnp.where(hidden[:, None], 0, features)
        return features


UNMASKED = Masking()
"""Nothing is masked."""


def spans(
    key: PRNGKeyArray, prob: float, length: int, valid: Int[Array, " B"], size: int
) -> Bool[Array, "B {size}"]:
    """Return which of `size` steps are in a span.

    Starts are drawn without replacement among the steps from which a whole span is valid.

    Args:
        key: a random key.
        prob: the share of valid steps in spans that do not overlap.
        length: steps of a span.
        valid: the number of valid steps of each row.
        size: the number of steps.
    """
    count_key, start_key = jax.random.split(key)
    starts = jnp.maximum(valid - length + 1, 0)  # steps at which a span may start
    expected = prob * valid.astype(jnp.float32) / length + jax.random.uniform(count_key, valid.shape)
    count = jnp.minimum(expected.astype(jnp.int32), starts)
    is_allowed = jnp.arange(size) < starts[:, None]
    drawn = jnp.where(is_allowed, jax.random.uniform(start_key, is_allowed.shape), 2.0)
    rank = jnp.argsort(jnp.argsort(drawn, axis=1), axis=1)
    begun = jnp.cumsum(rank < count[:, None], axis=1)
    ended = jnp.pad(begun, ((0, 0), (length, 0)))[:, :size]
    return begun > ended
