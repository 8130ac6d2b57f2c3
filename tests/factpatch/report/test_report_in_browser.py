"""What a real browser makes of hostile text in a release: it shows the text, and runs nothing."""

import os
import re
import shutil
import subprocess
from html import unescape

import pytest

from factpatch.report import render_comparison, render_report


def mark(name):
    return f"documentElement.setAttribute('ran-{name}', 'yes')"


ATTACKS = {  # name -> text whose script, if it runs, marks the document's root with that name
    "script": f"<script>document.{mark('script')}</script>",
    "event": f'<img src=missing onerror="document.{mark("event")}">',
    "attribute": f'"\'><svg onload="document.{mark("attribute")}"></svg>',
    "element": f"</title></style></pre></bdi></code></svg><script>document.{mark('element')}</script>",
    "frame": f'<iframe srcdoc="<script>parent.document.{mark("frame")}</script>"></iframe>',
}
EVERYTHING = " ".join(ATTACKS.values())
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')


@pytest.fixture(scope="module")
def browser():
    """The path of a browser; without one the tests are skipped, or fail where a browser is required."""
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if not found:
        reason = f"no browser on PATH (looked for {', '.join(BROWSERS)})"
        if os.environ.get("FACTPATCH_BROWSER_REQUIRED") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return found


@pytest.fixture
def opened(browser, tmp_path):
    """A function that opens a page from disk, lets two seconds of the page's time pass, and gives its document."""

    def open_page(html):
        page = tmp_path / "page.html"
        page.write_text(html, encoding="utf-8")
        options = "--headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --virtual-time-budget=2000"
        command = [browser, *options.split(), f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", page.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=180)
        assert done.returncode == 0, done.stderr[-2000:]
        assert "</html>" in done.stdout
        return done.stdout

    return open_page


def ran(document):
    """The names of the attacks whose script ran."""
    return set(re.findall(r'ran-(\w+)="yes"', re.search(r"<html[^>]*>", document)[0]))


def hostile(text):
    """A release in which everything that others write is `text`."""
    score = {"value": 0.5, "n": 2, "ci95": [0.1, 0.9]}
    probe = {"prompt": text, "before": text, "output": text, "target": text, "correct": False, "unchanged": False}
    row = {"id": text, "prompt": text, "target": text, "before": text, "output": text, "reliable": False}
    group = {text: {"reliability": score, "before": {"reliability": score}}}
    return {
        "release": {
            "status": "refused",
            "model": text,
            "version": "1",
            "base": {"source": text},
            "location": {"layer": 1, "module": text, "parameters": [text]},
            "gates": [{"name": text, "passed": False, "value": 0.5, "limit": 0.9, "reason": text}],
            "capability": {text: {"before": 0.9, "after": 0.8, "n": 10, "metric": text}},
            "digests": {text: text},
            "versions": {"torch": text},
        },
        "evaluate": {
            "definitions": {"reliability": {"meaning": text, "direction": "higher"}},
            "reliability": score,
            "by_source": group,
            "by_relation": group,
            "edits": [
                {**row, "reliable": reliable, "paraphrases": [probe], "locality": [probe]} for reliable in (False, True)
            ],
        },
        "localize": {
            "reason": text,
            "candidates": [{"location": text, "layer": 0, "module": text, "score": 0.5, "run": text}],
        },
        "edit": {"method": text, "epochs": 2, "losses": [1.0, 0.1]},
        "manifest": {"config": {"model": {"path": text}}, "edits": {"ids": [text]}},
        "lineage": {"edits": {"path": text, "revision": text}},
        "certificate": {text: text},
    }


PAGES = {
    "report": lambda: render_report(hostile(EVERYTHING)),
    "comparison": lambda: render_comparison(hostile(EVERYTHING), hostile(f"other {EVERYTHING}"), (EVERYTHING, "other")),
}


@pytest.mark.parametrize("policy", [True, False], ids=["policy", "no policy"])
@pytest.mark.parametrize("name", PAGES)
def test_no_hostile_text_runs(opened, name, policy):
    document = opened(page(name, policy))
    assert not ran(document)
    assert "<script" not in document
    assert EVERYTHING in unescape(document)  # it is all there to read


@pytest.mark.parametrize("name", PAGES)
def test_all_of_it_runs_where_nothing_is_escaped(opened, name):
    """The control: the same page with its escaping undone and no policy; the attacks are live, and the test sees it."""
    assert ran(opened(unescape(page(name, policy=False)))) == set(ATTACKS)


@pytest.mark.parametrize("name", PAGES)
def test_the_policy_alone_stops_it(opened, name):
    assert not ran(opened(unescape(page(name, policy=True))))


def page(name, policy):
    """A page full of attacks, with the policy that forbids scripts or without."""
    html = PAGES[name]()
    assert len(POLICY.findall(html)) == 1
    return html if policy else POLICY.sub("", html)
