"""Preparation on a cluster: the function that makes a shard, mapped by Apache Beam (extra `beam`).

    python -m data_prep.prepare --corpus=iemocap --root=RELEASE --runner=beam --beam_options="--runner=FlinkRunner ..."

Workers read the release and write their shards themselves, so both folders have to be on a file system that all of them
see under the same paths.
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
    """Make the parts of all jobs in a Beam pipeline of these options; `done` is told of each at the end.

    Raises `UsageError` where Beam is not installed, `InputError` where the pipeline fails: what it has made stays.
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
    except (Exception, SystemExit) as error:  # a runner raises what it likes; its options' parser exits
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(
            f"the Beam pipeline failed: {lines[0][:300]}; the same command goes on from here"
        ) from error
    for job in jobs:
        part = finished_part(job)
        if part is None:
            raise InputError(
                f"{job.part}: a Beam worker has not written it; do all workers see {job.directory}?"
            )
        done(job, part)


def _make(job: Job, vocabulary: Vocabulary) -> int:
    with threadpool_limits(1):
        make_part(job, vocabulary)
    return job.index
