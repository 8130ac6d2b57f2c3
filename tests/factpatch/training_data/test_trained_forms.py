"""Neighbours in the forms that edits are trained in."""

from factpatch.edits.request import EditRequest
from factpatch.training_data.augmentation import FRAMES
from factpatch.training_data.leakage import held_out
from factpatch.training_data.rows import find_training_rows
from factpatch.training_data.templates import TemplateGroups
from factpatch.training_data.trained_forms import in_trained_forms
from tests.factpatch.training_data.test_neighbours import SUBJECTS, edit, settings_with
from tests.factpatch.training_data.test_rows import loaded, prompts  # noqa: F401


def test_neighbours_are_kept_in_the_forms_that_edits_are_trained_in(loaded, monkeypatch):  # noqa: F811
    """All as they stand; a third in the chat form and a third inside other text as well, where edits are."""
    monkeypatch.setattr(loaded.tokenizer, "chat_template", "{% for one in messages %}<{{ one.content }}>{% endfor %}")
    edits = [edit("Nobody but {} has ever", name) for name in SUBJECTS["food"]]
    wordings, held = TemplateGroups((), {}), held_out(edits)
    near = [EditRequest("neighbour", f"Question {number} about it is", "") for number in range(60)]
    own, other = in_trained_forms(near, edits, wordings, settings_with(wordings=1, both_forms=True), held, True)
    framed = [request for request in own if request not in near]
    assert own[:60] == near
    assert 10 < len(other) < 30
    assert set(other) < set(near)
    assert 10 < len(framed) < 30
    assert all(
        any(frame.replace("{}", text.prompt) == request.prompt for text in near for frame in FRAMES)
        for request in framed
    )
    assert in_trained_forms(near, edits, wordings, settings_with(wordings=1, both_forms=True), held, False)[1] == []
    assert in_trained_forms(near, edits, wordings, settings_with(), held, True) == (near, [])
    rows = find_training_rows(loaded, edits, settings_with(wordings=1, both_forms=True, neighbours=4.0)).preserved
    assert any(text.startswith("<") for text in prompts(loaded, rows))
