"""Everything that a report says about one run, computed once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Int

from jaxser import corpora, papers
from jaxser.corpora import Corpus
from jaxser.data.leaks import Leak
from jaxser.evaluation import run_scores
from jaxser.evaluation.intervals import Interval
from jaxser.evaluation.results import RunResults
from jaxser.evaluation.run_folder import Run
from jaxser.evaluation.run_scores import Spread
from jaxser.evaluation.targets import CLASSES
from jaxser.papers import Printed
from jaxser.report import across, calibration, checks, groups, temperature


@dataclass(frozen=True, eq=False)
class Analysis:
    """The statistics of one run.

    Each is computed on first use and kept, however many tables and figures show it.
    """

    run: Run
    _intervals: dict[str, Mapping[str, Interval]] = field(default_factory=dict, repr=False)

    @property
    def results(self) -> RunResults:
        """The results of the run."""
        return self.run.results

    @property
    def name(self) -> str:
        """The name of the run's folder."""
        return run_scores.name_of(self.run)

    @property
    def config(self) -> Mapping[str, Any]:
        """The config of the run."""
        return self.run.config.fields

    @cached_property
    def corpus(self) -> Corpus:
        """The record of the corpus.

        A run of an earlier version, which does not name it, has that of its dataset.
        """
        if names := across.names_of(self.config):
            return across.record(names)
        dataset = self.results.dataset
        name = self.config.get("corpus", "demo" if self.results.synthetic else dataset)
        return corpora.find(str(name), title=dataset)

    @property
    def corpus_name(self) -> str:
        """The name of the corpus within a sentence, such as "IEMOCAP" or "the demo corpus"."""
        title = self.corpus.title
        return f"the {title}" if title.endswith(" corpus") else title

    @cached_property
    def printed(self) -> Printed | None:
        """The row of the paper's table that corresponds to the run."""
        return papers.printed(self.config)

    @cached_property
    def confusion(self) -> Int[np.ndarray, "C C"]:
        """Test predictions of all folds and seeds, by true (row) and predicted class (column)."""
        size = len(self.results.classes)
        counts = [replica.test.confusion for replica in self.results.reported if replica.test]
        return np.sum(counts, axis=0) if counts else np.zeros((size, size), dtype=int)

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """What a reader must know before reading the scores, one sentence each."""
        if self.results.target.kind != CLASSES:
            return self.results.warnings
        return (*self.results.warnings, *checks.exchanged(self.run.test_predictions))

    @cached_property
    def leaks(self) -> tuple[Leak, ...]:
        """Everything that the parts of a fold share."""
        return checks.find_leaks(self.run)

    @cached_property
    def calibration(self) -> calibration.Calibration | None:
        """None if probabilities are missing."""
        return calibration.calibration(self.run.test_predictions)

    @cached_property
    def scaling(self) -> temperature.Scaling | None:
        """None if probabilities or a validation part are missing."""
        return temperature.scaling(self.run, self.calibration)

    @cached_property
    def mistakes(self) -> tuple[calibration.Mistake, ...]:
        """The most confident mistakes."""
        return calibration.mistakes(self.run.test_predictions, self.run.utterances)

    @cached_property
    def by_class(self) -> tuple[groups.Group, ...]:
        """The scores of each class."""
        return groups.by_class(self.run)

    @cached_property
    def by_gender(self) -> tuple[groups.Group, ...]:
        """The scores of each gender."""
        return groups.by_gender(self.run)

    @cached_property
    def by_speaker(self) -> tuple[groups.Group, ...]:
        """The scores of each test speaker."""
        return groups.by_speaker(self.run)

    @cached_property
    def worst(self) -> tuple[groups.Worst, ...]:
        """The class, the gender and the speaker with the lowest score."""
        kinds = {"class": self.by_class, "gender": self.by_gender, "speaker": self.by_speaker}
        found = (groups.worst(kind, of_kind) for kind, of_kind in kinds.items())
        return tuple(one for one in found if one is not None)

    def spread(self, metric: str) -> Spread:
        """Return the mean and the standard deviations of a score."""
        return run_scores.spread(self.run, metric)

    def interval(self, metric: str, by: str) -> Interval | None:
        """Return the bootstrap interval of a pooled score; None if it is undefined.

        It is over "utterance" or "speaker".
        """
        if by not in self._intervals:
            self._intervals[by] = groups.bootstrap(self.run, by)
        return self._intervals[by].get(metric)

    def clustered_interval(self, metric: str) -> Interval | None:
        """Return the interval over speakers if there are enough, or else over utterances."""
        return self.interval(metric, "speaker") or self.interval(metric, "utterance")
