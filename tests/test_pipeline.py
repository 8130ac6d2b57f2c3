"""What names the steps of a release (dvc.yaml, the release's record, the command line), held against the flow."""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path

import pytest
import yaml
from dvc.repo import Repo

from factpatch.release.record import RELEASE_STEPS
from factpatch.settings.config import Settings
from flows.__main__ import parser

ROOT = Path(__file__).parents[1]
WORLD = ("world", "reference-model")  # they come with the repository and stand before the flow's first step
FLOW_ONLY = ("lineage", "register")  # they record and publish a run; `dvc repro` does neither
NOT_REPRODUCED = {"gates", "registry", "monitor", "trunk"}  # sections of settings that change no stage's result


@pytest.fixture
def repo(monkeypatch, tmp_path):
    """The project's own DVC repository."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    for name in ("DVC_SITE_CACHE_DIR", "DVC_GLOBAL_CONFIG_DIR", "DVC_SYSTEM_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    with Repo(str(ROOT)) as repo:
        yield repo


@pytest.fixture(scope="module")
def steps() -> list[str]:
    """Names of the flow's steps, in their order."""
    from flows.release import STEPS

    return [step.name for step in STEPS]


@pytest.fixture(scope="module")
def pipeline() -> dict[str, dict]:
    return yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]


def test_stages_are_the_steps_of_the_flow_in_its_order(pipeline, steps):
    assert list(pipeline) == [*WORLD, *(name for name in steps if name not in FLOW_ONLY)]
    assert set(FLOW_ONLY) <= set(steps)


def test_a_release_is_read_from_what_every_step_before_its_registration_wrote(steps):
    assert steps == [*RELEASE_STEPS, "register"]


def test_help_lists_the_steps_of_a_run(steps):
    told = " ".join(parser().format_help().split())
    assert f"the whole release: {', '.join(steps)} validate" in told  # and then comes the first step's own line


def test_stages_depend_only_on_earlier_steps(repo, steps):
    order = [*WORLD, *steps]
    for stage in repo.index.stages:
        earlier = [dependency.name for dependency in repo.index.graph.successors(stage)]
        assert all(order.index(name) < order.index(stage.name) for name in earlier), stage.name
        assert earlier or stage.name in (*WORLD, "validate"), f"{stage.name} follows from nothing"


def test_stages_run_their_step_and_depend_on_its_code(pipeline):
    for name, stage in pipeline.items():
        if name not in WORLD:
            assert stage["cmd"].startswith(f"factpatch {name} ")
            assert {"factpatch", f"tasks/{name}.py"} <= set(stage["deps"])


def test_stages_hold_every_parameter_that_they_read(pipeline):
    sections = {field.name for field in dataclasses.fields(Settings)}
    named = {name for stage in pipeline.values() for name in stage.get("params", ())}
    # keys of sections that no step reads whole: probes are drawn by seed, and keep off what is protected
    read = named - {"gates.canaries", "training.seed", "training.preservation.prompts"}
    assert read == sections - NOT_REPRODUCED
    assert read <= set(yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8")))


def test_stages_that_train_hold_what_is_never_trained_on(pipeline):
    """The canaries: their prompts are held out, so another file of them makes another patch."""
    for name in ("localize", "edit", "evaluate"):
        assert "${gates.canaries}" in pipeline[name]["deps"], name
        assert {"gates.canaries", "evaluation", "edits", "model"} <= set(pipeline[name]["params"]), name


def test_dependencies_are_there_or_made(repo):
    made = {out.fs_path for out in repo.index.outs}
    paths = [dep.fs_path for stage in repo.index.stages for dep in stage.deps if dep.protocol == "local"]
    assert paths
    assert not [path for path in paths if not Path(path).exists() and path not in made]


def test_figures_can_be_committed_and_data_cannot(repo):
    """Git holds the JSON figures; DVC holds the rest, and where it does, git is told to look away."""
    figures = [out.fs_path for out in repo.index.outs if not out.use_cache]
    assert figures
    assert not [path for path in figures if repo.scm.is_ignored(path)]
    ignored = [out.fs_path for out in repo.index.outs if out.use_cache]
    tracked = subprocess.run(["git", "ls-files", *ignored], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert not tracked
