"""Numbers of the report that are no shares: in their own unit, on no axis of shares."""

from factpatch.report import render_card, render_report


def test_a_number_that_is_no_share_is_shown_in_its_unit():
    score = {"value": 0.0123, "n": 30, "ci95": [0.01, 0.0151]}
    definition = {"meaning": "how far", "direction": "lower", "unit": "nats"}
    evaluate = {"definitions": {"locality_divergence": definition}, "locality_divergence": score}
    assert "| locality&#95;divergence | – | 0.0123 nats | 0.01 – 0.0151 nats | 30 |" in render_card(
        {"evaluate": evaluate}
    )
    assert "0.0123 nats" in render_report({"evaluate": evaluate})
