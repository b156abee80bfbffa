"""Text of other libraries is redacted: tokens, passwords and authorization headers."""

import pytest

from satlisa.errors import first_line, redact

TOKEN = "hf_" + "AbCdEfGhIjKlMnOpQrStUvWxYz01234567"


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        (f"Invalid token {TOKEN}.", "Invalid token ***."),
        (f"https://h.co/x?token={TOKEN}&a=1", "https://h.co/x?token=***&a=1"),
        ("hf_oauth_" + "eyJhbGciOiJSUzI1NiJ9" * 2 + ".eyJz-dWI_i.Sfl, expired", "***, expired"),
        ("Authorization: Bearer abc.def-ghi_jkl", "Authorization: ***"),
        ("{'authorization': 'Bearer abcdefgh12345678'}", "{'authorization': '***'}"),
        ("sent with Bearer abc.def-ghi_jkl", "sent with Bearer ***"),
        ("authorization=Basic dXNlcjpwYXNz", "authorization=***"),
        ("https://me:secret@huggingface.co/x", "https://***@huggingface.co/x"),
        ("https://secret@huggingface.co/x", "https://***@huggingface.co/x"),
    ],
)
def test_secrets_are_left_out(text: str, safe: str) -> None:
    assert redact(text) == safe
    assert first_line(RuntimeError(f"{text}\nand more")) == safe


@pytest.mark.parametrize(
    "text",
    [
        "hf_hub_download: no such file",
        "hf://datasets/owner/name@0123456789abcdef/data/train.parquet",
        "a@b.c, half_of_everything_that_is_known",
        "the bearer of news",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize("variable", ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"])
def test_the_tokens_of_the_environment_are_left_out(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "my-own-unusual-token")
    assert redact("401 for my-own-unusual-token (x)") == "401 for *** (x)"
    monkeypatch.setenv(variable, "")
    assert redact("401 for nobody") == "401 for nobody"
