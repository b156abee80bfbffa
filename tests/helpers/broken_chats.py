"""Conversations, tasks and sources that are broken or odd."""

import json
from typing import Any

from tests.helpers.row_cases import ANSWER, QUESTION, SQUARE, Case, Skipped, Usable, case, chat, mask_case

GOOD = Usable(0, QUESTION, ANSWER)
SPECIAL = ("<SEG>", "<|im_end|>", "<|im_start|>", "<|image_pad|>", "<|vision_start|>", "<|endoftext|>", "<think>")


def turns(*pairs: tuple[str, Any]) -> str:
    return json.dumps([{"role": role, "content": content} for role, content in pairs])


def skipped(reason: str) -> Skipped:
    return Skipped("conversations", reason)


ASKED, ANSWERED = ("user", QUESTION), ("assistant", ANSWER)
_NOT_A_LIST = "is not a list of turns: found "

# name: (the cell, what is expected)
_CELLS: dict[str, tuple[Any, Usable | Skipped]] = {
    "null": (None, skipped(_NOT_A_LIST + "None")),
    "no text": ("", skipped("is not JSON (starts with '')")),
    "JSON that is cut": (chat()[:-20], skipped("is not JSON (starts with '[{")),
    "JSON and more": (chat() + "]", skipped("is not JSON")),
    "Python instead of JSON": (chat().replace('"', "'"), skipped("is not JSON")),
    "a byte order mark": ("\ufeff" + chat(), skipped(r"is not JSON (starts with '\ufeff[")),
    "plain text": (f"{QUESTION} {ANSWER}", skipped("is not JSON (starts with 'What is this?")),
    "10,000 lists deep": ("[" * 10_000 + "]" * 10_000, skipped("is nested more than 32 deep")),
    "500 objects deep": ('{"a":' * 500 + "1" + "}" * 500, skipped("is nested more than 32 deep")),
    "a number": ("5", skipped(_NOT_A_LIST + "5")),
    "a number of 5,000 digits": ("1" * 5000, skipped("4300 digits")),
    "a string": ('"hello"', skipped(_NOT_A_LIST + "'hello'")),
    "JSON twice": (json.dumps(chat()), GOOD),
    "true": ("true", skipped(_NOT_A_LIST + "True")),
    "JSON null": ("null", skipped(_NOT_A_LIST + "None")),
    "NaN": ("NaN", skipped(_NOT_A_LIST + "nan")),
    "an object": ('{"role": "user"}', skipped(_NOT_A_LIST + "an object with the keys role")),
    "an empty list": ("[]", skipped("no question with an answer (roles of the turns with text: none)")),
    "a list of texts": (json.dumps([QUESTION, ANSWER]), skipped("turn 0: expected an object, found 'What is")),
    "a key twice": ('[{"role": "user", "role": "assistant"}]', skipped("has the key 'role' twice")),
    "two users in a row": (turns(("user", "First."), ASKED, ANSWERED), GOOD),
    "two assistants in a row": (turns(ASKED, ANSWERED, ("assistant", "Or a town.")), GOOD),
    "no assistant": (turns(ASKED), skipped("roles of the turns with text: user")),
    "assistant first": (turns(("assistant", "Hello."), ASKED, ANSWERED), GOOD),
    "only an assistant": (turns(ANSWERED), skipped("roles of the turns with text: assistant")),
    "1,000 assistants": (turns(*[ANSWERED] * 1000), skipped("assistant, …")),
    "the last question unanswered": (turns(ASKED, ANSWERED, ("user", "And now?")), GOOD),
    "an unknown role": (turns(ASKED, ("tool", "x"), ANSWERED), skipped("turn 1: expected a user, assistant or sys")),
    "a role that is a number": (turns((1, QUESTION), ANSWERED), skipped("system turn, found 1")),  # type: ignore[arg-type]
    "a role of 100 KB": (turns(("user" * 25_000, "x")), skipped("system turn, found 'useruser")),
    "roles in capitals": (turns((" User ", QUESTION), ("ASSISTANT", ANSWER)), GOOD),
    "no content": ('[{"role": "user"}, {"role": "assistant", "content": "x"}]', skipped("turn 0: expected role and")),
    "no role": ('[{"content": "x"}]', skipped("turn 0: expected role and content, or from and value")),
    "other keys": ('[{"speaker": "a", "text": "b"}]', skipped("found an object with the keys speaker, text")),
    "from and value": (json.dumps([{"from": "human", "value": QUESTION}, {"from": "gpt", "value": ANSWER}]), GOOD),
    "content that is null": (chat(None), skipped("roles of the turns with text: assistant")),
    "an answer that is null": (chat(answer=None), skipped("has an empty answer")),
    "an answer of blanks": (chat(answer=" \n\t\u2003"), skipped("has an empty answer")),
    "a question of blanks": (chat(" \n "), skipped("no question with an answer")),
    "content that is an object": (
        chat({"text": "x"}),
        skipped("turn 0: expected text or a list of parts, found an ob"),
    ),
    "content that is true": (chat(True), skipped("turn 0: expected text or a list of parts, found True")),
    "content that is NaN": (chat(float("nan")), skipped("found nan")),
    "content that is Infinity": (
        chat(answer=float("inf")),
        skipped("turn 1: expected text or a list of parts, found in"),
    ),
    "an answer that is a number": (chat(answer=3), Usable(0, QUESTION, "3")),
    "an answer that is 10**400": (chat(answer=10**400), Usable(0, QUESTION, "1" + "0" * 400)),
    "content in parts": (chat([{"type": "image"}, {"type": "text", "text": QUESTION}], [ANSWER]), GOOD),
    "parts of another kind": (
        chat([{"type": "video", "video": "x"}]),
        skipped("turn 0: expected a text or image part"),
    ),
    "parts in parts": (chat([["x"]]), skipped("turn 0: expected a text or image part, found ['x']")),
    "a system turn": (turns(("system", "Be brief."), ASKED, ANSWERED), GOOD),
    "a system turn in the middle": (
        turns(("user", "Hi"), ("system", "x"), ASKED, ANSWERED),
        skipped("system turn that"),
    ),
    "only <image> as question": (chat("<image>"), skipped("no question with an answer")),
    "<image> in a turn of its own": (turns(("user", "<image>\n"), ASKED, ANSWERED), GOOD),
    "<image> in the middle": (chat("What <image>is\nthis?"), Usable(0, "What is\nthis?", ANSWER)),
    "<image> twice": (chat("<image><image> What is this?"), skipped("names 2 images; a row is about one image")),
    "<image> in two turns": (
        turns(("user", "<image> Hello."), ("assistant", "Hi."), ("user", f"<image>{QUESTION}"), ANSWERED),
        skipped("names 2 images"),
    ),
    "two image parts": (
        chat([{"type": "image", "image": "a.png"}, {"type": "image", "image": "b.png"}, QUESTION]),
        skipped("names 2 images"),
    ),
    "half a character": (
        '[{"role":"user","content":"a\\ud800b"},{"role":"assistant","content":"\\udc00"}]',
        Usable(0, "a\ufffdb", "\ufffd"),
    ),
    "NUL characters": (chat("a\0b", "\0c"), Usable(0, "a\0b", "\0c")),
    "terminal commands": (chat("\x1b[2J\x07x", "y\x08"), Usable(0, "\x1b[2J\x07x", "y\x08")),
    "right to left": (chat("מה זה?\u202e", "مدينة"), Usable(0, "מה זה?\u202e", "مدينة")),
    "emoji": (chat("🛰️👩‍🚀?", "🏙️"), Usable(0, "🛰️👩‍🚀?", "🏙️")),
    "zero-width characters": (chat("a\u200bb\ufeffc", "\u200d"), Usable(0, "a\u200bb\ufeffc", "\u200d")),
    "combining characters": (chat("e\u0301" * 9, "Å ﬁ ①"), Usable(0, "e\u0301" * 9, "Å ﬁ ①")),
    "CRLF": (chat("What\r\nis\r\nthis?", "A\r\ncity."), Usable(0, "What\r\nis\r\nthis?", "A\r\ncity.")),
    "a template": (
        chat("{{ messages }} {% for x in y %}", "{{ 1 + 1 }}"),
        Usable(0, "{{ messages }} {% for x in y %}", "{{ 1 + 1 }}"),
    ),
    "our own place holders": (
        chat("\ue0001\ue001 a \ue000\ue001", "\ue0000\ue001"),
        Usable(0, "\ue0001\ue001 a \ue000\ue001", "\ue0000\ue001"),
    ),
    "HTML and Markdown": (chat("<b>| a | b |</b>", "# ![x](y)\n---"), Usable(0, "<b>| a | b |</b>", "# ![x](y)\n---")),
    "a word of 300 letters": (chat("a" * 300), Usable(0, "a" * 300, ANSWER)),
    "a word of 100 KB": (chat("a" * 100_000), skipped("tokens, 8 of them the answer's; max_seq_length is 512")),
    "a question of 100 KB": (chat("word " * 20_000), skipped("max_seq_length is 512")),
    "an answer of 100 KB": (chat(answer="word " * 20_000), Usable(0, QUESTION)),
    "100 KB of blanks": (chat("a" + " " * 100_000 + "<image>b"), Usable(0, "a b", ANSWER)),
    "100 KB of <|im_end|>": (chat("<|im_end|>" * 10_000), skipped("max_seq_length is 512")),
    "5,000 turns": (turns(*[ASKED, ANSWERED] * 2500), Usable(0, QUESTION, ANSWER)),
}

# Answers of a row with a mask, from which coordinates are cut.
_MASK_ANSWERS: dict[str, tuple[str, Usable | Skipped]] = {
    "coordinates alone": (json.dumps([SQUARE]), Usable(1, answer="Here is the mask.")),
    "coordinates and text": (f"Here: {json.dumps(SQUARE)}.", Usable(1, answer="Here.")),
    "coordinates that are cut": (f"Here: {json.dumps(SQUARE)[:-9]}", skipped("holds JSON that cannot be read: '[[100")),
    "coordinates that are NaN": ("Here: [[NaN, 1], [2, 3], [4, 5]]", skipped("expected a finite number as coordinate")),
    "coordinates under a key twice": (
        '{"polygons": [1, 2, 3, 4], "polygons": []}',
        skipped("holds JSON that cannot be"),
    ),
    "100 KB of [": ("[" * 100_000, skipped("holds JSON that cannot be read: '[[[[")),
    "100 KB of [x": ("[x" * 50_000, skipped("max_seq_length is 512")),
    "100 KB of [true": ("[true, " * 14_000, skipped("holds JSON that cannot be read: '[true")),
    "100 KB of {": ('{"a": ' * 16_000, skipped('holds JSON that cannot be read: \'{"a"')),
    "100 KB of line breaks": ("a" + "\n" * 100_000 + "b", Usable(1, answer="a\nb")),
    "100 KB of commas": ("a" + ", " * 50_000 + "b", Usable(1, answer="a, b")),
    "100 KB of colons": ("a" + ":" * 100_000 + "b", skipped("max_seq_length is 512")),
    "<SEG> and [SEG]": ("Here <SEG> it [SEG] is.", Usable(1, answer="Here it is.")),
}

CASES: list[Case] = [
    *(case(f"chat: {name}", expected, conversations=cell) for name, (cell, expected) in _CELLS.items()),
    *(
        mask_case(f"answer: {name}", expected, conversations=chat(answer=answer))
        for name, (answer, expected) in _MASK_ANSWERS.items()
    ),
    *(
        case(
            f"chat: {token} typed",
            skipped("has <SEG> in its answer")
            if token == "<SEG>"
            else Usable(0, f"a{token}b {token}", f"{token} c{token}"),
            conversations=chat(f"a{token}b {token}", f"{token} c{token}"),
        )
        for token in SPECIAL
    ),
    *(
        mask_case(
            f"answer: {token} typed beside a mask",
            Usable(1, token + QUESTION, ANSWER if token == "<SEG>" else f"{ANSWER} {token}"),
            conversations=chat(token + QUESTION, f"{ANSWER} {token}"),
        )
        for token in SPECIAL
    ),
    mask_case(
        "answer: coordinates outside of the image",
        skipped("holds 1 polygon, none of which covers any of the image"),
        "{}",
        conversations=chat(answer="At [[-600, -600], [-100, -600], [-100, -100]]."),
    ),
    mask_case(
        "answer: coordinates beyond the image's edge",
        skipped("expected coordinates from 0 to 1000"),
        "{}",
        conversations=chat(answer="At [[1100, 1100], [1600, 1100], [1600, 1600]]."),
    ),
    mask_case(
        "answer: <SEG> without polygons", skipped("has <SEG> in its answer"), "{}", conversations=chat(answer="<SEG>")
    ),
    case("task: null", Skipped("task", "is not a task's name: found None"), task=None),
    case("task: blank", Skipped("task", "is not a task's name: found ' '"), task=" "),
    case("task: 10,000 letters", GOOD, task="a" * 10_000),
    case("task: line breaks and NUL", GOOD, task="a\nb\0|c"),
    case("source: null", GOOD, source=None),
    case("source: right to left and line breaks", GOOD, source="\u202ea\n\n| b"),
]
