"""Read counts out of English text: "3 buildings and 2 roads", "Two planes, one ship", "no objects", "roads: 2".

A count is a number and the words after it, up to punctuation, another number, a verb or a preposition; the last word is
made singular. Years, measures, shares and numbers that are part of a word ("2018", "10 m", "30%", "12 by 12", "3D",
"2-3") are no counts. This is a rule for short answers, not a parser: it knows no other languages.
"""

import re
import unicodedata
from collections.abc import Sequence


def _words(text: str) -> list[str]:
    return text.split()


_UNITS = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
_NUMBERS = {word: n for n, word in enumerate(_words(f"{_UNITS} seventeen eighteen nineteen twenty"))}
_TENS = {
    word: 10 * n for n, word in enumerate(_words("twenty thirty forty fifty sixty seventy eighty ninety"), start=2)
}
_ARTICLES = ("a", "an")
_PREPOSITIONS = {
    *_words("in on at near of to from by for along around beside behind within across through into next between under"),
    *_words("over above below inside outside amid among as per"),
}
_STATES = set(_words("visible seen shown present detected found located identified standing appearing total"))
_STOPS = _PREPOSITIONS | _STATES | {
    *_words("and or plus but with without while that which who where there is are was were be been being can could"),
    *_words("may might will has have had contains contain includes include appear appears lie lies stand stands the"),
    *_words("these those this it they them not no"),
}  # fmt: skip
_FILLERS = _STATES | set(_words("single separate distinct different individual other more additional clearly"))
_MEASURES = {
    *_words("m km cm mm px m2 km2 ha ft mi meter meters metre metres kilometer kilometers kilometre kilometres"),
    *_words("centimeter centimeters centimetre centimetres foot feet mile miles pixel pixels percent percentage"),
    *_words(
        "degree degrees hectare hectares acre acres square sq sqm second seconds minute minutes hour hours day days"
    ),
    *_words("week weeks month months year years times band bands"),
}
_NO_OBJECT = set(_words("few lot lots number couple pair dozen variety mix bit image picture photo view scene area"))
_NO_LABEL = _NO_OBJECT | {"count", "total", "answer"}
_YEAR_AFTER = set(_words("in since of from by until till the year during before after around circa between and"))
_IRREGULAR = {
    **{"people": "person", "persons": "person", "men": "man", "women": "woman", "children": "child"},
    **{"buses": "bus", "gas": "gas", "gases": "gas", "lens": "lens", "lenses": "lens", "series": "series"},
    **{"leaves": "leaf", "wharves": "wharf", "halves": "half", "shelves": "shelf", "geese": "goose", "feet": "foot"},
    **{"volcanoes": "volcano", "potatoes": "potato", "tomatoes": "tomato", "sheep": "sheep", "aircraft": "aircraft"},
}
_TOKEN = re.compile(r"\d{1,3}(?:,\d{3})+(?!\w)|\w+(?:[-'’./]\w+)*%?|[^\w\s]")
_NONE = re.compile(r"\W*(?:none|nothing|n/a|there (?:is|are) (?:none|nothing))\b")
_ASIDE = re.compile(r"\[[^\[\]]*\]|<[^<>]*>|\([^()]*\)")
_BRACKETED = re.compile(r"\b(\w+)\s*\(\s*(\d{1,9})\s*\)")  # "buildings (3)", "three (3) buildings"


def read_counts(text: str) -> dict[str, int] | None:
    """The number of each kind of object, without zeros; empty if the text says that there is none, None if it holds no
    count. Counts of one kind are added; "the 3 buildings" repeats an earlier count of buildings."""
    text = re.sub(r"[\"“”`*]", " ", unicodedata.normalize("NFKC", text).casefold())
    tokens = _TOKEN.findall(_ASIDE.sub(" , ", _BRACKETED.sub(_without_brackets, text)).replace("\n", " ; "))
    found: dict[str, int] = {}
    place, is_counted = 0, False
    while place < len(tokens):
        value, after = _number_at(tokens, place)
        if value is None:
            place += 1
            continue
        label, end = _label_after(tokens, place, after)
        if label is None or tokens[end : end + 1] == [":"]:  # "buildings: 3 roads: 2"
            label = _label_before(tokens, place)
            end = after
        if label is not None:
            is_counted = True
            is_repeated = label in found and place and tokens[place - 1] in ("the", "these", "those", "all")
            found[label] = found.get(label, 0) + (0 if is_repeated else value)
        place = end
    if not is_counted and not _NONE.match(text):
        return None
    return {label: value for label, value in found.items() if value}


def _without_brackets(match: re.Match[str]) -> str:
    word, number = match.groups()
    is_number = word in _NUMBERS or word in _TENS or word.isdecimal()
    return f" {number} " if is_number else f" {word} : {number} , "


def singular(word: str) -> str:
    """An English noun in the singular, by its ending and a few irregular ones; both numbers give one form."""
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 4 and word.endswith(("sses", "ches", "shes", "xes", "zzes")):
        return word[:-2]
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")) else word


def _number_at(tokens: Sequence[str], place: int) -> tuple[int | None, int]:
    """The number that starts at a token, None if none does, and the place after it."""
    token = tokens[place].replace(",", "")
    if re.fullmatch(r"\d{1,9}", token):
        return int(token), place + 1
    if token in _ARTICLES or token == "no":
        return int(token != "no"), place + 1
    tens, _, unit = token.partition("-")
    if tens in _TENS and not unit and place + 1 < len(tokens) and 1 <= _NUMBERS.get(tokens[place + 1], 0) <= 9:
        return _TENS[tens] + _NUMBERS[tokens[place + 1]], place + 2
    if tens in _TENS and (not unit or 1 <= _NUMBERS.get(unit, 0) <= 9):
        return _TENS[tens] + _NUMBERS.get(unit, 0), place + 1
    return _NUMBERS.get(token), place + 1


def _label_after(tokens: Sequence[str], place: int, start: int) -> tuple[str | None, int]:
    """The label after a number, None if it counts nothing, and the place after it."""
    end = start
    while end < len(tokens) and tokens[end] in _FILLERS:
        end += 1
    words: list[str] = []
    while end < len(tokens) and len(words) < 6 and _is_noun(tokens[end]):
        words.append(tokens[end])
        end += 1
    before = tokens[place - 1] if place else ""
    if not words or before in ("by", "x", "×", "/", "#") or words[0] in _MEASURES:
        return None, max(start, end)
    is_year = tokens[place].isdecimal() and 1900 <= int(tokens[place]) < 2100 and before in _YEAR_AFTER
    if is_year or (tokens[place] in _ARTICLES and _is_setting(words, before, tokens[end : end + 1])):
        return None, max(start, end)
    return _as_label(words), end


def _is_setting(words: Sequence[str], before: str, after: Sequence[str]) -> bool:
    """Whether "a ..." names no object: "in a forest", "a town with 2 roads", "a number of", "a satellite image"."""
    return before in _PREPOSITIONS or after in (["with"], ["of"]) or words[-1] in _NO_OBJECT or words[0] in _NO_OBJECT


def _label_before(tokens: Sequence[str], place: int) -> str | None:
    """The label of "buildings: 3"."""
    start = place - 1
    if start < 1 or tokens[start] not in (":", "=") or tokens[place] in _ARTICLES:
        return None
    words: list[str] = []
    while start > 0 and len(words) < 6 and _is_noun(tokens[start - 1]):
        start -= 1
        words.insert(0, tokens[start])
    return _as_label(words) if words and words[-1] not in _NO_LABEL else None


def _is_noun(token: str) -> bool:
    """Whether a token may be a word of a label."""
    if token in _STOPS or token in _ARTICLES or token in _NUMBERS or token in _TENS:
        return False
    return token[0].isalpha() and not token.endswith("%")


def _as_label(words: Sequence[str]) -> str:
    words = [part for word in words for part in word.replace("’", "'").split("-") if part]
    return " ".join([*words[:-1], singular(words[-1])])
