"""Read counts out of English text: "3 buildings and 2 roads", "a dozen planes", "no objects", "roads: 2", "roads 2".

A count is a number and the words after it, up to punctuation, another number, a preposition or a verb of a short list;
the last word is made singular. Years, measures, shares and numbers that are part of a word ("2018", "10 m", "30%",
"12 by 12", "3D") are no counts. A range ("3-4 buildings", "three or four planes") makes the whole text unreadable: it
states no number. This is a rule for short answers, not a parser: it knows no other languages.
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
_SCALES = {"dozen": 12, "hundred": 100, "thousand": 1000, "million": 1_000_000}
_LARGEST = 10**9  # numbers of more digits are no counts
_ARTICLES = ("a", "an")
_PREPOSITIONS = {
    *_words("in on at near of to from by for along around beside behind within across through into next between under"),
    *_words("over above below inside outside amid among as per past"),
}
_STATES = set(_words("visible seen shown present detected found located identified standing appearing total"))
_STOPS = _PREPOSITIONS | _STATES | {
    *_words("and or plus but with without while that which who where there is are was were be been being can could"),
    *_words("may might will has have had contains contain includes include appear appears lie lies stand stands the"),
    *_words("these those this it they them not no do does did you your i we here"),
}  # fmt: skip
# Verbs after a plural noun in this form, after one object with -s: "2 roads cross it", "1 road crosses it".
_VERBS = {
    *_words("cross run line sit surround flank border overlook occupy cover dot face connect lead pass stretch extend"),
    *_words("remain exist form make show park dock meet follow span divide separate go come look seem fill rise sail"),
    *_words("move drive fly travel"),
}
_PARTICIPLES = {  # after the noun only: "2 planes parked on the apron" but "2 parked planes"
    *_words("crossing running lining sitting lying surrounding flanking facing leading connecting spanning parked"),
    *_words("moored docked anchored surrounded covered connected arranged scattered clustered built lined"),
}
_FILLERS = _STATES | set(_words("single separate distinct different individual other more additional clearly"))
_MEASURES = {
    *_words("m km cm mm px m2 km2 ha ft mi meter meters metre metres kilometer kilometers kilometre kilometres"),
    *_words("centimeter centimeters centimetre centimetres foot feet mile miles pixel pixels percent percentage"),
    *_words(
        "degree degrees hectare hectares acre acres square sq sqm second seconds minute minutes hour hours day days"
    ),
    *_words("week weeks month months year years times band bands"),
}
_NO_OBJECT = set(_words("few lot lots number couple pair variety mix bit image picture photo view scene area"))
_COUNT_NOUNS = ("number", "numbers", "count", "counts", "total", "quantity", "amount")
_NO_LABEL = _NO_OBJECT | {*_COUNT_NOUNS, "answer"}
_FRAME = _STATES | {  # words around counts that add nothing to them
    *_words("i we you can could be see saw count counted there is are was were it they of them in the this that these"),
    *_words("image picture photo scene area answer and or plus about approximately around roughly exactly only just"),
    *_words("contains shows has have number all together a an altogether"),
    *_words(". , ; : ! & = • * #"),
}
_YEAR_AFTER = set(_words("in since of from by until till the year during before after around circa between and"))
_IRREGULAR = {
    **{"people": "person", "persons": "person", "men": "man", "women": "woman", "children": "child"},
    **{"buses": "bus", "gas": "gas", "gases": "gas", "lens": "lens", "lenses": "lens", "series": "series"},
    **{"leaves": "leaf", "wharves": "wharf", "halves": "half", "shelves": "shelf", "geese": "goose", "feet": "foot"},
    **{"volcanoes": "volcano", "potatoes": "potato", "tomatoes": "tomato", "sheep": "sheep", "aircraft": "aircraft"},
}
_MOST_WORDS = 6  # of a label
_RANGE = re.compile(r"(?!(?:19|20)\d\d-(?:19|20)\d\d)\d{1,9}-\d{1,9}")
_TOKEN = re.compile(r"\d{1,3}(?:,\d{3})+(?!\w)|\w+(?:[-'’./]\w+)*%?|[^\w\s]")
_NONE = re.compile(r"\W*(?:none|nothing|n/a|there (?:is|are) (?:none|nothing))\b")
_ASIDE = re.compile(r"\[[^\[\]]*\]|<[^<>]*>|\([^()]*\)")
_BRACKETED = re.compile(r"\b(\w+)\s*\(\s*(\d{1,9})\s*\)")  # "buildings (3)", "three (3) buildings"


def read_counts(text: str) -> dict[str, int] | None:
    """The number of each kind of object, without zeros; empty if the text says that there is none, None if it holds no
    count or a range. Counts of one kind are added; "the 3 buildings" repeats an earlier count of buildings."""
    tokens = _tokens(text)
    counted = _labels_first(tokens) or _labels_last(tokens)
    if counted is None or not (counted or _NONE.match(_plain(text))):
        return None
    found: dict[str, int] = {}
    for label, value, is_definite in counted:
        found[label] = found.get(label, 0) + (0 if label in found and is_definite else value)
    return {label: value for label, value in found.items() if value}


def read_number(text: str) -> int | None:
    """The number of an answer that is a number and nothing more: "3", "Three.", "There are about 3 of them"."""
    tokens, numbers, place = _tokens(text), [], 0
    while place < len(tokens):
        value, after = _number_at(tokens, place)
        is_article = tokens[place] in _ARTICLES and after == place + 1
        is_year = _is_year(tokens[place]) and place > 0 and tokens[place - 1] in _YEAR_AFTER
        if value is not None and tokens[place] != "no" and not is_article and not is_year:
            numbers.append(value)
        elif tokens[place] not in _FRAME:
            return None
        place = after
    return numbers[0] if len(numbers) == 1 else None


def is_count_list(text: str) -> bool:
    """Whether a text is counts and nothing more: "3 buildings and 2 roads", "I found 2 planes.", not "A forest" or "A
    forest; 2 roads", where an article counts nothing."""
    tokens, is_counted, place = _tokens(text), False, 0
    while place < len(tokens):
        value, after = _number_at(tokens, place)
        label, end = (None, after) if value is None else _label_after(tokens, place, after)
        is_article = tokens[place] in _ARTICLES and after == place + 1
        if label is None or (is_article and end + 1 < len(tokens) and tokens[end] in (";", ".")):
            if tokens[place] not in _FRAME or label is not None:
                return bool(_labels_first(tokens))
            end = place + 1
        is_counted |= label is not None and bool(value) and not is_article
        place = end
    return is_counted and read_counts(text) is not None


def asked_label(prompt: str) -> str | None:
    """The label that "How many ... ?", "the number of ..." or "Count the ..." asks for; None without one."""
    tokens = _tokens(prompt)
    for place in range(len(tokens)):
        two, before = tokens[place : place + 2], tokens[place - 1 : place]
        if two == ["how", "many"] or (len(two) == 2 and two[0] in _COUNT_NOUNS and two[1] == "of"):
            return _noun_phrase(tokens, place + 2)
        if two[0] == "count" and before not in (["the"], ["a"]):
            return _noun_phrase(tokens, place + 1)
    return None


def as_label(words: Sequence[str]) -> str:
    """Words of a label, lower case, as one label that is compared: without hyphens, the last word singular."""
    words = [part for word in words for part in re.split(r"[-_]", word.replace("’", "'")) if part]
    return " ".join([*words[:-1], singular(words[-1])]) if words else ""


def _plain(text: str) -> str:
    return re.sub(r"[\"“”`*]", " ", unicodedata.normalize("NFKC", text).casefold())


def _tokens(text: str) -> list[str]:
    found: list[str] = _TOKEN.findall(
        _ASIDE.sub(" , ", _BRACKETED.sub(_without_brackets, _plain(text))).replace("\n", " ; ")
    )
    return found


def _labels_last(tokens: Sequence[str]) -> list[tuple[str, int, bool]] | None:
    """Label, number and whether "the" comes before it, of "3 buildings", "buildings: 3"; None if there is a range."""
    counted, place = [], 0
    while place < len(tokens):
        value, after = _number_at(tokens, place)
        if value is None:
            if _RANGE.fullmatch(tokens[place]) and _label_after(tokens, place, after)[0] is not None:
                return None
            place += 1
            continue
        label, end = _label_after(tokens, place, after)
        if label is not None and _ends_range(tokens, place):
            return None
        if label is None or tokens[end : end + 1] == [":"]:  # "buildings: 3 roads: 2"
            label, end = _label_before(tokens, place), after
        if label is not None:
            counted.append((label, value, place > 0 and tokens[place - 1] in ("the", "these", "those", "all")))
        place = end
    return counted


def _labels_first(tokens: Sequence[str]) -> list[tuple[str, int, bool]] | None:
    """As `_labels_last`, of a text that is "buildings 3, roads: 2" and nothing more; "Landsat 8", without a plural,
    and "Floods 2018" are none."""
    counted, place, is_plural = [], 0, False
    while place < len(tokens):
        start = place
        while place < len(tokens) and _is_noun(tokens[place]):
            place += 1
        words = tokens[start:place]
        place += tokens[place : place + 1] in (["-"], ["–"], ["="], [":"])
        value, after = _number_at(tokens, place) if place < len(tokens) else (None, place)
        is_label = 0 < len(words) <= _MOST_WORDS and words[-1] not in _NO_LABEL
        if not is_label or value is None or tokens[place] in (*_ARTICLES, "no") or _is_year(tokens[place]):
            return None
        counted.append((as_label(words), value, False))
        is_plural |= singular(words[-1]) != words[-1]
        place = after
        while place < len(tokens) and tokens[place] in (",", ";", ".", "and", "&"):
            place += 1
    return counted if is_plural else None


def _ends_range(tokens: Sequence[str], place: int) -> bool:
    """Whether a number is the upper one of "3 - 4", "3 to 4", "three or four", "between 3 and 4"."""
    if place < 2 or tokens[place - 2] in (*_ARTICLES, "no") or _number_at(tokens, place - 2)[0] is None:
        return False
    is_between = tokens[place - 1] == "and" and "between" in tokens[max(place - 3, 0) : place - 2]
    return is_between or tokens[place - 1] in ("-", "–", "—", "−", "~", "to", "or")


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
    if list(tokens[place : place + 3]) == ["half", "a", "dozen"]:
        return 6, place + 3
    part, after = _small_number_at(tokens, place)
    if not part:
        return part, after
    total = 0
    while after < len(tokens) and tokens[after] in _SCALES and part * _SCALES[tokens[after]] <= _LARGEST:
        scale = tokens[after]
        part, after = part * _SCALES[scale], after + 1
        if scale == "dozen":
            break
        if scale != "hundred":
            total, part = total + part, 0
        rest = after + (list(tokens[after : after + 1]) == ["and"])  # "one hundred and five"
        if rest < len(tokens) and tokens[rest].partition("-")[0] in _NUMBERS | _TENS:
            more, end = _small_number_at(tokens, rest)
            part, after = (part + more, end) if more else (part, after)
    return total + part, after


def _small_number_at(tokens: Sequence[str], place: int) -> tuple[int | None, int]:
    """As `_number_at`: digits, or words below a hundred."""
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
    """The label after the number at `place`, None if it counts nothing, and the place after it."""
    before, is_article = tokens[place - 1] if place else "", tokens[place] in _ARTICLES and start == place + 1
    words, end = _words_at(tokens, start, is_one=is_article or tokens[place] in ("1", "one"))
    if not words or before in ("by", "x", "×", "/", "#") or words[0] in _MEASURES:
        return None, max(start, end)
    is_year = _is_year(tokens[place]) and before in _YEAR_AFTER
    if is_year or (is_article and _is_setting(words, before, tokens[end : end + 1])):
        return None, max(start, end)
    return as_label(words), end


def _words_at(tokens: Sequence[str], end: int, is_one: bool) -> tuple[list[str], int]:
    """The words of a label that starts at a place, and the place after it."""
    while end < len(tokens) and tokens[end] in _FILLERS:
        end += 1
    words: list[str] = []
    while end < len(tokens) and len(words) < _MOST_WORDS and _is_noun(tokens[end]):
        if words and _is_verb(tokens, end, is_one):
            break
        words.append(tokens[end])
        end += 1
    return words, end


def _is_verb(tokens: Sequence[str], place: int, is_one: bool) -> bool:
    """Whether the word after a noun is a verb or participle of the lists."""
    word, after = tokens[place], "".join(tokens[place + 1 : place + 2])
    if word in _PARTICIPLES:
        is_object = after in _ARTICLES or after in ("the", "this", "each")  # "1 zebra crossing in it" is a noun
        return is_object or (after in _PREPOSITIONS and not word.endswith("ing"))
    if is_one:
        return word != singular(word) and singular(word) in _VERBS
    return word in _VERBS and tokens[place - 1] != singular(tokens[place - 1])


def _noun_phrase(tokens: Sequence[str], start: int) -> str | None:
    """The label that starts at a place, after "of", "all" or "the"."""
    while start < len(tokens) and tokens[start] in ("of", "all", "the", "these", "those", "any"):
        start += 1
    words, _ = _words_at(tokens, start, is_one=False)
    return as_label(words) if words and words[-1] not in _NO_LABEL else None


def _is_year(token: str) -> bool:
    return token.isdecimal() and len(token) == 4 and 1900 <= int(token) < 2100


def _is_setting(words: Sequence[str], before: str, after: Sequence[str]) -> bool:
    """Whether "a ..." names no object: "in a forest", "a town with 2 roads", "a number of", "a satellite image"."""
    return before in _PREPOSITIONS or after in (["with"], ["of"]) or words[-1] in _NO_OBJECT or words[0] in _NO_OBJECT


def _label_before(tokens: Sequence[str], place: int) -> str | None:
    """The label of "buildings: 3", "the number of buildings is 3", "building count: 3"."""
    start = place - 1
    if start < 1 or tokens[start] not in (":", "=", "is", "are", "was", "were") or tokens[place] in _ARTICLES:
        return None
    for first in range(start - 1, max(start - 12, 0), -1):
        if tokens[first] == "of" and tokens[first - 1] in _COUNT_NOUNS:
            return _noun_phrase(tokens, first + 1)
        if not tokens[first][0].isalnum():
            break
    is_verb = tokens[start] not in (":", "=")
    words: list[str] = []
    while start > 0 and len(words) < _MOST_WORDS and _is_noun(tokens[start - 1]):
        start -= 1
        words.insert(0, tokens[start])
    if len(words) > 1 and words[-1] in _COUNT_NOUNS:
        return as_label(words[:-1])
    return as_label(words) if words and not is_verb and words[-1] not in _NO_LABEL else None


def _is_noun(token: str) -> bool:
    """Whether a token may be a word of a label."""
    if token in _STOPS or token in _ARTICLES or token in _NUMBERS or token in _TENS or token in _SCALES:
        return False
    return token[0].isalpha() and not token.endswith("%")
