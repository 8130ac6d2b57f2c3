"""CrispEdit: all edits at once, or in chunks, each of which holds still what the earlier ones wrote (CrispEdit-Seq)."""

from __future__ import annotations

from dataclasses import replace

from factpatch.methods.base import EditJob, TrainingResult, TrainingRows
from factpatch.methods.breadth_first.training import breadth_first
from factpatch.methods.crispedit.settings import CrispEditSettings
from factpatch.methods.curvature import held_directions, pooled
from factpatch.methods.curvature_statistics import Factors, curvature_of_own_text, curvature_of_rows
from factpatch.models.loading import preserved, write_values


def crispedit(job: EditJob) -> TrainingResult:
    """Train chunk by chunk from the values of the last; the curvature of a chunk's rows, as they are written by then,
    joins that of general text, token by token. The model is left as found; the result holds the new values."""
    settings: CrispEditSettings = job.training
    edits = job.rows.edits
    size = settings.chunk or len(edits)
    chunks = [edits[start : start + size] for start in range(0, len(edits), size)]
    factors = curvature_of_own_text(job.loaded, job.location, job.trunk.folder)
    results: list[TrainingResult] = []
    for number, chunk in enumerate(chunks):
        if results:
            factors = _with_written(job, factors, TrainingRows(chunks[number - 1]), results[-1])
        held = {name: held_directions(own, settings.share) for name, own in factors.items()}
        part = replace(
            job,
            rows=TrainingRows(chunk),
            training=settings.as_training(),
            warm_start=results[-1].values if results else None,
        )
        with part.opened() as rows:
            results.append(breadth_first(part, rows, held))
    return TrainingResult(
        results[-1].values,
        tuple(loss for result in results for loss in result.losses),
        sum(result.steps for result in results),
        sum(result.visits for result in results),
        None,
        results[-1].engine,
    )


def _with_written(job: EditJob, factors: Factors, rows: TrainingRows, result: TrainingResult) -> Factors:
    """The factors with those of rows that were just written."""
    model = job.loaded.model
    with preserved(model, job.location.parameters):
        write_values(model, result.values)
        written = curvature_of_rows(job.loaded, job.location, rows.edits)
    return {name: pooled(own, written[name]) for name, own in factors.items()}
