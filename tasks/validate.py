"""The validate step: check edit requests with Great Expectations, mend them or set them aside, write Data Docs."""

from __future__ import annotations

import html
import json
import re
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from factpatch.edits.accepted import ACCEPTED_FILE as ACCEPTED
from factpatch.edits.accepted import PROBES_FILE
from factpatch.edits.checks import CHECKS, FORM_CHECKS
from factpatch.edits.findings import ValidationOutcome, count_faults, settle
from factpatch.edits.folder import read_ledger
from factpatch.edits.ledger import LedgerEntry, live_rows
from factpatch.edits.loading import Row, read_as
from factpatch.edits.request import digest_edits
from factpatch.edits.survey import survey_rows
from factpatch.edits.tidying import visible
from factpatch.errors import InputError, RefusedError
from factpatch.files import new_folder, output_folder, read_json, write_jsonl, write_lines, write_text
from factpatch.settings.config import ModelSettings, Settings

if TYPE_CHECKING:
    from great_expectations.core import (
        ExpectationSuite,
        ExpectationSuiteValidationResult,
        ExpectationValidationResult,
    )
    from transformers import PreTrainedTokenizerBase

SCHEMA = 1
FINDINGS_QUOTED = 3  # findings quoted with each check
PROMPT_CHARACTERS = 160  # characters of a prompt in the Data Docs
PLAIN_TOKENIZERS = ("PreTrainedTokenizerFast", "TokenizersBackend")  # the library's names for one that is all file
GX_SEVERITY = {"quarantine": "warning", "repair": "info"}

# Great Expectations' pages fetch their looks and scripts from the network and print values of index columns raw. So
# remote parts are cut out, this style stands in for them, and texts are escaped before they go in.
STYLE = """<style>
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; margin: .5rem 0; overflow-wrap: anywhere }
td, th { border: 1px solid #ccc; padding: .3rem .6rem; text-align: left; vertical-align: top }
.card.mb-3, .breadcrumb, .btn-group, .cooltip .top { display: none }
.fa-check-circle::before { content: "\\2714"; color: #186a3b }
.fa-times::before { content: "\\2718"; color: #b03a2e }
</style>"""
_REMOTE = re.compile(
    r"<script\b.*?</script>|<footer\b.*?</footer>|<link\b[^>]*>|<img\b[^>]*>|url\('https?:[^)]*\)", re.DOTALL
)


@task(name="validate", timeout_seconds=3600, cache_policy=NO_CACHE)
def validate(output: str, settings: Settings, ledger: Sequence[LedgerEntry] | None = None) -> str:
    """Check the edits of the ledger, which is read at `settings.edits.path` if not given; path of validate.json.

    Writes `accepted.jsonl`, `quarantined.jsonl`, `validate.json` and `data_docs/`. Raises InputError, with nothing
    written, for input that cannot be read; RefusedError, with everything written, if none of the edits in force is
    accepted or, when strict, if anything was found. Not retried: the same rows would fail again.
    """
    start = time.perf_counter()
    if ledger is None:
        ledger = read_ledger(settings.edits.path, columns=settings.edits.columns)
    active = live_rows(ledger)
    reading = read_as(entry.row for entry in ledger)  # per file and form: rows, edits, unused fields
    counts = {"total": len(ledger), "inactive": len(ledger) - len(active)}  # superseded, reverted or expired
    files = [Path(file).name for file in dict.fromkeys(entry.row.file for entry in ledger)]
    del ledger
    tokenizer, embeddings = find_tokenizer(settings.model)
    folder = output_folder(output)
    outcome = _check(active, settings.evaluation.max_new_tokens, tokenizer, embeddings, folder / "data_docs")
    limit, written = settings.edits.limit, len(outcome.rows[: settings.edits.limit])
    refusal = _refusal(outcome, settings, bool(active))
    (folder / PROBES_FILE).unlink(missing_ok=True)  # made for other edits
    write_jsonl(folder / ACCEPTED, (edit.to_row() for edit in outcome.accepted(limit)))
    write_lines(folder / "quarantined.jsonl", (_to_json(entry) + "\n" for entry in outcome.quarantined))
    value = {
        "schema": SCHEMA,
        "seconds": round(time.perf_counter() - start, 3),
        "status": "refused" if refusal else "passed",
        "read_as": reading,
        "files": files,
        **counts,
        "accepted": written,
        "left_out": len(outcome.rows) - written,  # beyond edits.limit
        "quarantined": len(outcome.quarantined),
        "repaired": _count_repaired(outcome),
        "digest": digest_edits(outcome.accepted(limit)),
        "lengths": "tokens" if tokenizer else "words",  # how target lengths were counted
        "checks": _summarize(outcome.findings),
        "findings": outcome.findings,
    }
    path = write_text(folder / "validate.json", _to_json(value, indent=2) + "\n")
    if refusal:
        raise RefusedError(f"{refusal}; see {path}")
    return str(path)


def _check(
    rows: Sequence[Row], budget: int, tokenizer: PreTrainedTokenizerBase | None, embeddings: int | None, docs: Path
) -> ValidationOutcome:
    """What becomes of the active rows."""
    survey = survey_rows(rows, budget, tokenizer, embeddings)
    return settle(rows, survey, _judge(rows, count_faults(rows, survey), docs))


def find_tokenizer(model: ModelSettings) -> tuple[PreTrainedTokenizerBase | None, int | None]:
    """The model's tokenizer, and for how many tokens the model has embeddings; None if the model is not here, as edits
    can be checked without one. InputError for a folder whose tokenizer no model could be asked through.

    A folder's plain one is read by itself: the way to load any other takes torch, which is half of the memory.
    """
    folder = Path(model.path or "")
    plain = plain_tokenizer(folder) if model.path else None
    if plain is not None:
        from factpatch.models.tokenization import check_tokenizer

        rows = _embedding_rows(folder)
        check_tokenizer(plain, rows, str(folder))
        return plain, rows
    from factpatch.models.loading import embedding_rows, load_tokenizer

    try:
        return load_tokenizer(model), embedding_rows(model)
    except InputError:
        if model.path and folder.is_dir():
            raise
        return None, None


def _embedding_rows(folder: Path) -> int | None:
    """For how many tokens a model's folder has embeddings, as its configuration says."""
    config = read_json(folder / "config.json")
    rows = config.get("vocab_size") or (config.get("text_config") or {}).get("vocab_size")
    return rows if isinstance(rows, int) else None


def plain_tokenizer(folder: Path) -> PreTrainedTokenizerBase | None:
    """The tokenizer of a model's folder, where its file says all of it; None where a class of its own is named."""
    needed = [folder / name for name in ("config.json", "tokenizer.json", "tokenizer_config.json")]
    if not all(map(Path.is_file, needed)):
        return None
    from transformers import PreTrainedTokenizerFast

    try:
        named = read_json(needed[-1]).get("tokenizer_class")
        return PreTrainedTokenizerFast.from_pretrained(folder) if named in PLAIN_TOKENIZERS else None
    except Exception:  # whatever the library raises for a damaged file: the usual way names the fault
        return None


def _judge(rows: Sequence[Row], columns: Mapping[str, list[int]], docs: Path) -> dict[str, set[int]]:
    """Positions of the rows that fail each check, by Great Expectations' verdict; its Data Docs replace `docs`."""
    import great_expectations as gx
    import numpy
    import pandas
    from great_expectations.data_context.types.base import (
        DataContextConfig,
        InMemoryStoreBackendDefaults,
        ProgressBarsConfig,
    )

    quiet = DataContextConfig(
        store_backend_defaults=InMemoryStoreBackendDefaults(init_temp_docs_sites=False),
        progress_bars=ProgressBarsConfig(globally=False),
    )
    context = gx.get_context(mode="ephemeral", project_config=quiet)
    suite = context.suites.add(_suite())
    asset = context.data_sources.add_pandas("edits").add_dataframe_asset("rows")
    batch = asset.add_batch_definition_whole_dataframe("active")
    definition = context.validation_definitions.add(gx.ValidationDefinition(name="edits", data=batch, suite=suite))
    failing = {position for column in columns.values() for position, count in enumerate(column) if count}
    frame = pandas.DataFrame(
        {name: numpy.array(column, "int32") for name, column in columns.items()}
        | {"position": range(len(rows))}
        | {"row": [_caption(row) if position in failing else "" for position, row in enumerate(rows)]}
    )
    result = definition.run(
        batch_parameters={"dataframe": frame},
        run_id=gx.RunIdentifier(run_name="validate", run_time=datetime.now(UTC)),
        result_format={"result_format": "COMPLETE", "unexpected_index_column_names": ["position", "row"]},
    )
    _write_docs(result, suite, docs)
    return dict(map(_verdict, result.results))


def _suite() -> ExpectationSuite:
    """One expectation a check: no row has a fault of that name."""
    from great_expectations import ExpectationSuite
    from great_expectations.expectations import ExpectColumnValuesToBeBetween
    from great_expectations.expectations.metadata_types import FailureSeverity

    return ExpectationSuite(
        name="edits",
        expectations=[
            ExpectColumnValuesToBeBetween(
                column=check.name,
                max_value=0,
                severity=FailureSeverity(GX_SEVERITY[check.severity]),
                description=f"No row where {check.meaning} ({check.severity}). To fix: {check.fix}.",
                meta={"check": check.name, "severity": check.severity, "fix": check.fix},
            )
            for check in CHECKS
        ],
    )


def _verdict(result: ExpectationValidationResult) -> tuple[str, set[int]]:
    """The name of a check and the positions of the rows that fail it."""
    config = result.expectation_config
    assert config is not None  # the suite wrote both
    assert config.meta is not None
    failed = {int(entry["position"]) for entry in result.result.get("unexpected_index_list") or ()}
    if result.success == bool(failed):
        raise RuntimeError(f"Great Expectations could not judge '{config.meta['check']}': {result.exception_info}")
    return config.meta["check"], failed


def _write_docs(result: ExpectationSuiteValidationResult, suite: ExpectationSuite, docs: Path) -> None:
    """Data Docs that need no network: `index.html` for the results, `expectations/edits.html` for the suite."""
    from great_expectations.render.renderer.page_renderer import (
        ExpectationSuitePageRenderer,
        ValidationResultsPageRenderer,
    )
    from great_expectations.render.view import DefaultJinjaPageView

    view = DefaultJinjaPageView()
    pages = {
        "index.html": view.render(ValidationResultsPageRenderer().render(result)).replace("../../../../", ""),
        "expectations/edits.html": view.render(ExpectationSuitePageRenderer().render(suite)),
    }
    with new_folder(docs, replace=True) as folder:
        for name, page in pages.items():
            (folder / name).parent.mkdir(exist_ok=True)
            write_text(folder / name, _REMOTE.sub("", page).replace("</head>", f"{STYLE}</head>"))


def _caption(row: Row) -> str:
    """Where a row stands and how its prompt begins, safe to print in HTML."""
    prompt = row.values["prompt"]
    shown = prompt if len(prompt) <= PROMPT_CHARACTERS else prompt[:PROMPT_CHARACTERS] + "…"
    return html.escape(_printable(f"{row.where}: {visible(shown)}"))


def _refusal(outcome: ValidationOutcome, settings: Settings, any_active: bool) -> str | None:
    """Why the edits are refused, in one line; None if they pass, as they do where all were withdrawn or expired."""
    quarantined, accepted = len(outcome.quarantined), len(outcome.rows)
    if settings.validation.strict and outcome.findings:
        return (
            f"strict validation: {len(outcome.findings)} findings, {quarantined} rows quarantined, "
            f"{_count_repaired(outcome)} repaired, {accepted} accepted"
        )
    return None if accepted or not any_active else f"no edit is left to write: {quarantined} rows quarantined"


def _count_repaired(outcome: ValidationOutcome) -> int:
    """Accepted rows that were mended."""
    mended = {(found["file"], found["row"]) for found in outcome.findings if found["severity"] == "repair"}
    return len(mended - {(entry["file"], entry["row"]) for entry in outcome.quarantined})


def _summarize(findings: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Every check with how many rows and different prompts it found, and a few examples."""
    found_by: dict[str, list[Mapping[str, Any]]] = {check.name: [] for check in (*FORM_CHECKS, *CHECKS)}
    for finding in findings:
        found_by[finding["check"]].append(finding)
    return [
        {
            "name": check.name,
            "severity": check.severity,
            "count": len(found_by[check.name]),
            "prompts": len({finding["prompt"] for finding in found_by[check.name]}),
            "meaning": check.meaning,
            "fix": check.fix,
            "examples": [
                visible(f"{found['file']} row {found['row']}: {found['prompt']} -> {found['target']}")
                for found in found_by[check.name][:FINDINGS_QUOTED]
            ],
        }
        for check in (*FORM_CHECKS, *CHECKS)
    ]


def _to_json(value: Any, indent: int | None = None) -> str:
    """JSON that UTF-8 can hold: in a JSON text, a lone surrogate's backslash form is its escape."""
    return _printable(json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False))


def _printable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
