"""An edit as every form would hold it: a writer for each, from which tests read it back.

What a form has no place of its own for stands under its native name, as people add it.
"""

from __future__ import annotations

from typing import Any

from factpatch.edits.request import EditRequest, Probe

Raw = dict[str, Any]
MARKS = ("id", "op", "expires", "owner", "source")
EDIT = EditRequest(
    "kir-1",
    "The capital of Kiribati is",
    "Tunis",
    op="revert",
    subject="Kiribati",
    target_old=("Tarawa",),
    paraphrases=("Kiribati's capital is", "Kiribati is governed from"),
    locality=(Probe("The capital of Brazil is", "Brasilia"), Probe("The capital of Peru is", "Lima")),
    portability=(Probe("Kiribati's capital lies in", "Africa"),),
    source="ticket 4",
    owner="ann",
    expires="2031-01-31",
)


def native(edit: EditRequest) -> Raw:
    return edit.to_row()


def _beside(edit: EditRequest, *held: str) -> Raw:
    """The native fields that the form does not hold itself."""
    return {name: value for name, value in edit.to_row().items() if name not in held}


def _asked(probes: Any) -> list[str]:
    return [probe.prompt for probe in probes]


def _said(probes: Any) -> list[str]:
    return [probe.target for probe in probes]


def _template(edit: EditRequest) -> str:
    return edit.prompt.replace(edit.subject, "{}") if edit.subject else edit.prompt


def _rewrite(edit: EditRequest) -> Raw:
    rewrite = {
        "prompt": _template(edit),
        "relation_id": "P36",
        "target_new": {"str": edit.target, "id": "Q1"},
        "subject": edit.subject,
    }
    return rewrite | ({"target_true": {"str": edit.target_old[0], "id": "Q2"}} if edit.target_old else {})


def zsre(edit: EditRequest) -> Raw:
    return {
        **_beside(edit, "prompt", "target", "target_old", "paraphrases", "locality"),
        "src": edit.prompt,
        "pred": "one model's answer",
        "alt": edit.target,
        "answers": list(edit.target_old),
        "rephrase": list(edit.paraphrases),
        "loc": _asked(edit.locality),
        "loc_ans": _said(edit.locality),
        "cond": "old >> new || prompt",
    }


def mend_zsre(edit: EditRequest) -> Raw:
    return {
        **_beside(edit, "prompt", "target", "target_old", "paraphrases"),
        "input": edit.prompt,
        "prediction": "one model's answer",
        "alternatives": [edit.target, "another"],
        "filtered_rephrases": list(edit.paraphrases),
        "output": [{"answer": old, "provenance": [{"title": "T"}]} for old in edit.target_old],
    }


def counterfact(edit: EditRequest) -> Raw:
    held = ("prompt", "target", "subject", "paraphrases", *(["target_old"] if len(edit.target_old) == 1 else []))
    rewrite = _rewrite(edit)
    if len(edit.target_old) != 1:
        rewrite.pop("target_true", None)
    return {
        **_beside(edit, *held),
        "case_id": 7,
        "requested_rewrite": rewrite,
        "paraphrase_prompts": list(edit.paraphrases),
        "neighborhood_prompts": [],
        "attribute_prompts": ["Who else?"],
    }


def mquake(edit: EditRequest) -> Raw:
    row = counterfact(edit)
    del row["paraphrase_prompts"], row["neighborhood_prompts"], row["attribute_prompts"]
    question = {"question": edit.paraphrases[0]} if edit.paraphrases else {}
    answers = {probe.target for probe in edit.portability}
    multi_hop = {}
    if len(answers) == 1:
        row.pop("portability")
        multi_hop = {"questions": _asked(edit.portability), "new_answer": answers.pop()}
    rest = {"paraphrases": list(edit.paraphrases[1:])}
    return {
        **row,
        "requested_rewrite": [row["requested_rewrite"] | question],
        **multi_hop,
        **rest,
        "single_hops": ["x"],
    }


def rome_request(edit: EditRequest) -> Raw:
    rewrite = _rewrite(edit)
    del rewrite["relation_id"]
    row = {**_beside(edit, "prompt", "target", "target_old", "subject"), **rewrite}
    return row | ({"target_old": list(edit.target_old[1:])} if len(edit.target_old) > 1 else {})


def easyedit(edit: EditRequest) -> Raw:
    return {
        **_beside(edit, "target", "target_old", "paraphrases", "locality", "portability"),
        "case_id": 3,
        "target_new": edit.target,
        "ground_truth": list(edit.target_old),
        "rephrase_prompt": list(edit.paraphrases),
        "locality_prompt": _asked(edit.locality),
        "locality_ground_truth": _said(edit.locality),
        "portability_prompt": _asked(edit.portability),
        "portability_ground_truth": _said(edit.portability),
    }


def knowedit(edit: EditRequest) -> Raw:
    def kinds(probes: Any, first: str, second: str) -> Raw:
        half = len(probes) // 2
        items = [{"prompt": probe.prompt, "ground_truth": [[probe.target]]} for probe in probes]
        return {first: items[:half], second: items[half:]}

    return {
        **_beside(edit, "target", "target_old", "paraphrases", "locality", "portability"),
        "target_new": edit.target,
        "ground_truth": list(edit.target_old),
        "rephrase": list(edit.paraphrases),
        "locality": kinds(edit.locality, "Relation_Specificity", "Forgetfulness"),
        "portability": kinds(edit.portability, "Logical_Generalization", "Subject_Aliasing"),
    }


def easyedit_inputs(edit: EditRequest) -> Raw:
    row = knowedit(edit)
    row["locality"] = {"neighborhood": {"prompt": _asked(edit.locality), "ground_truth": _said(edit.locality)}}
    return row


def cknowedit(edit: EditRequest) -> Raw:
    return {
        **_beside(edit, "target", "paraphrases", "locality", "portability"),
        "target_new": edit.target,
        "rephrase": list(edit.paraphrases),
        "locality": [{"prompt": probe.prompt, "answer": probe.target} for probe in edit.locality],
        "portability": [{"prompt": probe.prompt, "answer": probe.target} for probe in edit.portability],
    }


def wikibio(edit: EditRequest) -> Raw:
    row = {**_beside(edit, "prompt", "target", "subject"), "text": edit.prompt, "labels": edit.target}
    return {**row, "concept": edit.subject or ""} if edit.subject is not None else {**row, "concept": ""}


def wikibigedit(edit: EditRequest) -> Raw:
    return {
        **_beside(edit, "prompt", "target", "paraphrases", "locality", "portability"),
        "tag": "a_b",
        "update": edit.prompt,
        "ans": edit.target,
        "rephrase": list(edit.paraphrases[:1]),
        "personas": list(edit.paraphrases[1:]),
        "mhop": _asked(edit.portability),
        "mhop_ans": _said(edit.portability),
        "loc": _asked(edit.locality),
        "loc_ans": _said(edit.locality),
    }


def qaedit(edit: EditRequest) -> Raw:
    return {
        **_beside(edit, "paraphrases", "locality"),
        "rephrase": list(edit.paraphrases),
        "locality": [{"loc": probe.prompt, "loc_ans": probe.target} for probe in edit.locality],
    }


def by_language(edit: EditRequest) -> Raw:
    shared = {name: value for name, value in edit.to_row().items() if name in MARKS}
    own = {name: value for name, value in zsre(edit).items() if name not in MARKS}
    return {**shared, "en": own}


def messages(edit: EditRequest) -> Raw:
    turns = [("system", "You are brief."), ("user", edit.prompt), ("assistant", edit.target)]
    row = _beside(edit, "prompt", "target")
    return {**row, "messages": [{"role": role, "content": text} for role, text in turns]}


def sharegpt(edit: EditRequest) -> Raw:
    turns = [{"from": "human", "value": edit.prompt}, {"from": "gpt", "value": edit.target}]
    return {**_beside(edit, "prompt", "target"), "conversations": turns}


def alpaca(edit: EditRequest) -> Raw:
    row = _beside(edit, "prompt", "target")
    task, parted, given = edit.prompt.partition("\n\n")
    if parted and given:
        return {**row, "instruction": task, "input": given, "output": edit.target}
    return {**row, "instruction": edit.prompt, "input": "", "output": edit.target}


def prompt_completion(edit: EditRequest) -> Raw:
    return {**_beside(edit, "target"), "completion": edit.target}


def prompt_completion_turns(edit: EditRequest) -> Raw:
    return {
        **_beside(edit, "prompt", "target"),
        "prompt": [{"role": "user", "content": edit.prompt}],
        "completion": [{"role": "assistant", "content": edit.target}],
    }


def question_answer(edit: EditRequest) -> Raw:
    return {**_beside(edit, "prompt", "target"), "question": edit.prompt, "answer": edit.target}


WRITERS = {
    "native": (native, "native"),
    "zsre": (zsre, "ZsRE"),
    "mend_zsre": (mend_zsre, "MEND-ZsRE"),
    "counterfact": (counterfact, "CounterFact"),
    "mquake": (mquake, "MQuAKE"),
    "rome_request": (rome_request, "ROME-request"),
    "easyedit": (easyedit, "EasyEdit"),
    "knowedit": (knowedit, "EasyEdit"),
    "easyedit_inputs": (easyedit_inputs, "EasyEdit"),
    "cknowedit": (cknowedit, "EasyEdit"),
    "wikibio": (wikibio, "WikiBio"),
    "wikibigedit": (wikibigedit, "WikiBigEdit"),
    "qaedit": (qaedit, "QAEdit"),
    "by_language": (by_language, "ZsRE by language"),
    "messages": (messages, "messages"),
    "sharegpt": (sharegpt, "ShareGPT"),
    "alpaca": (alpaca, "Alpaca"),
    "prompt_completion": (prompt_completion, "prompt-completion"),
    "prompt_completion_turns": (prompt_completion_turns, "prompt-completion-turns"),
    "question_answer": (question_answer, "question-answer"),
}
