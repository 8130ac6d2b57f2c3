"""The capability step on tiny local tasks: real harness, real patch, random model."""

import dataclasses
import json
import shutil
import time
from pathlib import Path

import datasets
import huggingface_hub.constants
import pytest
from lm_eval.models.huggingface import HFLM

from factpatch.errors import InputError
from factpatch.evaluation.capability import ItemOutcome, TaskScore, compare_scores
from factpatch.evaluation.suites import SUITES, chosen_tasks
from factpatch.models.loading import load_model
from factpatch.models.locations import locate
from factpatch.patches.patch import save_patch
from factpatch.release.record import digest_patch
from factpatch.settings.config import CapabilitySettings, ModelSettings, Settings
from tasks.regress import load_tasks, regress

QUESTIONS = [f"The capital of {name} is" for name in ("France", "Japan", "Brazil", "Chad", "Peru", "Togo", "Iraq")]


@pytest.fixture(scope="module")
def model(tiny_model, tmp_path_factory) -> ModelSettings:
    """A model with habits of its own, which the tasks must not feel."""
    folder = shutil.copytree(tiny_model("llama"), tmp_path_factory.mktemp("model") / "llama")
    (folder / "generation_config.json").write_text('{"max_new_tokens": 1, "repetition_penalty": 9.0}')
    return ModelSettings(path=str(folder))


@pytest.fixture(scope="module")
def patched(model, tmp_path_factory) -> Path:
    """An output folder whose patch turns the sign of one matrix of the tiny model."""
    folder = tmp_path_factory.mktemp("patched")
    loaded = load_model(model)
    location = locate(loaded.model, "2:mlp.down_proj")
    values = {name: -loaded.model.get_parameter(name) for name in location.parameters}
    save_patch(folder / "patch", loaded, location, values, Settings(model=model), {"digest": "0", "count": 0}, {})
    return folder


@pytest.fixture
def world(tmp_path) -> Path:
    """A project folder with a local generation task (whose rows pass a `!function`) and a multiple-choice task."""
    folder = tmp_path / "project" / "capability"
    folder.mkdir(parents=True)
    (folder / "clean.py").write_text(
        "def tidy(rows):\n    return rows.map(lambda row: {'prompt': row['prompt'].strip()})\n"
    )
    (folder / "questions.yaml").write_text(
        "task: tiny_questions\ndataset_path: json\ndataset_kwargs:\n  data_files:\n"
        "    test: capability/questions.jsonl\ntest_split: test\nprocess_docs: !function clean.tidy\n"
        "output_type: generate_until\ndoc_to_text: '{{prompt}}'\ndoc_to_target: '{{answer}}'\n"
        "generation_kwargs:\n  until: ['\\n']\n  max_gen_toks: 6\n  do_sample: false\n"
        "metric_list:\n  - metric: exact_match\n    aggregation: mean\n    higher_is_better: true\n"
    )
    (folder / "choice.yaml").write_text(
        "task: tiny_choice\ndataset_path: json\ndataset_kwargs:\n  data_files: choice.jsonl\ntest_split: train\n"
        "output_type: multiple_choice\ndoc_to_text: '{{prompt}}'\ndoc_to_target: answer\n"
        "doc_to_choice: ['Paris', 'Tokyo', 'Lima']\n"
        "metric_list:\n  - metric: acc_norm\n    aggregation: mean\n    higher_is_better: true\n"
        "  - metric: acc\n    aggregation: mean\n    higher_is_better: true\n"
    )
    (folder / "both.yaml").write_text(
        "group: tiny\ntask: [tiny_questions, tiny_choice]\naggregate_metric_list:\n  - metric: exact_match\n"
    )
    write_rows(folder, "questions", [""] * len(QUESTIONS))
    write_rows(folder, "choice", [0] * len(QUESTIONS))
    return folder


def write_rows(folder: Path, name: str, answers: list) -> None:
    rows = [{"prompt": f" {prompt}", "answer": answer} for prompt, answer in zip(QUESTIONS, answers, strict=True)]
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def settings(model: ModelSettings, world: Path, *tasks: str, **options) -> Settings:
    capability = CapabilitySettings(tasks=tasks, include=str(world), batch_size=4, **{"cache": None, **options})
    return Settings(model=model, capability=capability)


def run(folder: Path, chosen: Settings) -> tuple[dict, list[dict]]:
    report = json.loads(Path(regress.fn(str(folder), chosen)).read_text())
    items = [json.loads(line) for line in (folder / "regress_items.jsonl").read_text().splitlines()]
    return report, items


def test_before_and_after_on_the_same_items(patched, world, model, monkeypatch, tmp_path, capfd):
    monkeypatch.chdir(tmp_path)  # neither the project's root nor the tasks' folder
    chosen = settings(model, world, "tiny_questions", "tiny_choice")
    _, items = run(patched, chosen)
    answers = {item["index"]: item["output_before"] for item in items if item["task"] == "tiny_questions"}
    write_rows(world, "questions", [answers[index] for index in range(len(QUESTIONS))])  # now the base is always right

    capfd.readouterr()
    report, items = run(patched, chosen)
    captured = capfd.readouterr()

    row = report["tasks"]["tiny_questions"]
    assert report["schema"] == 1
    assert report["seconds"] > 0
    assert (row["metric"], row["direction"], row["n"]) == ("exact_match", "higher", len(QUESTIONS))
    assert row["before"] == 1.0
    questions = [item for item in items if item["task"] == "tiny_questions"]
    changed = sum(item["output_before"] != item["output_after"] for item in questions)
    assert 0 < changed == row["broken"]
    assert max(len(item["output_before"]) for item in questions) > 8  # more than one token
    assert row["after"] == pytest.approx(1 - changed / len(QUESTIONS))
    assert row["repaired"] == 0
    low, high = row["ci95_after"]
    assert 0 <= low <= row["after"] <= high <= 1
    assert report["tasks"]["tiny_choice"]["metric"] == "acc_norm"  # declared first, though measured second
    assert {item["output_before"] for item in items if item["task"] == "tiny_choice"} <= {"Paris", "Tokyo", "Lima"}
    assert captured.out == ""
    told = captured.err.splitlines()  # progress alone: neither the harness's bars nor anyone's remarks
    assert [line for line in told if not line.startswith(("capability before", "capability after"))] == []
    assert report["patch"] == digest_patch(patched / "patch")


def test_a_group_is_one_row_and_the_limit_holds(patched, world, model):
    report, items = run(patched, settings(model, world, "tiny", limit=3))
    assert list(report["tasks"]) == ["tiny"]
    assert report["tasks"]["tiny"]["n"] == 3  # only one of the members has the group's metric
    assert {item["task"] for item in items} == {"tiny_questions"}


def test_no_tasks_give_an_empty_table_without_a_model(tmp_path, world):
    report, items = run(tmp_path, settings(ModelSettings(path="data/absent"), world))
    assert report["tasks"] == {}
    assert items == []


def test_unknown_tasks_are_told_before_a_model_is_loaded(tmp_path, world):
    chosen = settings(ModelSettings(path="data/absent"), world, "tiny_choice", "tiny_question")
    with pytest.raises(
        InputError, match=r"did you mean 'tiny_questions'.*there are: portable_.*, tiny, tiny_choice, tiny_questions"
    ):
        regress.fn(str(tmp_path), chosen)
    assert not (tmp_path / "regress.json").exists()


def test_a_task_without_its_data_or_named_twice_is_refused(world):
    (world / "choice.jsonl").unlink()
    with pytest.raises(InputError, match="'tiny_choice' cannot be loaded"):
        load_tasks(CapabilitySettings(tasks=("tiny_choice",), include=str(world)))
    write_rows(world, "choice", [0] * len(QUESTIONS))
    with pytest.raises(InputError, match="name each task once"):
        load_tasks(CapabilitySettings(tasks=("tiny", "tiny_choice"), include=str(world)))


def test_base_scores_are_kept_and_give_the_same_report(patched, world, model, tmp_path):
    chosen = settings(model, world, "tiny_questions", "tiny_choice", cache=str(tmp_path / "cache"))
    first, items = run(patched, chosen)
    second, again = run(patched, chosen)
    assert (first["cached"], second["cached"]) == ([], ["tiny_questions", "tiny_choice"])
    assert (second["tasks"], again) == (first["tasks"], items)
    (tmp_path / "cache" / next(iter(sorted(path.name for path in (tmp_path / "cache").iterdir())))).write_text("{")
    assert len(run(patched, chosen)[0]["cached"]) == 1  # a damaged one is made anew
    assert run(patched, chosen)[0]["cached"] == ["tiny_questions", "tiny_choice"]


@pytest.mark.parametrize("change", ["limit", "batch", "document", "task", "model"])
def test_kept_scores_are_of_the_same_model_tasks_and_items(patched, world, model, tmp_path, tiny_model, change):
    chosen = settings(model, world, "tiny_questions", cache=str(tmp_path / "cache"))
    run(patched, chosen)
    capability = chosen.capability
    if change == "limit":
        capability = dataclasses.replace(capability, limit=3)
    elif change == "batch":
        capability = dataclasses.replace(capability, batch_size=2)
    elif change == "document":
        write_rows(world, "questions", ["Paris"] * len(QUESTIONS))
    elif change == "task":
        path = world / "questions.yaml"
        path.write_text(path.read_text().replace("max_gen_toks: 6", "max_gen_toks: 5"))
    chosen = dataclasses.replace(chosen, capability=capability)
    if change == "model":
        chosen = dataclasses.replace(chosen, model=dataclasses.replace(model, dtype="bfloat16"))
    assert run(patched, chosen)[0]["cached"] == []


def test_a_suite_pins_shots_and_limits_and_the_settings_win():
    assert [task.name for task in chosen_tasks(CapabilitySettings(suite="wide"))][:5] == [
        *("mmlu", "nq_open", "sst2", "wmt16-de-en", "gsm8k")
    ]
    assert all(task.shots is not None for suite in SUITES.values() for task in suite)
    assert {task.limit for task in chosen_tasks(CapabilitySettings(suite="paper", limit=7))} == {7}
    assert [task.name for task in chosen_tasks(CapabilitySettings(suite="paper", tasks=("sums",)))] == ["sums"]


def test_worked_examples_are_the_same_before_and_after(patched, world, model, monkeypatch):
    path = world / "questions.yaml"
    path.write_text(
        path.read_text().replace("test_split: test", "test_split: test\nfewshot_split: test\nnum_fewshot: 2")
    )
    asked = []
    generate = HFLM.generate_until

    def spy(self, requests, **options):
        asked.append([request.args[0] for request in requests])
        return generate(self, requests, **options)

    monkeypatch.setattr(HFLM, "generate_until", spy)
    run(patched, settings(model, world, "tiny_questions"))
    assert asked[0] == asked[1]
    assert all(prompt.count("The capital of") == 3 for prompt in asked[0])


def test_a_hub_task_out_of_reach_is_told_at_once(world, monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    started = time.monotonic()
    with pytest.raises(InputError, match=r"capability task 'nq_open' cannot be loaded: .*nq_open") as caught:
        load_tasks(CapabilitySettings(tasks=("nq_open",), include=str(world)))
    assert "\n" not in str(caught.value)
    assert "name other tasks" in str(caught.value)
    assert time.monotonic() - started < 60
    assert not datasets.config.HF_HUB_OFFLINE


def test_a_task_without_items_is_refused(world):
    (world / "choice.jsonl").write_text("")
    with pytest.raises(InputError, match="'tiny_choice'"):
        load_tasks(CapabilitySettings(tasks=("tiny_choice",), include=str(world)))


def test_comparison_counts_items_that_turned():
    def made(*scores: float | None, direction: str = "higher") -> TaskScore:
        items = tuple(ItemOutcome("t", index, score, "") for index, score in enumerate(scores))
        return TaskScore("acc", direction, 0.5, items)

    row = compare_scores(made(1, 1, 0, 0), made(1, 0, 1, 0))
    assert (row["broken"], row["repaired"], row["n"], row["fall"]) == (1, 1, 4, 0.0)
    worse = compare_scores(made(0, 0, 0, direction="lower"), made(1, 0, 0, direction="lower"))
    assert (worse["broken"], worse["repaired"], worse["fall"]) == (1, 0, pytest.approx(1 / 3))
    graded = compare_scores(made(0.5, 0.5, 1), made(0.2, 0.5, 1))
    assert (graded["broken"], graded["fall"]) == (None, pytest.approx(0.1))
    assert graded["ci95_fall"][0] < 0.1 < graded["ci95_fall"][1]
    for beyond in (compare_scores(made(None, None), made(None, None)), compare_scores(made(7.5, 9), made(6, 9))):
        assert beyond["broken"] is beyond["fall"] is beyond["ci95_fall"] is None
