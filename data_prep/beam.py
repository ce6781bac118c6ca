"""Preparation on a cluster by an Apache Beam pipeline (extra `beam`).

    python -m jaxser.data_prep.prepare --corpus=meld --root=MELD --runner=beam --beam_options="--runner=FlinkRunner"

Workers read the corpus and write the shards themselves, so both folders must be on a file system that all workers can
access under the same paths.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence

from threadpoolctl import threadpool_limits

from jaxser.features.text import Vocabulary
from jaxser.types import InputError, UsageError

from .jobs import Job, Part, finished_part, make_part


def run_jobs(
    jobs: Sequence[Job], vocabulary: Vocabulary, options: str, done: Callable[[Job, Part], None]
) -> None:
    """Run jobs in a Beam pipeline, then call `done` for each.

    Args:
        jobs: the jobs.
        vocabulary: the vocabulary of the dataset.
        options: the options of the pipeline, as on a command line.
        done: called with each job and its part after the pipeline has finished.

    Raises:
        UsageError: if Apache Beam is not installed.
        InputError: if the pipeline fails; the shards that it has written are kept.
    """
    if not jobs:
        return
    try:
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError:
        raise UsageError("--runner=beam needs Apache Beam: pip install 'jaxser[beam]'") from None
    try:
        with beam.Pipeline(options=PipelineOptions(shlex.split(options))) as pipeline:
            shards = pipeline | "shards" >> beam.Create(list(jobs), reshuffle=True)
            _ = shards | "make" >> beam.Map(_make, vocabulary)
    except (Exception, SystemExit) as error:  # runners raise any exception, and the options' parser exits
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(
            f"the Beam pipeline failed: {lines[0][:300]}; run the same command again to resume"
        ) from error
    for job in jobs:
        part = finished_part(job)
        if part is None:
            raise InputError(
                f"{job.part}: not written by the Beam workers; check that all of them can access {job.directory}"
            )
        done(job, part)


def _make(job: Job, vocabulary: Vocabulary) -> int:
    with threadpool_limits(1):
        make_part(job, vocabulary)
    return job.index
