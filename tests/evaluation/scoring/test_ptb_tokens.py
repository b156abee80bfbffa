"""Right values of COCO's caption tokens.

They come from pycocoevalcap 1.2 itself (Java 17), for each caption here followed by another one:

    pip install pycocoevalcap==1.2
    python -c "
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer
    print(PTBTokenizer().tokenize({i: [{'caption': c}, {'caption': '~'}] for i, c in enumerate(captions)}))"
"""

import pytest

from satlisa.evaluation.scoring.ptb_tokens import tokenize
from tests.helpers.quick import quick

TOKENS = [  # a caption, its tokens with spaces between them
    (
        "A satellite image of a dense residential area, with many small houses and a few trees.",
        "a satellite image of a dense residential area with many small houses and a few trees",
    ),
    (
        "There are two white airplanes parked on the runway near the terminal.",
        "there are two white airplanes parked on the runway near the terminal",
    ),
    (
        "The airport's main runway isn't visible; it's hidden by clouds!",
        "the airport 's main runway is n't visible it 's hidden by clouds",
    ),
    (
        "You can't see the river, and there aren't any bridges. Don't expect more.",
        "you ca n't see the river and there are n't any bridges do n't expect more",
    ),
    (
        "We're looking at what they've built: it'll be a stadium, I'm sure, and she'd agree.",
        "we 're looking at what they 've built it 'll be a stadium i 'm sure and she 'd agree",
    ),
    ("I cannot see it; you're gonna need a map.", "i can not see it you 're gon na need a map"),
    (
        "The houses' roofs are red, and the church's tower is 30 m high.",
        "the houses roofs are red and the church 's tower is 30 m high",
    ),
    (
        "The scene covers 3,000 m² (about 0.3 ha) at 0.5 m/px.",
        "the scene covers 3,000 m ² -lrb- about 0.3 ha -rrb- at 0.5 m/px",
    ),
    (
        "A pond with an area of 12.5% of the tile, i.e. approx. 1,234.56 square metres.",
        "a pond with an area of 12.5 % of the tile i.e. approx 1,234.56 square metres",
    ),
    (
        "The U.S. Army base lies near Washington, D.C. The road leads to St. Louis.",
        "the u.s. army base lies near washington d.c. the road leads to st. louis",
    ),
    ("Vehicles: 12 cars, 3 trucks & 1 bus; no. 5 is red.", "vehicles 12 cars 3 trucks & 1 bus no. 5 is red"),
    (
        "Land cost $5 million, £3 million or €4 million (¥600).",
        "land cost $ 5 million # 3 million or $ 4 million -lrb- ¥ 600 -rrb-",
    ),
    (
        "A 4-lane highway runs north-south; left-hand lanes are empty, x-ray-like shadows.",
        "a 4-lane highway runs north-south left-hand lanes are empty x-ray-like shadows",
    ),
    ("\"Dense forest\" and 'bare soil' are mixed.", "dense forest and bare soil are mixed"),
    ("“Dense forest” and ‘bare soil’ aren’t mixed…", "dense forest and bare soil are n't mixed"),
    ("It’s the harbour’s pier – not the jetty — that’s long.", "it 's the harbour 's pier not the jetty that 's long"),
    (
        "The field [upper left] is {green} and (partly) fallow.",
        "the field -lsb- upper left -rsb- is -lcb- green -rcb- and -lrb- partly -rrb- fallow",
    ),
    (
        "Roads and/or paths cross the farmland at 10:30 a.m. on 12/25/2012.",
        "roads and/or paths cross the farmland at 10:30 a.m. on 12/25/2012",
    ),
    (
        "About ½ of the image is water; ¼ is sand, 1 3/4 is wrong.",
        "about 1/2 of the image is water 1/4 is sand 1\xa03/4 is wrong",
    ),
    ("The temperature was 30°C, or 86 °F; 45° N.", "the temperature was 30 ° c or 86 ° f 45 ° n."),
    (
        "Buildings... lots of them... everywhere -- truly --- everywhere.",
        "buildings lots of them everywhere truly everywhere",
    ),
    (
        "A naïve façade in São Paulo near the Müller café, Łódź.",
        "a naïve façade in são paulo near the müller café łódź",
    ),
    ("北京机场 and 東京タワー are large.", "北京机场 and 東京タワー are large"),
    ("Аэропорт и река рядом.", "аэропорт и река рядом"),
    ("An emoji 😀 and a flag 🇩🇪 appear ✓ → done.", "an emoji and a flag appear ✓ → done"),
    (
        "See http://www.example.com/a?b=c, www.foo.org or mail a@b.com.",
        "see http://www.example.com/a?b=c www.foo.org or mail a@b.com",
    ),
    (
        "Rock 'n' roll in the '90s at 5 o'clock; 'tis fun, y'all.",
        "rock 'n' roll in the '90s at 5 o'clock 't is fun y' all",
    ),
    (
        "R&D center of AT&T next to the Yahoo! office, Inc. and Co. Ltd.",
        "r&d center of at&t next to the yahoo office inc. and co. ltd.",
    ),
    (
        "A 512x512 tile, 2×3 grid, 10-12 buildings, 1/2 mile, +5 and -5.",
        "a 512x512 tile 2 × 3 grid 10-12 buildings 1/2 mile +5 and -5",
    ),
    ("# 3 #buildings @someone C++ a_b under_score *bold*", "# 3 #buildings @someone c++ a_b under_score * bold *"),
    ("What is it?! Really?? No!!! Yes.", "what is it ?! really ?? no !!! yes"),
    ("Email&amp;web &lt;tag&gt; <b>bold</b> <SEG> end", "email & web < tag > <b> bold </b> <seg> end"),
    ("Left/right/centre a/b/c/d \\ | ~ ^ = + %", "left/right/centre a/b/c / d \\ | ~ ^ = + %"),
    (
        "Fig. 3 shows p. 5 of vol. 2, cf. sec. 4, e.g. Mt. Everest, etc.",
        "fig. 3 shows p. 5 of vol 2 cf. sec 4 e.g. mt. everest etc.",
    ),
    ("Jan. 5, Feb. 6 and Sept. 7 were Mon. and Tues.", "jan. 5 feb. 6 and sept. 7 were mon. and tues."),
    ("the 1st, 2nd, 3rd and 21st century; 1990s, 1990's", "the 1st 2nd 3rd and 21st century 1990s 1990 's"),
    ("Call (555) 123-4567 or 1-800-555-1234.", "call -lrb-555-rrb-\xa0123-4567 or 1-800-555-1234"),
    ("word.Another word,another word;another word:another", "word.another word another word another word another"),
    ("ALL CAPS TEXT ISN'T NICE, IT'S LOUD", "all caps text is n't nice it 's loud"),
    (
        "a\xa0no-break space, a soft\xadhyphen and a zero\u200bwidth space",
        "a no-break space a softhyphen and a zero width space",
    ),
    ("  spaces   before,  between and after  ", "spaces before between and after"),
    (
        "3.14 .5 5. 1,000,000 1.000.000 10km 10.5km 5ft. 6 ft. 20m",
        "3.14 .5 5 1,000,000 1.000.000 10km 10.5 km 5ft 6 ft. 20m",
    ),
    ("image_01.png and map.tif, v1.0, 2012-01-02", "image_01 png and map.tif v1 .0 2012-01-02"),
    ('He said: "It\'s 5\' 6"."', "he said it 's 5 6"),
    ("O'Malley's d'Avignon ma'am ain't shouldn't've", "o'malley 's d'avignon ma'am ai n't should n't 've"),
    ("mid-1990s post-war U.S.-based non-U.S. co-operative's", "mid-1990s post-war u.s.-based non-u.s. co-operative 's"),
    (":) ;-) :D <3 ^_^ -_-", ":-rrb- ;--rrb- :d < 3 ^_^ -_-"),
    ("• first – second · third", "• first second · third"),
    ("H₂O, CO₂, m³, x², 10⁻³", "h ₂ o co ₂ m ³ x ² 10 ⁻³"),
    ("一栋建筑物，三条道路。", "一栋建筑物 ， 三条道路 。"),
    ("ﬁne ﬂat Ａｂｃ １２３", "ﬁne ﬂat ａｂｃ １２３"),
    ("½-inch pipe, 3½ rooms, ⅓ and ⅝", "1/2 inch pipe 3 1/2 rooms 1/3 and ⅝"),
    ("'single' `back` ''two'' ``ticks'' ‹a› «b» „c“", "single back two ticks a b „ c"),
    ("a.b.c a.b. x.y, Ph.D. and B.Sc. degrees", "a.b.c a.b. x.y ph.d. and b.sc degrees"),
    ("dunno whatcha lemme gimme wanna gotta", "dunno whatcha lem me gim me wan na got ta"),
    (".", ""),
    ("!!!", "!!!"),
    ("( )", "-lrb- -rrb-"),
]


@pytest.mark.parametrize(("caption", "tokens"), TOKENS)
def test_tokens_are_those_of_the_java_program(caption: str, tokens: str) -> None:
    assert " ".join(tokenize(caption)) == tokens


@pytest.mark.parametrize("caption", ["", " ", "\n\n", "\x00\x01", "😀", "\ud83d", "... , '' -- "])
def test_nothing_to_say_has_no_tokens(caption: str) -> None:
    assert tokenize(caption) == ()


@pytest.mark.parametrize("end", ["\n", "\r\n", "\u2028", "\x85", "\t"])
def test_a_line_break_is_a_space(end: str) -> None:
    assert tokenize(f"two cars.{end}One road.") == ("two", "cars", "one", "road")


def test_the_end_of_a_caption_looks_at_no_other_caption() -> None:
    assert tokenize("no. 5") == ("no.", "5") and tokenize("there is no.") == ("there", "is", "no")


@pytest.mark.parametrize(
    "caption",
    ["a" * 20000, "a-" * 10000, "a." * 10000, "a@" * 2000, "<a " * 2000, "'" * 5000, "1." * 10000, "a,b" * 1000],
)
def test_long_repetitions_take_no_long_time(caption: str) -> None:
    with quick(1):
        tokenize(caption)
