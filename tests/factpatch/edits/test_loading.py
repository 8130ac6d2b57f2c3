"""Every known form becomes native rows; files, folders and hub names are sources alike."""

from __future__ import annotations

import json
import tracemalloc
from itertools import islice

import datasets
import huggingface_hub
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from factpatch.edits.loading import Row, read_as, read_rows, stream_rows
from factpatch.edits.request import EditRequest, Probe
from factpatch.errors import InputError

TEXT = st.text(max_size=20)  # lone surrogates included: JSON can carry them
PROBES = st.lists(st.builds(Probe, TEXT, TEXT), max_size=2).map(tuple)
EDITS = st.builds(
    EditRequest,
    id=TEXT.filter(bool),
    prompt=TEXT,
    target=TEXT,
    subject=st.none() | TEXT.filter(bool),  # an empty text is none
    target_old=st.lists(TEXT, max_size=2).map(tuple),
    paraphrases=st.lists(TEXT, max_size=3).map(tuple),
    locality=PROBES,
    portability=PROBES,
    expires=st.none() | st.dates().map(str),
)


def jsonl(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edits=st.lists(EDITS, min_size=1, max_size=4))
def test_native_rows_come_back_as_they_were(tmp_path, edits):
    source = jsonl(tmp_path / "edits.jsonl", *(edit.to_row() for edit in edits))
    assert [EditRequest.from_row(row.values) for row in read_rows(source)] == edits


def test_rows_of_other_forms_are_refused_with_their_fields(tmp_path):
    source = jsonl(tmp_path / "a.jsonl", {"prompt": "p", "target": "t"}, {"term": "q", "gloss": "a"})
    with pytest.raises(InputError, match=r"a\.jsonl row 2: its form is not known \(fields: term, gloss\)"):
        list(read_rows(source))


def test_fields_and_types_may_differ_from_row_to_row(tmp_path):
    rows = [{"prompt": "p", "target": "t"}, {"src": "q", "alt": "u"}, {"prompt": "r", "target": 5, "subject": ["s"]}]
    source = jsonl(tmp_path / "a.jsonl", *rows)
    assert list(read_rows(source)) == [
        Row(source, 1, {"prompt": "p", "target": "t"}),
        Row(source, 2, {"prompt": "q", "target": "u"}),
        Row(source, 3, {"prompt": "r", "target": "5", "subject": ["s"]}),
    ]


def test_a_folder_is_read_in_file_name_order(tmp_path):
    jsonl(tmp_path / "0002-b.jsonl", {"prompt": "b", "target": "t"})
    (tmp_path / "0001-[a].csv").write_text("prompt,target\na,t\n")
    jsonl(tmp_path / ".hidden.jsonl", {"prompt": "h", "target": "t"})
    (tmp_path / "README.md").write_text("# Edits")
    (tmp_path / "0002-b.jsonl.dvc").write_text("outs:")
    assert [row.values["prompt"] for row in read_rows(str(tmp_path))] == ["a", "b"]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda folder: (folder / "0002-big.jsonl.dvc").write_text("outs:"),
            "0002-big.jsonl.dvc' stands for .*dvc pull",
        ),
        (
            lambda folder: (folder / "0002-big.jsonl").symlink_to("cache"),
            "0002-big.jsonl' is a link to what is not here",
        ),
        (lambda folder: (folder / "0002-big.jsonl").mkdir(), "0002-big.jsonl' is no file"),
    ],
)
def test_what_is_not_here_is_refused_as_its_facts_would_count_as_withdrawn(tmp_path, make, words):
    jsonl(tmp_path / "0001-a.jsonl", {"prompt": "a", "target": "t"})
    make(tmp_path)
    with pytest.raises(InputError, match=words):
        list(read_rows(str(tmp_path)))


def test_a_folder_must_hold_edits_and_nothing_unknown(tmp_path):
    with pytest.raises(InputError, match="holds no edits"):
        list(read_rows(str(tmp_path)))
    (tmp_path / "0001.txt").write_bytes(b"PK")
    with pytest.raises(InputError, match="unknown ending"):
        list(read_rows(str(tmp_path)))


@pytest.mark.parametrize("name", ["absent.jsonl", "./absent", "some/where/absent", "data/absent", "a\x00b"])
def test_an_absent_path_is_not_asked_of_the_hub(name, monkeypatch, tmp_path):
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda *_, **__: pytest.fail("asked"))
    with pytest.raises(InputError, match="no such file or folder; check the path"):
        list(read_rows(name))


def test_a_hub_name_that_the_hub_does_not_give(monkeypatch):
    def fail(*_, **__):
        raise ConnectionError("a long story\nin two lines")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", fail)
    with pytest.raises(InputError, match=r"'owner/set': no such file or folder, and no data set .*ConnectionError"):
        list(read_rows("owner/set"))


def test_a_hub_set_is_streamed(monkeypatch):
    rows = {"prompt": ["p", "q"], "target": [1.5, float("nan")], "paraphrases": [["r"], None]}
    streamed = datasets.Dataset.from_dict(rows).to_iterable_dataset()
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda *_, **__: None)
    monkeypatch.setattr(datasets, "load_dataset", lambda name, streaming: {"test": None, "train": streamed})
    assert list(read_rows("owner/set")) == [
        Row("owner/set", 1, {"prompt": "p", "target": "1.5", "paraphrases": ["r"]}),
        Row("owner/set", 2, {"prompt": "q"}),
    ]


def test_rows_are_a_streaming_data_set(tmp_path):
    source = jsonl(tmp_path / "a.jsonl", {"prompt": "p", "target": "t"}, {"prompt": "q", "target": "u"})
    rows = stream_rows(source)
    assert isinstance(rows, datasets.IterableDataset)
    assert [row["number"] for row in rows.filter(lambda row: row["values"]["prompt"] == "q")] == [2]


def test_a_hundred_thousand_rows_stream_in_bounded_memory(tmp_path):
    path = tmp_path / "edits.json"
    items = ",\n".join(f'{{"prompt": "The capital of country {n} is", "target": "City {n}"}}' for n in range(100_000))
    path.write_text(f"[{items}]")
    del items
    rows = read_rows(str(path))
    tracemalloc.start()
    count = sum(1 for _ in islice(rows, 10_000))  # kept rows would show here already; tracing is slow
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count + sum(1 for _ in rows) == 100_000
    assert peak < 1_000_000


def test_a_field_that_looks_like_a_slip_is_refused_and_others_are_free(tmp_path):
    path = tmp_path / "edits.jsonl"
    path.write_text('{"prompt": "Who?", "target": "Bob", "paraphrase": ["Whom?"], "ticket": 7}\n')
    with pytest.raises(InputError, match=r"row 1: field 'paraphrase' is not known; did you mean 'paraphrases'\?"):
        list(read_rows(str(path)))
    path.write_text('{"prompt": "Who?", "target": "Bob", "paraphrases": ["Whom?"], "ticket": 7, "relation": "name"}\n')
    (row,) = read_rows(str(path))
    assert "ticket" not in row.values


def test_every_file_says_how_its_rows_were_read(tmp_path):
    jsonl(tmp_path / "1.jsonl", {"prompt": "p", "target": "t", "ticket": 7}, {"src": "q", "alt": "u", "pred": "x"})
    jsonl(tmp_path / "2.jsonl", {"prompt": "p", "target": "t"}, {"prompt": "q", "target": "t", "ticket": 8, "n": None})
    assert read_as(read_rows(str(tmp_path))) == [
        {
            "file": str(tmp_path / "1.jsonl"),
            "format": "JSON Lines",
            "form": "native",
            "rows": 1,
            "edits": 1,
            "unused": {"ticket": 1},
        },
        {
            "file": str(tmp_path / "1.jsonl"),
            "format": "JSON Lines",
            "form": "ZsRE",
            "rows": 1,
            "edits": 1,
            "unused": {"pred": 1},
        },
        {
            "file": str(tmp_path / "2.jsonl"),
            "format": "JSON Lines",
            "form": "native",
            "rows": 2,
            "edits": 2,
            "unused": {"ticket": 1},
        },
    ]


def test_rows_that_leave_the_same_fields_unused_share_their_names(tmp_path):
    """So that reading 100,000 rows costs no more memory than before they bore these."""
    source = jsonl(tmp_path / "a.jsonl", *({"prompt": f"p{n}", "target_new": "t", "case_id": n} for n in range(3)))
    rows = list(read_rows(source))
    assert len({id(row.unused) for row in rows}) == len({id(row.form) for row in rows}) == 1
