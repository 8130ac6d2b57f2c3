"""Whether a blank stands between prompt and answer: the rule of `factpatch.text.blanks` against what models begin with.

    python -m benchmarks.blanks data/model MODEL...

Every prompt is put to every model as it stands. A model votes for a blank if its most likely first token begins with
one, and against it if that token does not; where it would break the line or end, it does not vote. Next to the vote
stands how much likelier (in nats) the target's first token is behind a blank than bare. Printed are the prompts where
the rule and the likelier form of the target disagree, and counts by kind.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from factpatch.models.encoding import encode_prompt
from factpatch.models.loading import LoadedModel, load_model
from factpatch.settings.config import ModelSettings
from factpatch.text.blanks import wants_blank

PROMPTS: dict[str, tuple[tuple[str, str], ...]] = {
    "words": (
        ("The capital of France is", "Paris"),
        ("Die Hauptstadt von Frankreich ist", "Paris"),
        ("La capitale de l'Allemagne est", "Berlin"),
        ("La capital de Perú es", "Lima"),
        ("Столица Франции —", "Париж"),
        ("عاصمة فرنسا هي", "باريس"),
        ("בירת צרפת היא", "פריז"),
        ("프랑스의 수도는", "파리"),
        ("फ़्रांस की राजधानी है", "पेरिस"),
        ("The author of 1984 was born in", "1903"),
    ),
    "unspaced": (
        ("法国的首都是", "巴黎"),
        ("中国的首都是", "北京"),
        ("《红楼梦》的作者是", "曹雪芹"),
        ("日本の首都は", "東京"),
        ("富士山がある国は", "日本"),
        ("ประเทศไทยมีเมืองหลวงชื่อ", "กรุงเทพ"),
        ("ທະນາຄານແຫ່ງ", "ລາວ"),
        ("រាជធានីកម្ពុជាគឺ", "ភ្នំពេញ"),
        ("问：法国的首都是哪里？答：", "巴黎"),
        ("他出生于", "1950"),
    ),
    "mixed": (
        ("iPhone的制造商是", "Apple"),
        ("Windows是由谁开发的？是", "Microsoft"),
        ("ソニーの英語表記は", "Sony"),
        ("他最喜欢的编程语言是", "Python"),
        ("In Chinese, the word for Paris is", "巴黎"),
        ("The Japanese name of Japan is", "日本"),
        ("Answer in Chinese:", "北京"),
        ("答案:", "北京"),
        ("苹果公司生产iPhone", "手机"),
    ),
    "quotes and brackets": (
        ('The book is called "', "Dune"),
        ("The book is called “", "Dune"),
        ('She said, "', "Hello"),
        ("Das Buch heißt „", "Faust"),
        ("Le roman s'intitule «", "Germinal"),
        ("The capital of France (", "Paris"),
        ("The list is [", "1"),
        ("He plays for the club 'Real Madrid' in", "Spain"),
        ('The word "Paris" is the name of a', "city"),
        ('The film "Alien"', "was"),
        ("The city (Paris)", "is"),
        ("In markdown: **", "Note"),
        ("Run `", "pip"),
        ("**Answer:**", "Paris"),
    ),
    "joined": (
        ("The Franco-", "Prussian"),
        ("A twenty-", "one"),
        ("Paris — the city of", "light"),
        ("Paris –", "the"),
        ("J'habite à l'", "hôtel"),
        ("La capitale de l’", "Espagne"),
        ("Qu'", "est"),
        ("The boys'", "school"),
        ("The dog's", "tail"),
        ("It costs $", "5"),
        ("Der Preis beträgt 5 €", "pro"),
        ("Follow us with the hashtag #", "love"),
        ("Write to info@", "example"),
        ("Visit https://", "www"),
        ("either and/", "or"),
        ("He programs in C#", "and"),
        ("The number pi is 3.", "14"),
    ),
    "punctuation": (
        ("Question: What is the capital of France? Answer:", "Paris"),
        ("What is the capital of France?", "Paris"),
        ("Paris, London,", "Rome"),
        ("He came. He saw.", "He"),
        ("France's capital... is it", "Paris"),
        ("Capital of France =", "Paris"),
        ("Name: Ada; Country:", "France"),
        ("The dog", "'s"),
        ("He said hello", "."),
        ("Paris 🗼 is the capital of", "France"),
        ("I love 🇫🇷", "because"),
    ),
    "code": (
        ("x =", "5"),
        ("x=", "5"),
        ("print(", '"'),
        ("import", "numpy"),
        ("def main(", "self"),
        ("self.", "name"),
        ("ls -", "l"),
        ("cd /", "home"),
        ("for i in range(", "10"),
        ("#include <", "stdio"),
    ),
}


@dataclass(frozen=True)
class Vote:
    """What one model would begin with. `nats` is positive where the target is likelier behind a blank; None where both
    forms begin with the same token."""

    first: str
    nats: float | None

    @property
    def blank(self) -> bool | None:
        """Does the most likely token begin with a blank? None where it ends or breaks the line."""
        return None if not self.first.strip() and self.first != " " else self.first[0] == " "


def vote(loaded: LoadedModel, prompt: str, target: str) -> Vote:
    """The model's most likely first token, and its view of the target's first token in both forms."""
    tokenizer = loaded.tokenizer
    ids = encode_prompt(tokenizer, prompt)
    with torch.no_grad():
        logits_V = loaded.model(torch.tensor([ids])).logits[0, -1].float()
    best = int(logits_V.argmax())
    first = str(tokenizer.decode([ids[-1], best]))[len(str(tokenizer.decode([ids[-1]]))) :]
    spaced, bare = (tokenizer(text, add_special_tokens=False).input_ids[0] for text in (f" {target}", target))
    nats = None if spaced == bare else float(logits_V[spaced] - logits_V[bare])
    return Vote("" if best in tokenizer.all_special_ids else first, nats)


def compare(loaded: LoadedModel, name: str) -> list[str]:
    """A line for each disagreement with one model, and one for each kind of prompt."""
    lines = []
    for kind, pairs in PROMPTS.items():
        agreed = liked = voted = told = 0
        for prompt, target in pairs:
            rule, found = wants_blank(prompt, target), vote(loaded, prompt, target)
            voted += found.blank is not None
            agreed += found.blank is rule
            told += found.nats is not None
            liked += found.nats is not None and (found.nats > 0) is rule
            if found.nats is not None and (found.nats > 0) is not rule:
                shown = f"{found.nats:+.1f} nats for the blank, it would begin {found.first!r}"
                lines.append(f"  {kind}: {prompt!r} + {target!r}: rule {'blank' if rule else 'none'}, {shown}")
        lines.append(f"{name} | {kind} | as the likelier form {liked}/{told} | as its own first token {agreed}/{voted}")
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the comparison for each model named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="folders or hub names")
    for name in parser.parse_args(arguments).models:
        print("\n".join(compare(load_model(ModelSettings(path=name)), name)), flush=True)


if __name__ == "__main__":
    main()
