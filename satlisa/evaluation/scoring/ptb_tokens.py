r"""Tokens of captions as COCO's caption evaluation makes them, without its Java program.

pycocoevalcap 1.2 runs Stanford's PTBTokenizer 3.4.1 (`-preserveLines -lowerCase`) and then drops a list of punctuation
marks. Its tokens follow the Penn Treebank: "don't" is `do n't`, "cannot" is `can not`, "12.5%" is `12.5 %`, "U.S." and
"left-hand" are one token. Three of its habits count in scores and are kept: brackets stay, as `-lrb-` (the list of
marks has them in capitals, but the tokens are in lower case), emoji are dropped, and "£" becomes `#`.

The lexer takes, at each place, the rule with the longest match, its lookahead included, and the first of equals. The
rules were found by comparing tokens with those of the Java program; a period that it repeats after an abbreviation is
dropped with the other marks, so no rule repeats one. Two differences are left: a caption is tokenised alone (there, the
start of the next caption can decide whether "No." at the end of this one is an abbreviation), and letters that Unicode
got after version 6.0 are letters here.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from functools import cache, lru_cache

Convert = Callable[[str], str]
_MARKS = "'' ' `` ` -LRB- -RRB- -LCB- -RCB- . ? ! , : - -- ... ;"
_DROPPED = frozenset(_MARKS.split())
_LINE_ENDS = re.compile("[\n\r\v\f\x85\u2028\u2029]")
_AFTER = "\n~"  # what follows a caption; no rule looks further
# Most words need no rules: letters before a space, unless the word is split.
_PLAIN = re.compile(r"(?!(?i:cannot|gonna|gotta|lemme|gimme|wanna)[ ,\n])[A-Za-z]+(?=,?[ \n])")


@lru_cache(maxsize=2**16)
def tokenize(caption: str) -> tuple[str, ...]:
    """The tokens of a caption, in lower case and without punctuation marks; a line break counts as a space.

    A token may hold a no-break space ("2 1/2", "(555) 123-4567").
    """
    text = _LINE_ENDS.sub(" ", caption) + _AFTER
    return tuple(token for token in _lex(text, len(caption)) if token not in _DROPPED)


def _lex(text: str, length: int) -> Iterator[str]:
    """The tokens that start in the first `length` characters; a character that no rule knows is dropped."""
    at = 0
    while at < length:
        if plain := _PLAIN.match(text, at):
            yield plain[0].lower()
            at = plain.end()
            continue
        longest, token, end = 0, "", at + 1
        for pattern, convert, given_back in _rules():
            found = pattern.match(text, at)
            if found and found.end() > longest:
                longest, end = found.end(), found.end(1) - given_back
                token = convert(text[at:end]) if convert else text[at:end]
        if token:
            yield token.lower()
        at = end


_NAMED = {
    "&amp;": "&", "&apos;": "'", "&quot;": "''", "&lt;": "<", "&gt;": ">", "&nbsp;": "", '"': "''",
    "¢": "cents", "£": "#", "¤": "$", "\x80": "$", "₠": "$", "€": "$",
    "¼": "1/4", "½": "1/2", "¾": "3/4", "⅓": "1/3", "⅔": "2/3",
    "(": "-LRB-", ")": "-RRB-", "[": "-LSB-", "]": "-RSB-", "{": "-LCB-", "}": "-RCB-",
    **dict.fromkeys("\x91‘‛‹", "`"), **dict.fromkeys("\x92’›", "'"),
    **dict.fromkeys("\x93“«", "``"), **dict.fromkeys("\x94”»", "''"),
}  # fmt: skip
_NAMES = re.compile("|".join(map(re.escape, _NAMED)), re.IGNORECASE)


def _renamed(token: str) -> str:
    """The Treebank's spelling of quotes, brackets, currencies, fractions and entities."""
    return _NAMES.sub(lambda name: _NAMED[name[0].lower()], token)


def _plain_ampersand(token: str) -> str:
    return re.sub("&amp;", "&", token, flags=re.IGNORECASE)


def _without_soft_hyphens(token: str) -> str:
    return token.replace("\xad", "") or "-"


def _unbroken(token: str) -> str:
    return token.replace(" ", "\xa0")


def _round_brackets(token: str) -> str:
    return _unbroken(token).replace("(", "-LRB-").replace(")", "-RRB-")


def _dash(token: str) -> str:
    return "--" if len(token) in (3, 4) else token


def _ranges(kinds: Iterable[str]) -> str:
    """The content of a character class: what has one of these general categories, in the Basic Multilingual Plane."""
    runs: list[list[int]] = []
    for code in range(0x10000):
        if unicodedata.category(chr(code)) in kinds:
            if runs and runs[-1][1] == code - 1:
                runs[-1][1] = code
            else:
                runs.append([code, code])
    return "".join(f"{chr(first)}-{chr(last)}" for first, last in runs)


# Signs that are part of words, and signs that are tokens: what the Java program does with each character of the plane.
_WORD_SIGNS = (
    "\xad˂-˅˒-˟˥-˫˭˯-\u036f\u0375\u0378\u0379\u0384\u0385϶\u0483-\u0487\u055a-\u055f\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4"
    "\u05c5\u05c7\u0615-\u061a\u064b-\u065e\u0670\u06d6-\u06e4\u06e7-\u06ed\u06fd\u06fe\u070f\u0711\u0730-\u074c\u07a6"
    "-\u07b0\u07eb-\u07f3\u0900-\u0903\u093c\u093e-\u094e\u0951-\u0955\u0962\u0963\u0981-\u0983\u09bc\u09be-\u09c4"
    "\u09c7\u09c8\u09cb-\u09cd\u09d7\u09e2\u09e3\u0a01-\u0a03\u0a3c\u0a3e-\u0a4f\u0a81-\u0a83\u0abc\u0abe-\u0acf\u0b82"
    "\u0bbe-\u0bc2\u0bc6-\u0bc8\u0bca-\u0bcd\u0c01-\u0c03\u0c3e-\u0c56\u0d3e-\u0d44\u0d46-\u0d48\u0e31\u0e34-\u0e3a"
    "\u0e47-\u0e4e\u0eb1\u0eb4-\u0ebc\u0ec8-\u0ecd"
)
_SYMBOLS = (
    r".=/+%&~^|\\¡¢-©¬®-´¶-¹¿×÷\x80\u037e\u0387\u0589\u05be\u05c0\u05c3\u05c6\u05f3\u05f4\u0600-\u0603\u0606-\u060c\u0614"
    r"\u061b\u061e\u061f\u066a\u066d\u06d4\u0700-\u070d\u07f6-\u07f8\u0964\u0965\u0e3f\u0e4f\u1fbd‖‗†-‣‰-‸※‾-⁂⁄⁺-⁾₊-₎₠₤€"
    r"℀-⅏←-\u2bff。〒・！-／：-＠［-｀｛-･￠￡￥￦"
)

# Abbreviations. [x] is a letter whose case counts: "Ill." for Illinois, but "ill."
_ABBREVIATIONS = (
    "Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec|Mon|Tues?|Wed|Thu(?:rs)?|Fri|Ala|Ariz|[A]z|[A]rk|Calif|Colo|Conn|Ct|Dak"
    "|[D]el|Fla|Ga|[I]ll|Ind|Kans?|Ky|[L]a|[M]ass|Md|Mich|Minn|[M]iss|Mo(?:nt)?|Neb|Nev|Okla|[O]re|[P]a|Penn|Tenn|[T]ex|Va"
    "|Vt|[W]ash|Wisc?|Wyo|Inc|Cos?|Corp|Pp?t[ye]s?|Ltd|Plc|Rt|Bancorp|Bhd|Assn|Univ|Intl|Sys|tel|est|ext|sq|Jr|Sr|Bros"
    r"|(?:Ed|Ph)\.D|Blvd|Rd|Esq|etc|al|seq|bldg"
)
_TITLES = (
    "[A-Za-z]|Messrs|Mrs?|Ms|[M]iss|Drs?|Profs?|Sens?|Reps?|Attys?|Lt|Col|Gen|Govs?|Adm|Rev|Maj|Sgt|Cpl|Pvt|Capt|Ste?|Ave"
    "|Pres|Lieut|Rt|Hon|Brig|Co?mdr|Pfc|Spc|Supts?|Det|Mt|Ft|Adj|Adv|Asst|Assoc|Ens|Insp|Mlle|Mme|Msgr|Sfc|vs|Alex|Wm|Jos"
    "|Cie|cf|Treas|Ph|Invt|Elec|Natl|M[ft]g|Dept"
)
_BEFORE_NUMBERS = "figs?|nos?|ca|prop|pp|op|art"
_FILE_ENDINGS = (
    "bat|bmp|c|class|cgi|cpp|dll|docx?|exe|gif|gz|html?|h|jar|java|jpe?g|mov|mp3|pdf|php|pl|png|pptx?|ps|py|sql|tar|txt|wav"
    "|xml|x|zip"
)
_SENTENCE_STARTS = (
    "A|About|According|Additionally|After|An|As|At|But|Earlier|He|Her|Here|However|If|In|It|Last|Many|More|Mr\\.|Ms\\.|Now"
    "|Once|One|Other|Our|She|Since|So|Some|Such|That|The|Then|There|These|They|This|We|When|While|What|Yet|You"
)


def _case_counts(words: str) -> str:
    """A pattern of words in any case but for their letters in brackets."""
    return "(?i:" + re.sub(r"\[[^]]+\]", r"(?-i:\g<0>)", words) + ")"


@cache
def _rules() -> list[tuple[re.Pattern[str], Convert | None, int]]:
    """Pattern, conversion and how many characters are given back; group 1 is the token, the rest is lookahead."""
    letters, digits = _ranges(("Lu", "Ll", "Lt", "Lm", "Lo")), _ranges(("Nd",))
    digit, alnum = f"[{digits}]", f"[{letters}{digits}]"
    space, gap = "[ \t\xa0\u2000-\u200a\u3000]", "[ \t\xa0\u2000-\u200a\u3000\n]"
    letter = f"(?:[{letters}{_WORD_SIGNS}]|&[aeiouAEIOU](?i:acute|grave|uml);)"
    run = f"{letter}(?:{letter}|{digit})*"
    word = f"{run}(?:[.!?]{run})*"
    apostrophe, any_quote = "(?:['\x92’]|(?i:&apos;))", "(?:['\x92’`\x91‘‛]|(?i:&apos;))"
    clitic, negation = f"{apostrophe}(?:[msdMSD]|(?i:re|ve|ll))", f"(?i:n){any_quote}(?i:t)"
    name = r"[A-Za-z][A-Za-z0-9_:.\-]*"
    quoted = r"""(?:'[^'\n]*'|"[^"\n]*")"""
    tag = rf"<(?:[!?][A-Za-z\-][^>\n]*|/?{name}(?: +{name}(?: *= *{quoted})?)* */?) *>"
    number = rf"(?:{digit}*(?:[.:,\xad\u066b\u066c]{digit}+)+|{digit}+)"
    acronym = r"(?:[A-Za-z](?:\.[A-Za-z])+|(?i:(?:Canada|Sino|Korean|EU|Japan|non)-U\.S|U\.S\.-U\.(?:K|S\.S\.R)))"
    abbreviation, title = _case_counts(_ABBREVIATIONS) + r"\.", _case_counts(_TITLES)
    elided = f"(?:[dDoOlL]{any_quote}{alnum})?"
    compound = f"{elided}{alnum}+(?:[-_֊‐‑]{elided}{alnum}+)*"
    hyphenated = rf"[A-Za-z0-9][A-Za-z0-9.,\xad]*(?:-(?:{acronym}\.|[A-Za-z0-9\xad]+))+"
    slashed = r"[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}"
    joined_capitals = "[A-Z]+(?:(?:[+&]|(?i:&amp;))[A-Z]+)+"
    path = r"(?:/[^ \t\n\"<>|()]+[^ \t\n\"<>|.!?(){},-])?"
    starts = "|".join(f"{start[0]}(?i:{start[1:]})" for start in _SENTENCE_STARTS.split("|"))
    pause = "[,;:、]"
    mailbox, host = r"[a-zA-Z0-9][^ \t\n\"<>|(){}\xa0]*", r"[^ \t\n\"<>|(){}.\xa0]+"
    area = r"(?:\([0-9]{2,3}\)[ \xa0]?|(?:\+\+?)?(?:[0-9]{2,4}[- \xa0])?[0-9]{2,4}[- \xa0])"
    as_printed = rf"-[RL][RCS]B-|C\.D\.s|pro-|anti-|S(?:&amp;|&)(?:P-500|Ls)|Cap{apostrophe}n|c{apostrophe}est"
    rows: list[tuple[str, Convert | None, int]] = [
        # Words
        ("((?i:cannot|'twas))", None, 3),
        ("((?i:'tis|gonna|gotta|lemme|gimme|wanna))", None, 2),
        (f"({word}){clitic}", _without_soft_hyphens, 0),
        (rf"([A-Za-z\xad]*[A-MO-Za-mo-z]\xad*){negation}", _without_soft_hyphens, 0),
        (f"({word})", _without_soft_hyphens, 0),
        (f"({apostrophe}(?i:n){apostrophe}?|[lLdDjJ]{apostrophe}|(?i:Dunkin|somethin|ol){apostrophe})", None, 0),
        (f"({apostrophe}(?i:em|till?|cause|[2-9]0s))", None, 0),
        (f"([A-HJ-XZn]{any_quote}[{letters}]{{2,}}|[oO]{any_quote}[oO])", None, 0),
        (f"([{letters}]+[aeiouyAEIOUY]{any_quote}[aeiouA-Z][{letters}]*)", None, 0),
        (r"((?i:cont'd\.?|nor'easter|c'mon|e'er|s'mores|ev'ry|li'l|nat'l))", None, 0),
        (f"((?i:y){apostrophe})[{letters}]", None, 0),
        (f"({clitic}|{negation})[^A-Za-z]", _renamed, 0),
        (f"((?i:{as_printed}))", _plain_ampersand, 0),
        # Addresses
        (r"((?i:https?)://(?:[^ \t\n\"<>|(){}]+[^ \t\n\"<>|.!?(){},-]|[\U00010000-\U0010ffff]))", None, 0),
        (rf"((?i:www\.)(?:[^ \t\n\"<>|.!?(){{}},]+\.)+[a-zA-Z]{{2,4}}{path})", None, 0),
        (rf"((?:[^ \t\n\"`'<>|.!?(){{}},-_$]+\.)+(?i:com|net|org|edu){path})", None, 0),
        (rf"((?:<|(?i:&lt;))?{mailbox}@(?:{host}\.)*{host}(?:>|(?i:&gt;))?)", None, 0),
        (f"(@[a-zA-Z_][a-zA-Z_0-9]*|#{letter}+)", None, 0),
        # Numbers
        (f"({digit}{{1,2}}[-/]{digit}{{1,2}}[-/]{digit}{{2,4}})", None, 0),
        (f"([-+]?{number})", _without_soft_hyphens, 0),
        ("([⁺⁻₊₋]?(?:[⁰¹²³⁴-⁹]+|[₀-₉]+))", None, 0),
        (rf"((?:{digit}{{1,4}}[- \xa0])?{digit}{{1,4}}(?:\\?/|⁄){digit}{{1,4}})", _unbroken, 0),
        ("([¼½¾⅓-⅞])", _renamed, 0),
        (rf"({area}[0-9]{{3,4}}[- \xa0]?[0-9]{{3,5}})", _round_brackets, 0),
        (r"((?:(?:\+\+?)?[0-9]{2,4}\.)?[0-9]{2,4}\.[0-9]{3,4}\.[0-9]{3,5})", None, 0),
        (rf"({slashed}(?:\\?/{slashed}){{1,2}})", None, 0),
        # Abbreviations, names of files
        (rf"([A-Za-z]\.){space}+(?:{starts}|{tag}){gap}", None, 1),
        (rf"((?i:{_BEFORE_NUMBERS})\.){gap}?[0-9]", None, 0),
        (rf"((?i:pt[ey]|co)\.){space}(?i:ltd|lim)", None, 0),
        (f"({abbreviation})(?s:..)", None, 0),
        (rf"({acronym}\.|{title}\.)", None, 0),
        (f"({acronym}|{apostrophe}[0-9][0-9]){gap}", None, 0),
        (rf"({word}\.){pause}", _without_soft_hyphens, 0),
        (rf"((?:{letter}|{digit})+(?:\.(?:{letter}|{digit})+)*\.(?i:{_FILE_ENDINGS}))(?:{gap}|[.?!,])", None, 0),
        # Compounds
        (rf"({hyphenated})", _without_soft_hyphens, 0),
        (rf"({hyphenated}\.){pause}", _without_soft_hyphens, 0),
        (f"({compound})", None, 0),
        (rf"({compound}\.){pause}", None, 0),
        (f"({joined_capitals})", _plain_ampersand, 0),
        (rf"({joined_capitals}\.){pause}", _plain_ampersand, 0),
        (r"((?i:c\+\+|[cf]#))", None, 0),
        # Signs
        (f"({tag})", _unbroken, 0),
        ("((?i:&(?:HT|TL|UR|LR|QC|QL|QR|odq|cdq|#[0-9]+);))", None, 0),
        ("((?i:&(?:quot|nbsp|lt|gt|amp);))", _renamed, 0),
        ("((?i:&(?:MD|mdash|ndash);)|[\x96\x97–—―])", lambda _: "--", 0),
        (r"([<>]?[:;=][\-o*']?[()DPdpO\\{@|\[\]])[^A-Za-z0-9]", _round_brackets, 0),
        (r"([-^x=~<>']_[-^x=~<>']|\([-^x=~<>'][_.]?[-^x=~<>']\)|\([\^x=~<>']-[\^x=~<>'`]\))", _round_brackets, 0),
        (r"([A-Z]*\$|#)", None, 0),
        (r"(\.{3,5}|(?:\.[ \xa0]){2,4}\.|[\x85…])", lambda _: "...", 0),
        ("(-+)", _dash, 0),
        (r"(@+|_+|#+|\*+|(?:\\\*){1,3}|[?!]+|<<|>>|[<>]|[,;:、])", None, 0),
        ("(')[A-Za-z][^ \t\n\xa0]", None, 0),
        (f"({clitic}|''|[`‘-‟\x91-\x94‹›«»]{{1,2}}|{apostrophe})", _renamed, 0),
        (rf'([][(){{}}"]|[{_SYMBOLS}])', _renamed, 0),
    ]  # fmt: skip
    return [(re.compile(pattern), convert, given_back) for pattern, convert, given_back in rows]
