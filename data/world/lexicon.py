"""Word lists of the capability families: categories, opposites, review words, German words, story words."""

from __future__ import annotations

CATEGORIES: dict[str, tuple[str, ...]] = {
    name: tuple(words.split())
    for name, words in {
        "fruit": "apple banana cherry grape lemon mango melon peach pear plum kiwi fig",
        "vegetable": "carrot onion potato cabbage spinach celery garlic leek pea turnip radish lettuce",
        "animal": "dog cat horse cow lion tiger bear wolf rabbit goat monkey camel",
        "tool": "hammer saw drill spade rake axe chisel wrench shovel file pliers ladder",
        "colour": "red blue green yellow purple pink brown black white grey violet scarlet",
        "vehicle": "car bus train truck tram bicycle van lorry taxi tractor scooter ferry",
        "drink": "tea coffee water milk juice wine beer cider lemonade cocoa whisky rum",
        "garment": "shirt coat hat scarf glove sock skirt jacket dress jumper belt apron",
        "body part": "arm leg hand foot nose ear knee elbow shoulder neck finger thumb",
        "metal": "iron gold silver copper tin zinc lead nickel steel bronze brass titanium",
        "tree": "oak pine birch maple willow elm cedar beech spruce palm larch poplar",
        "job": "doctor teacher farmer baker nurse lawyer pilot tailor plumber painter cook judge",
        "building": "church school castle hotel hospital tower barn factory temple library palace cottage",
        "number": "one two three four five six seven eight nine ten twelve twenty",
        "season or month": "spring summer autumn winter April May June July August October March January",
        "piece of furniture": "table chair sofa bed desk shelf cupboard wardrobe stool bench cabinet drawer",
    }.items()
}

OPPOSITES: tuple[tuple[str, str], ...] = tuple(
    (pair.split("/")[0], pair.split("/")[1])
    for pair in (
        "hot/cold big/small fast/slow high/low old/new rich/poor hard/soft wet/dry full/empty loud/quiet early/late "
        "light/dark open/shut strong/weak thick/thin long/short deep/shallow clean/dirty safe/dangerous happy/sad "
        "near/far true/false right/wrong first/last up/down in/out day/night win/lose buy/sell push/pull love/hate "
        "north/south east/west begin/end give/take come/go laugh/cry wide/narrow sharp/blunt sweet/sour"
    ).split()
)

THINGS = (
    "film book meal hotel room service concert game phone camera show story song play coffee garden museum trip class "
    "talk shop staff party food music plot acting view screen battery"
).split()
GOOD = (
    "wonderful great excellent lovely superb delightful brilliant amazing charming perfect splendid pleasant fantastic "
    "enjoyable beautiful impressive outstanding fine marvellous clever"
).split()
BAD = (
    "terrible awful dreadful horrible poor disappointing boring bad dull ugly nasty weak annoying useless miserable "
    "shabby painful tedious unpleasant appalling"
).split()

# German noun, gender, English noun.
NOUNS: tuple[tuple[str, str, str], ...] = tuple(
    (entry.split("/")[0], entry.split("/")[1], entry.split("/")[2])
    for entry in (
        "Hund/m/dog Katze/f/cat Pferd/n/horse Kuh/f/cow Vogel/m/bird Mann/m/man Frau/f/woman Kind/n/child "
        "Lehrer/m/teacher Arzt/m/doctor Bauer/m/farmer Königin/f/queen König/m/king Freund/m/friend Mädchen/n/girl "
        "Tisch/m/table Stuhl/m/chair Buch/n/book Brief/m/letter Apfel/m/apple Brot/n/bread Haus/n/house Auto/n/car "
        "Zug/m/train Schiff/n/ship Blume/f/flower Baum/m/tree Brücke/f/bridge Stadt/f/town Lampe/f/lamp Uhr/f/clock "
        "Tür/f/door Fenster/n/window Garten/m/garden"
    ).split()
)
ANIMATE = 15
VERBS = tuple(
    tuple(pair.split("/"))
    for pair in (
        "sieht/sees findet/finds kauft/buys verkauft/sells liebt/loves sucht/seeks malt/paints zeichnet/draws hat/has "
        "bringt/brings holt/fetches zeigt/shows kennt/knows vergisst/forgets"
    ).split()
)
ADJECTIVES = tuple(
    tuple(pair.split("/"))
    for pair in (
        "groß/big klein/small alt/old neu/new schön/beautiful rot/red blau/blue grün/green schwarz/black weiß/white "
        "teuer/expensive billig/cheap stark/strong müde/tired schnell/fast langsam/slow jung/young kalt/cold"
    ).split()
)
ADVERBS = tuple(
    tuple(pair.split("/")) for pair in "heute/today jetzt/now oft/often hier/here dort/there wieder/again".split()
)

PERSONS = (
    "Tom Anna Ben Lucy Sam Mia Jack Emma Leo Nina Max Ella Paul Ruth Adam Sara Luke Jane Mark Kate Dan Lily Owen Rose"
).split()
COUNTABLE = (
    "apples pencils books coins stamps marbles cards eggs shells cakes balls toys cups plates keys buttons stones "
    "flowers oranges tickets bottles candles boxes hats"
).split()
