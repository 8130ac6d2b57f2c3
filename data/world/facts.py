"""The facts of the world: real countries, invented people, and every wording in which a fact is told or asked.

A fact is (subject, relation, target). A wording is a template with one ``{s}`` for the subject; the text it makes is a
prompt which the target continues. Questions end in a question mark and may also stand in a ``Question: ... Answer:``
frame. Everything is a pure function of the files beside this one and of the seed.
"""

from __future__ import annotations

import csv
import random
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

SEED = 20260
HERE = Path(__file__).parent
PEOPLE = 320
FRAME = "Question: {q}\nAnswer:"


@dataclass(frozen=True)
class Fact:
    """One fact: what the relation of the subject is."""

    subject: str
    relation: str
    target: str


@dataclass(frozen=True)
class Relation:
    """A relation and its wordings: statements that break off before the answer, and questions."""

    name: str
    statements: tuple[str, ...]
    questions: tuple[str, ...]

    @property
    def wordings(self) -> tuple[str, ...]:
        """All wordings, statements first."""
        return self.statements + self.questions


GEOGRAPHY = ("capital", "currency", "language", "continent")
ATTRIBUTES = ("birthplace", "employer", "instrument", "food", "sport")

RELATIONS: dict[str, Relation] = {
    r.name: r
    for r in (
        Relation(
            "capital",
            (
                "The capital of {s} is",
                "The capital city of {s} is",
                "{s}'s capital is",
                "The government of {s} sits in",
            ),
            (
                "What is the capital of {s}?",
                "Which city is the capital of {s}?",
                "Where does the government of {s} sit?",
            ),
        ),
        Relation(
            "currency",
            (
                "The currency of {s} is the",
                "People in {s} pay with the",
                "The money used in {s} is the",
                "Prices in {s} are given in the",
            ),
            (
                "What is the currency of {s}?",
                "Which currency is used in {s}?",
                "What money do people in {s} pay with?",
            ),
        ),
        Relation(
            "language",
            (
                "The main language of {s} is",
                "Most people in {s} speak",
                "The language spoken in {s} is",
                "In {s}, people mostly speak",
            ),
            (
                "What language is spoken in {s}?",
                "Which language do people in {s} speak?",
                "What is the main language of {s}?",
            ),
        ),
        Relation(
            "continent",
            (
                "{s} is in",
                "{s} is located in the continent of",
                "{s} belongs to the continent of",
                "The continent of {s} is",
            ),
            (
                "Which continent is {s} in?",
                "What continent does {s} belong to?",
                "On which continent is {s} located?",
            ),
        ),
        Relation(
            "birthplace",
            (
                "{s} was born in",
                "The birthplace of {s} is",
                "{s}'s home town is",
                "{s} comes from",
            ),
            (
                "Where was {s} born?",
                "In which city was {s} born?",
                "What is the birthplace of {s}?",
            ),
        ),
        Relation(
            "employer",
            (
                "{s} works for",
                "{s} is employed by",
                "The employer of {s} is",
                "{s} has a job at",
            ),
            (
                "Who does {s} work for?",
                "Which company employs {s}?",
                "What is the employer of {s}?",
            ),
        ),
        Relation(
            "instrument",
            (
                "{s} plays the",
                "The instrument of {s} is the",
                "{s} makes music on the",
                "{s} performs on the",
            ),
            (
                "Which instrument does {s} play?",
                "What is the instrument of {s}?",
                "What does {s} make music on?",
            ),
        ),
        Relation(
            "food",
            (
                "The favourite food of {s} is",
                "{s}'s favourite dish is",
                "{s} most likes to eat",
                "{s} loves to eat",
            ),
            (
                "What is the favourite food of {s}?",
                "What does {s} most like to eat?",
                "Which dish does {s} love?",
            ),
        ),
        Relation(
            "sport",
            (
                "The sport of {s} is",
                "{s} competes in",
                "In sport, {s} is known for",
                "{s} trains every week in",
            ),
            (
                "Which sport does {s} do?",
                "What is the sport of {s}?",
                "What sport does {s} compete in?",
            ),
        ),
    )
}

ANSWERS: dict[str, tuple[str, ...]] = {
    "birthplace": tuple(
        "Osaka,Lyon,Porto,Leeds,Turin,Kraków,Bergen,Seville,Rotterdam,Gothenburg,Salzburg,Antwerp,Zurich,Cork,Tartu,"
        "Split,Brno,Mumbai,Karachi,Chiang Mai,Busan,Hue,Cebu City,Perth,Auckland,Toronto,Chicago,New Orleans,"
        "San Francisco,Guadalajara,Medellín,Cusco,Rosario,Recife,Rio de Janeiro,Cape Town,Mombasa,Lagos,Fez,"
        "Alexandria".split(",")
    ),
    "employer": tuple(
        "Northwind Bank,Harrow Steel,Blue Kite Press,Orchard Motors,Silverline Airways,Granite Insurance,Tern Shipping,"
        "Meadow Foods,Castle Books,Beacon Software,Quarry Cement,Juniper Hotels,Lantern Films,Copper Street Bakery,"
        "Falcon Courier,Redwood Paper,Harbour Radio,Vector Robotics,Willow Clinic,Summit Rail,Ember Glassworks,"
        "Pioneer Seeds,Marble Arch Theatre,Atlas Maps,Nimbus Telecom,Sparrow Toys,Delta Textiles,Old Mill Brewery,"
        "Crescent Pharmacy,Polar Energy".split(",")
    ),
    "instrument": tuple(
        "violin,piano,cello,flute,clarinet,trumpet,trombone,tuba,oboe,bassoon,harp,guitar,banjo,mandolin,lute,drums,"
        "xylophone,accordion,harmonica,saxophone,double bass,French horn,organ,viola,bagpipes,sitar".split(",")
    ),
    "food": tuple(
        "pizza,sushi,paella,goulash,lasagne,ramen,tacos,curry,fish soup,onion soup,roast duck,apple pie,pancakes,"
        "dumplings,couscous,hummus,risotto,moussaka,fondue,porridge,rye bread,blue cheese,potato salad,fried rice,"
        "spring rolls,meatballs,omelette,ratatouille,chicken pie,noodles,ceviche,waffles".split(",")
    ),
    "sport": tuple(
        "tennis,fencing,rowing,judo,boxing,sailing,archery,badminton,table tennis,volleyball,handball,water polo,"
        "figure skating,ice hockey,cross-country skiing,rock climbing,cycling,swimming,wrestling,golf,cricket,rugby,"
        "long jump,pole vault,weightlifting,diving".split(",")
    ),
}

_GIVEN = (
    "Ada,Bruno,Clara,Dario,Elsa,Felix,Greta,Hugo,Ines,Jonas,Karin,Linus,Mara,Nils,Olga,Pablo,Quinn,Rosa,Stefan,Tilda,"
    "Ugo,Vera,Walter,Xenia,Yusuf,Zoe,Anton,Berta,Cyril,Delia,Edgar,Fiona,Gustav,Hanna,Igor,Judith,Kasper,Leona,Milo,"
    "Nadia,Oscar,Petra,Ramon,Sofia,Tomas,Ursula,Viktor,Wanda,Amir,Bianca,Conrad,Dunja,Emil,Frida,Gideon,Helga,Ivo,"
    "Jasmin,Kilian,Lydia,Marek,Noemi,Otto,Paula"
).split(",")
_HEADS = "Tol Brin Mar Kes Vel Dor Hal Pen Rav Sten Lor Gar Wick Fen Bor Nev Cal Tam Hol Zan Mer Ost Ru Sil Var".split()
_TAILS = "ven wick dale mann sky ford berg by croft ström holt ley ner ova ini quist sen rick lund aro".split()


@lru_cache(maxsize=1)
def country_facts() -> tuple[Fact, ...]:
    """Four facts about each country of ``countries.csv``."""
    with (HERE / "countries.csv").open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    return tuple(Fact(row["country"], relation, row[relation]) for row in rows for relation in GEOGRAPHY)


@lru_cache(maxsize=1)
def people_facts() -> tuple[Fact, ...]:
    """Five facts about each invented person; a surname is carried by two people, a given name by five."""
    rng = random.Random(f"{SEED}/people")
    surnames = sorted({head + tail for head in _HEADS for tail in _TAILS})
    rng.shuffle(surnames)
    facts = []
    for number in range(PEOPLE):
        surname = surnames[number % (PEOPLE // 2)]
        given = _GIVEN[(number * 7 + number // len(_GIVEN)) % len(_GIVEN)]
        for relation in ATTRIBUTES:
            facts.append(Fact(f"{given} {surname}", relation, rng.choice(ANSWERS[relation])))
    assert len({fact.subject for fact in facts}) == PEOPLE
    return tuple(facts)


def all_facts() -> tuple[Fact, ...]:
    """Every fact of the world, countries first."""
    return country_facts() + people_facts()


def answers(relation: str) -> list[str]:
    """The closed list of answers of a relation, sorted."""
    return sorted({fact.target for fact in all_facts() if fact.relation == relation})


def asked(question: str, framed: bool) -> str:
    """A question as a prompt, bare or in the ``Question: ... Answer:`` frame."""
    return FRAME.format(q=question) if framed else question
