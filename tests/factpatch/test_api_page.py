"""The examples of docs/api.md, block by block, on the embedded model."""

import os
import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "api.md"


def test_every_example_of_the_page_runs(tmp_path, monkeypatch, reference_model, capsys):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "model").symlink_to(reference_model, target_is_directory=True)
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 5
    names: dict = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    assert names["scores"]["reliability"]["value"] == 1.0
    assert names["found"].location.name == "4:mlp"
    assert names["result"].patch.manifest["training"]["epochs"] <= 8
    assert capsys.readouterr().out.startswith("edits row 1 ('The capital of France is' -> '')")
    assert sorted(os.listdir()) == ["data", "out"]  # nothing was written but what was asked for
