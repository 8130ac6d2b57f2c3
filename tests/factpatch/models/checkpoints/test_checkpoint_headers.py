"""A file is judged by its header alone: whole ones as the library reads them, all others refused in one line."""

import json
import random
import struct

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from factpatch.errors import InputError
from factpatch.models.checkpoints.folder import Checkpoint
from factpatch.models.checkpoints.headers import read_header
from factpatch.models.checkpoints.tensors import entry_digest, file_digests, read_tensor, same_bits, tensor_digest

TYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int64, torch.uint8, torch.bool)


def tensors_of(seed):
    generator = random.Random(seed)
    shapes = [(generator.randint(0, 3),) * generator.randint(0, 3) for _ in range(generator.randint(1, 6))]
    return {f"part.{number}": torch.ones(shape).to(generator.choice(TYPES)) for number, shape in enumerate(shapes)}


def write(path, header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


@given(seed=st.integers(0, 2**31))
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_file_is_read_as_the_library_reads_it(tmp_path, seed):
    path, saved = tmp_path / "a.safetensors", tensors_of(seed)
    save_file(saved, path, metadata={"format": "pt"})
    entries = read_header(path)
    with safe_open(path, "pt") as file:
        assert set(entries) == set(file.keys())
        for name, entry in entries.items():
            held = file.get_slice(name)
            assert (entry.dtype, list(entry.shape)) == (held.get_dtype(), held.get_shape())
            assert same_bits(read_tensor(entry), saved[name])
            assert entry_digest(entry) == tensor_digest(saved[name])


@given(seed=st.integers(0, 2**31), data=st.data())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_mutated_file_is_read_or_refused_in_one_line(tmp_path, seed, data):
    """What is read is what the library would read."""
    path = tmp_path / "a.safetensors"
    save_file(tensors_of(seed), path, metadata={"format": "pt"})
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        end = min(len(content), 8 + 400)
        place = data.draw(st.integers(0, max(end - 1, 0)))
        what = data.draw(st.sampled_from(["cut", "byte", "insert", "delete", "append"]))
        if what == "cut":
            del content[data.draw(st.integers(0, len(content))) :]
        elif what == "append":
            content += data.draw(st.binary(min_size=1, max_size=9))
        elif what == "insert":
            content[place:place] = data.draw(st.binary(min_size=1, max_size=4))
        elif content and what == "byte":
            content[place] = data.draw(st.integers(0, 255))
        elif content:
            del content[place]
    path.write_bytes(content)
    entries, refused = {}, ""
    try:
        entries = read_header(path)
    except InputError as error:
        refused = str(error)
    if refused:
        assert str(path) in refused
        assert "\n" not in refused
        return
    with safe_open(path, "pt") as file:  # raises if the library refuses what we took
        assert set(entries) == set(file.keys())


@pytest.mark.parametrize(
    ("header", "data", "words"),
    [
        (b"{", b"", "header is broken"),
        (b"\xff\xfe", b"", "header is broken"),
        (b"[]", b"", "no JSON object"),
        (b"[" * 200_000, b"", "header is broken"),
        (b" {}", b"", "no JSON object"),
        ({"__metadata__": {"format": 1}}, b"", "broken at __metadata__"),
        (b'{"a": 1, "a": 2}', b"", "'a' stands twice"),
        ({"a": 1}, b"", "broken at tensor 'a'"),
        ({"a": {"dtype": "F32", "shape": [1]}}, b"1234", "broken at tensor 'a'"),
        ({"a": {"dtype": "F31", "shape": [1], "data_offsets": [0, 4]}}, b"1234", "broken at tensor 'a'"),
        ({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, b"1234", "broken at tensor 'a'"),
        ({"a": {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}}, b"1234", "broken at tensor 'a'"),
        ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, b"1234", "broken at tensor 'a'"),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}, b"1234", "broken at tensor 'a'"),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, b"12345678", "overlap or leave gaps"),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, b"123", "cut short"),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, b"12345", "1 bytes more"),
    ],
)
def test_a_header_that_the_file_does_not_bear_out_is_refused(tmp_path, header, data, words):
    with pytest.raises(InputError, match=words):
        read_header(write(tmp_path / "a.safetensors", header, data))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"1234", "cut short"),
        (b"<!DOCTYPE html><html>", "no safetensors file"),
        (struct.pack("<Q", 1000) + b"{}", "cut short"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "Git LFS pointer.*git lfs pull"),
    ],
)
def test_what_is_no_safetensors_file_is_named(tmp_path, content, words):
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(InputError, match=words):
        read_header(tmp_path / "a.safetensors")


def test_a_file_is_hashed_once_until_it_is_written_to(tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    save_file({"a": torch.zeros(4), "b": torch.ones(4)}, path)
    checkpoint = Checkpoint(tmp_path, read_header(path))
    first = file_digests(checkpoint)
    assert first == {"a": tensor_digest(torch.zeros(4)), "b": tensor_digest(torch.ones(4))}
    with path.open("r+b") as file:
        file.seek(checkpoint.tensors["a"].start)
        file.write(b"1234")
    assert file_digests(checkpoint)["a"] != first["a"]
    monkeypatch.setattr("factpatch.models.checkpoints.tensors.entry_digest", None)  # not called any more
    assert file_digests(checkpoint)["b"] == first["b"]
