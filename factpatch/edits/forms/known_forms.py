"""The table of forms that edit rows come in: how each is told, and where our fields stand in it.

Beside the paths named here, every native field (`id`, `op`, `expires`, `locality` …) counts in every form under its own
name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from factpatch.edits.forms.chat import instruction_with_input, prompt_and_completion, turns_of
from factpatch.edits.forms.fields import FIELDS, PROBE_LISTS, TEXT_LISTS
from factpatch.edits.forms.paths import Reach

Raw = dict[str, Any]
Columns = Mapping[str, str]  # our field, or `locality.prompt` and the like -> dotted paths, several joined with '+'

COLUMNS = (*FIELDS, *(f"{name}.{part}" for name in PROBE_LISTS for part in ("prompt", "target")))


@dataclass(frozen=True)
class Form:
    """A published or native way to write an edit request as a row: how it is recognized, and where its fields stand.

    Attributes:
        name: as summaries say it.
        marks: the fields, each with its type, that a row must hold to be recognized as of this form. The first is the
            one that fewest rows of other forms have.
        columns: dotted paths of the native fields in a row, besides their own names.
        alone: fields of which one is enough for a row that has no `prompt` and is of no other form, such as a revert.
        mapped: native fields that are looked up only where a user's map of columns says, not under their own names.
        arrange: puts a row in order before its paths are followed; raises InputError for what is none of this form.
        template: `{}` in a prompt stands for the subject.
        several: whether one row holds several edits, one for each item of the list that the prompt's path leads
            through.
        refusal: why its rows cannot be read, and what to do; None where they can.
    """

    name: str
    marks: Mapping[str, type | tuple[type, ...]]
    columns: Columns = field(default_factory=dict)
    alone: frozenset[str] = frozenset()
    mapped: frozenset[str] = frozenset()
    arrange: Callable[[Raw], Raw] | None = None
    template: bool = False
    several: bool = False
    refusal: str | None = None

    def fits(self, raw: Raw) -> bool:
        """Whether the row holds all of the form's marks."""
        return all(raw.get(name) is not None and isinstance(raw[name], kind) for name, kind in self.marks.items())

    @cached_property
    def paths(self) -> dict[str, tuple[str, ...]]:
        """Every path of each field; its own name last, unless the form uses that for something else."""
        named = {name: tuple(path.split("+")) for name, path in self.columns.items()}
        heads = {path.partition(".")[0] for paths in named.values() for path in paths if path not in FIELDS}
        own = {name: () if name in heads or name in self.mapped else (name,) for name in FIELDS}
        return {name: tuple(dict.fromkeys((*named.get(name, ()), *own.get(name, ())))) for name in COLUMNS}

    @cached_property
    def reach(self) -> Reach:
        """What these paths reach."""
        return Reach.of(path for paths in self.paths.values() for path in paths)

    @cached_property
    def column_paths(self) -> frozenset[str]:
        """All paths that `columns` names, joined ones one by one."""
        return frozenset(path for text in self.columns.values() for path in text.split("+"))

    @cached_property
    def probe_part_paths(self) -> frozenset[str]:
        """Paths that lead to a prompt or an answer of probes, which is half a probe, and to nothing else."""
        whole = {path for name, paths in self.paths.items() if name in FIELDS for path in paths}
        return frozenset(path for name, paths in self.paths.items() if name not in FIELDS for path in paths) - whole

    @cached_property
    def fields(self) -> frozenset[str]:
        """The fields of a row that it uses, or could use; what it says under other names is none."""
        elsewhere = self.mapped | {name for name in self.columns if name not in (*TEXT_LISTS, *PROBE_LISTS)}
        used = {path.partition(".")[0] for paths in self.paths.values() for path in paths}
        return frozenset((used - elsewhere) | {path.partition(".")[0] for path in self.column_paths})


REWRITE = {
    "prompt": "requested_rewrite.prompt",
    "subject": "requested_rewrite.subject",
    "target": "requested_rewrite.target_new.str",
    "target_old": "requested_rewrite.target_true.str",
}
PAIRED = {
    "locality.prompt": "locality_prompt",
    "locality.target": "locality_ground_truth",
    "portability.prompt": "portability_prompt",
    "portability.target": "portability_ground_truth",
}
LOC = {"locality.prompt": "loc", "locality.target": "loc_ans"}

NATIVE = Form("native", {})
FOREIGN = (
    Form(
        "ZsRE",  # as De Cao et al. processed it, and EasyEdit has it
        {"src": object, "alt": object},
        {"prompt": "src", "target": "alt", "target_old": "answers", "paraphrases": "rephrase", **LOC},
        alone=frozenset({"src", "alt"}),
    ),
    Form(
        "MEND-ZsRE",  # the targets are counterfactual: `alternatives`, of which the first is taken
        {"input": str, "alternatives": list},
        {
            "prompt": "input",
            "target": "alternatives.0",
            "target_old": "output.answer",
            "paraphrases": "filtered_rephrases",
        },
    ),
    Form(
        "CounterFact",  # as ROME's authors published it
        {"requested_rewrite": dict},
        {
            **REWRITE,
            "paraphrases": "paraphrase_prompts",
            "locality.prompt": "neighborhood_prompts",
            "locality.target": "requested_rewrite.target_true.str",
        },
        template=True,
    ),
    Form(
        "MQuAKE",  # several edits a row; its multi-hop questions follow from all of them and go to the first
        {"requested_rewrite": list},
        {
            **REWRITE,
            "paraphrases": "requested_rewrite.question",
            "portability.prompt": "questions",
            "portability.target": "new_answer",
        },
        template=True,
        several=True,
    ),
    Form(
        "ROME-request",  # what ROME's and MEMIT's functions take
        {"target_new": dict, "prompt": str},
        {"target": "target_new.str", "target_old": "target_true.str"},
        template=True,
    ),
    Form(
        "EasyEdit",  # CounterFact, KnowEdit and CKnowEdit as EasyEdit has them
        {"target_new": (str, int, float, list), "prompt": object},
        {
            "target": "target_new",
            "target_old": "ground_truth",
            "paraphrases": "rephrase+rephrase_prompt",
            **PAIRED,
        },
        alone=frozenset({"target_new", "rephrase_prompt", "locality_prompt"}),
    ),
    Form(
        "WikiBio",  # of KnowEdit
        {"text": str, "labels": object, "concept": str},
        {"prompt": "text", "target": "labels", "subject": "concept"},
    ),
    Form(
        "WikiBigEdit",
        {"update": object, "ans": object},
        {
            "prompt": "update",
            "target": "ans",
            "paraphrases": "rephrase+personas",
            "portability.prompt": "mhop",
            "portability.target": "mhop_ans",
            **LOC,
        },
    ),
    Form(
        "RippleEdits",
        {"edit": dict, "example_type": str},
        refusal="its prompts hold their targets ('edit.prompt'); part them into 'prompt' and 'target', or take "
        "KnowEdit's wiki_recent and wiki_counterfact, which are RippleEdits' facts so parted",
    ),
    Form(
        "messages",  # of chats, as OpenAI's and TRL's files hold them
        {"messages": list},
        {"prompt": "messages.user", "target": "messages.assistant"},
        arrange=turns_of("messages"),
    ),
    Form(
        "ShareGPT",
        {"conversations": list},
        {"prompt": "conversations.user", "target": "conversations.assistant"},
        arrange=turns_of("conversations"),
    ),
    Form(
        "Alpaca",
        {"instruction": object, "output": object},
        {"prompt": "instruction", "target": "output"},
        arrange=instruction_with_input,
    ),
    Form("prompt-completion", {"completion": str, "prompt": str}, {"target": "completion"}),
    Form(
        "prompt-completion-turns",  # the same as TRL writes it for chats
        {"completion": list, "prompt": list},
        {"prompt": "prompt.user", "target": "prompt.assistant"},
        arrange=prompt_and_completion,
    ),
    Form("question-answer", {"question": object, "answer": object}, {"prompt": "question", "target": "answer"}),
    Form(
        "QAEdit",
        {"rephrase": object, "prompt": object, "target": object},
        {"paraphrases": "rephrase"},
    ),
)
