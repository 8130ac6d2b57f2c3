"""Did the edits work, and what else moved? Outputs are collected first; the numbers are then computed from texts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

from factpatch.edits.request import EditRequest, Probe
from factpatch.evaluation.answer_reader import AnswerReader
from factpatch.evaluation.answers import Protocol, cut, matches, same_content, settled, unchanged
from factpatch.evaluation.generation import PartialAnswer, Verification, check_length, decode, verify
from factpatch.evaluation.judging import Judgement
from factpatch.evaluation.scorecard import JUDGEABLE, by_group, metrics, relation_of, source_of
from factpatch.frozen_trunk import open_rows
from factpatch.models.encoding import Encoded, encode_pairs, encode_prompts
from factpatch.models.loading import LoadedModel
from factpatch.models.locations import Location
from factpatch.progress import Progress
from factpatch.settings.config import Settings

SCHEMA = 1
CUT = "…"  # ends a text that was decoded no further
GUESSES_TRIED = 32  # at the answers of a model of which nothing is known yet; most do not end where we would
BEYOND = 2  # tokens decoded beyond those of a target, where that is more than the report shows


@dataclass(frozen=True)
class Definition:
    """What a metric means; `version` rises whenever the same outputs would give another number."""

    version: int
    direction: str  # which way is better
    meaning: str
    unit: str = "share"  # in [0, 1]; what is in nats has no upper end


UNMEASURED = "a probe to which that model said nothing is unmeasured"
METRICS = {
    "reliability": Definition(2, "higher", "share of edits whose prompt is answered with the target"),
    "generalization": Definition(
        2, "higher", "share of paraphrases answered with the target, over the paraphrases of all edits together"
    ),
    "locality": Definition(
        2,
        "higher",
        "form: share of locality probes answered exactly as by the model before the edit, over the probes of all "
        "edits; " + UNMEASURED,
    ),
    "locality_content": Definition(
        1,
        "higher",
        "content: share of locality probes where the answer before the edit begins the one after it, or the other way "
        "round, word by word; " + UNMEASURED,
    ),
    "locality_divergence": Definition(
        1,
        "lower",
        "distribution: KL divergence of what the edited model expects from what the model before the edit did, at the "
        "first token of the answer; mean over locality probes, a sample where they are many",
        "nats",
    ),
    "locality_stops": Definition(
        1,
        "lower",
        "stops, teacher-forced on the answer before the edit: share of locality probes where the edited model would "
        "end it at a token at which it went on; " + UNMEASURED,
    ),
    "locality_correct": Definition(2, "higher", "share of locality probes answered with the answer they list"),
    "portability": Definition(2, "higher", "share of portability probes answered with the answer they list"),
    "token_accuracy": Definition(
        1,
        "higher",
        "teacher-forced, for comparison with older work: share of target tokens (without EOS) that are the most likely "
        "one after prompt and correct target tokens; mean over edits",
    ),
}


JUDGED = {  # where a judge is set; see factpatch/evaluation/judging.py
    f"judged_{name}": Definition(
        2,
        "higher",
        f"judged by a model: {METRICS[name].meaning}, by exact match or, where that fails, in a judge's eyes; answers "
        "left unjudged count as wrong",
    )
    for name in JUDGEABLE
}


@dataclass(frozen=True)
class Answers:
    """What one model says to everything an edit set asks.

    `outputs` maps each prompt to the greedy text after it (one that ends in CUT would go on), `said` to its very
    tokens, `token_accuracy` each (prompt, target) of an edit to the share of target tokens right under teacher forcing.
    `stops` says of a locality probe's prompt whether the model ends the earlier answer where that went on, `divergence`
    how far its expectation of the first token moved.
    """

    outputs: Mapping[str, str]
    token_accuracy: Mapping[tuple[str, str], float]
    said: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    stops: Mapping[str, bool] = field(default_factory=dict)
    divergence: Mapping[str, float] = field(default_factory=dict)


def collect_answers(
    loaded: LoadedModel,
    edits: Sequence[EditRequest],
    settings: Settings,
    before: Answers | None = None,
    progress: Progress | None = None,
    location: Location | None = None,
    whole: bool = False,
) -> Answers:
    """Answer all prompts of the edits. What the model is expected to say serves as a guess that one forward pass may
    prove; the rest is decoded, from the first token that differs. The verdicts are the same as if everything were
    decoded, and so are the answers, but that those end with `evaluation.report_tokens` where the verdicts are sure by
    then. A locality probe's answer before the edit, by which the later one is judged, is had `whole`. A model of which
    nothing is known yet is put to the proof on few guesses, and on the others if half of those were right.

    Where only the tensors at `location` differ from a model that was asked, or trained, before, the pass starts there.
    """
    tokenizer, chat = loaded.tokenizer, settings.edits.chat_template
    budget, batch_size = settings.evaluation.max_new_tokens, settings.evaluation.batch_size
    asked = list(dict.fromkeys(_questions(edits, before is None)))
    prompts = list(dict.fromkeys(prompt for prompt, _ in asked))
    encoded = dict(zip(prompts, encode_prompts(tokenizer, prompts, chat), strict=True))
    edited = {(edit.prompt, edit.target) for edit in edits if edit.target.strip()}
    texts = sorted((pair for pair in asked if pair[1].strip()), key=lambda pair: pair not in edited)
    known = _before(edits, before)
    guesses = [Encoded(encoded[prompt] + ids, len(encoded[prompt])) for prompt, ids in known.items()]

    rows = [*encode_pairs(tokenizer, texts, chat), *guesses]
    check_length(loaded, [row.ids for row in rows])

    def prove(some: Sequence[Encoded]) -> list[Verification]:
        with open_rows(loaded, location, some, settings.trunk) as opened:
            return verify(loaded, opened, budget, batch_size)

    verdicts = prove(rows) if before else _prove_in_turn(prove, rows, len(edited))
    guessed = list(zip([*(prompt for prompt, _ in texts), *known], rows, verdicts, strict=False))
    answers = {prompt: verdict.answer for prompt, _, verdict in guessed if verdict.answer is not None}
    begun: dict[str, tuple[int, ...]] = {}
    least = dict.fromkeys(prompts, budget if whole or settings.judge.address else settings.evaluation.report_tokens)
    for prompt, row, verdict in guessed:
        begun[prompt] = max(begun.get(prompt, ()), verdict.begun, key=len)
        if prompt not in known:
            least[prompt] = max(least[prompt], len(row.ids) - row.prompt_length - 1 + BEYOND)
    if before is None:
        least |= {probe.prompt: budget for edit in edits for probe in edit.locality}
    wanted = _wanted(edits, before, settings.evaluation.protocol)
    if progress:
        progress(len(answers), len(prompts))
    proven, unproven = len(answers), [prompt for prompt in prompts if prompt not in answers]
    answers |= zip(
        unproven,
        decode(
            loaded,
            [encoded[prompt] for prompt in unproven],
            budget,
            batch_size,
            (lambda done, _: progress(proven + done, len(prompts))) if progress else None,
            [PartialAnswer(begun.get(prompt, ()), least[prompt], wanted[prompt]) for prompt in unproven],
        ),
        strict=True,
    )
    reader = AnswerReader(loaded)
    return Answers(
        {
            prompt: answer.text + (CUT if len(answer.ids) < budget and reader.end(answer.ids) is None else "")
            for prompt, answer in answers.items()
        },
        {pair: verdict.token_accuracy for pair, verdict in zip(texts, verdicts, strict=False)},
        {prompt: answer.ids for prompt, answer in answers.items()},
        {prompt: verdict.stops for prompt, _, verdict in guessed if prompt in known},
    )


def _prove_in_turn(
    prove: Callable[[Sequence[Encoded]], list[Verification]], rows: Sequence[Encoded], sure: int
) -> list[Verification]:
    """Verdicts on rows of which those after the first `sure` are mere guesses: on few of these, and on the others too
    where half of the few were right."""
    tried = sure + GUESSES_TRIED
    verdicts = prove(rows[:tried])
    hopes = [verdict.answer is not None for verdict in verdicts[sure:]]
    if len(rows) > tried and 2 * sum(hopes) >= len(hopes):
        verdicts += prove(rows[tried:])
    return verdicts


def measure(
    edits: Sequence[EditRequest],
    after: Answers,
    before: Answers | None,
    protocol: Protocol = "default",
    judgement: Judgement | None = None,
) -> dict[str, Any]:
    """The value of `evaluate.json`, without its `seconds`: metrics and every output, from texts alone.

    `before` holds the answers of the model before the edit; without it locality is null. With a `judgement` the judged
    metrics stand beside the others.
    """
    rows = [_edit_row(edit, after, before, protocol, judgement) for edit in edits]
    rows_before = [_edit_row(edit, before, None, protocol, judgement) for edit in edits] if before else None
    judged = judgement is not None
    named = METRICS | (JUDGED if judged else {})
    return {
        "schema": SCHEMA,
        "protocol": protocol,
        "definitions": describe_metrics(named, protocol),
        **metrics(rows, judged),
        "before": metrics(rows_before, judged) if rows_before is not None else None,
        "judge": judgement.record if judgement else None,
        "by_source": by_group(edits, source_of, rows, rows_before, judged),
        "by_relation": by_group(edits, relation_of, rows, rows_before, judged),
        "edits": rows,
    }


def describe_metrics(definitions: Mapping[str, Definition], protocol: Protocol) -> dict[str, dict[str, Any]]:
    """Definitions as JSON. Under the paper's protocol answers are compared as they were in version 1, but a probe
    without an answer before the edit is unmeasured there too."""

    def version(definition: Definition) -> int:
        return definition.version if protocol != "paper" or UNMEASURED in definition.meaning else 1

    return {name: asdict(replace(definition, version=version(definition))) for name, definition in definitions.items()}


def _questions(edits: Iterable[EditRequest], first: bool) -> Iterable[tuple[str, str]]:
    """Every (prompt, guess at its answer), as far as the edit lists one; where the model is asked for the `first` time,
    that is the first of the old answers as well. What it said before is a better guess on locality probes later on."""
    for edit in edits:
        asked = (edit.prompt, *edit.paraphrases)
        yield from ((prompt, edit.target) for prompt in asked)
        if first:
            yield from ((prompt, old) for prompt in asked for old in edit.target_old[:1])
        yield from ((probe.prompt, probe.target) for probe in edit.portability)
        yield from ((probe.prompt, probe.target if first else "") for probe in edit.locality)


def _before(edits: Iterable[EditRequest], before: Answers | None) -> dict[str, tuple[int, ...]]:
    """What was said before to each locality probe, token by token, as far as it is known."""
    prompts = (probe.prompt for edit in edits for probe in edit.locality)
    return {prompt: before.said[prompt] for prompt in prompts if before and prompt in before.said}


def _wanted(
    edits: Iterable[EditRequest], before: Answers | None, protocol: Protocol
) -> dict[str, Callable[[str], bool]]:
    """By prompt: are all verdicts on a text sure, whatever follows it?"""
    compared: dict[str, list[tuple[str, str]]] = {}
    for edit in edits:
        for prompt in (edit.prompt, *edit.paraphrases):
            compared.setdefault(prompt, []).append((edit.target, edit.target))
        for probe in (*edit.locality, *edit.portability):
            compared.setdefault(probe.prompt, []).extend([(probe.target, probe.target)] if probe.target else [])
        for probe in edit.locality:
            old = [cut(before.outputs[probe.prompt], probe.target, protocol)] if before else []
            compared[probe.prompt] += [(answer, probe.target) for answer in old]

    def sure(pairs: Sequence[tuple[str, str]], text: str) -> bool:
        return all(settled(text, *pair, protocol) for pair in pairs)

    return {prompt: partial(sure, pairs) for prompt, pairs in compared.items()}


def _edit_row(
    edit: EditRequest, after: Answers, before: Answers | None, protocol: Protocol, judgement: Judgement | None
) -> dict[str, Any]:
    """One edit with what was said; `before` texts are null where they are not known."""

    def said(prompt: str) -> dict[str, Any]:
        return {
            "prompt": prompt,
            "before": before.outputs[prompt] if before else None,
            "output": after.outputs[prompt],
        }

    def judged(prompt: str, target: str) -> dict[str, Any]:
        if judgement is None:
            return {}
        return {"judged": judgement.accepts(prompt, target, after.outputs[prompt], protocol) if target else None}

    def probed(probe: Probe) -> dict[str, Any]:
        correct = matches(after.outputs[probe.prompt], probe.target, protocol) if probe.target else None
        return {**said(probe.prompt), "target": probe.target, "correct": correct}

    def neighbour(probe: Probe) -> dict[str, Any]:
        row = probed(probe)
        if before is None or not cut(row["before"], probe.target, protocol):
            return {**row, **dict.fromkeys(("unchanged", "content", "divergence", "stops"))}
        compared = (row["before"], row["output"], probe.target, protocol)
        return {
            **row,
            "unchanged": unchanged(*compared),
            "content": same_content(*compared),
            "divergence": after.divergence.get(probe.prompt),
            "stops": after.stops.get(probe.prompt),
        }

    return {
        "id": edit.id,
        "target": edit.target,
        "made": list(edit.made),  # which of the following the run made to measure by
        **said(edit.prompt),
        "reliable": matches(after.outputs[edit.prompt], edit.target, protocol),
        **judged(edit.prompt, edit.target),
        "token_accuracy": after.token_accuracy[edit.prompt, edit.target],
        "paraphrases": [
            {
                **said(paraphrase),
                "correct": matches(after.outputs[paraphrase], edit.target, protocol),
                **judged(paraphrase, edit.target),
            }
            for paraphrase in edit.paraphrases
        ],
        "locality": [neighbour(probe) for probe in edit.locality],
        "portability": [{**probed(probe), **judged(probe.prompt, probe.target)} for probe in edit.portability],
    }
