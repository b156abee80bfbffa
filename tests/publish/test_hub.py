"""Uploads to a hub on this machine, and what is said when one refuses."""

from pathlib import Path

import huggingface_hub.constants
import pytest

from satlisa.errors import SatlisaError
from satlisa.publish.hub import check_account, check_repo, upload
from tests.helpers.hub_server import TOKEN, Hub
from tests.helpers.published import REPO


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("README.md", ".eval_results/demo.yaml", "vlm_lora/adapter_config.json"):
        (tmp_path / "made" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "made" / name).write_text(f"of {name}")
    return tmp_path / "made"


def send(folder: Path, private: bool = False) -> str:
    return upload(folder, REPO, private=private, replaced=["vlm_lora/adapter_model.bin", "seg_token.safetensors"])


def test_all_files_come_in_one_commit(account: Hub, folder: Path) -> None:
    assert send(folder) == f"{account.address}/{REPO}"
    (commit,) = account.commits
    assert {name: content for name, content in account.repositories[REPO].items() if name != ".gitattributes"} == commit
    assert commit == {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }
    assert f"Bearer {TOKEN}" in account.tokens and not account.private[REPO]


def test_other_files_of_a_repository_stay(account: Hub, folder: Path) -> None:
    others = {".gitattributes": b"", "notes.txt": b"mine", "README.md": b"old"}
    account.repositories[REPO] = {**others, "vlm_lora/adapter_model.bin": b"of an earlier model"}
    account.private[REPO] = False
    send(folder)
    kept = account.repositories[REPO]
    assert kept["notes.txt"] == b"mine" and kept["README.md"] == b"of README.md"
    assert "vlm_lora/adapter_model.bin" not in kept and len(account.commits) == 1


def test_private_is_private_or_refused(account: Hub, folder: Path) -> None:
    send(folder, private=True)
    assert account.private[REPO]
    account.private[REPO] = False
    with pytest.raises(SatlisaError, match="--private: alice/my-model exists already and is public"):
        send(folder, private=True)
    assert len(account.commits) == 1


@pytest.mark.parametrize(
    ("status", "said"),
    [(401, "hf auth login"), (403, "may not write to alice"), (404, "look at the name"), (503, "503")],
)
def test_refusals_say_what_to_do_without_the_token(account: Hub, folder: Path, status: int, said: str) -> None:
    account.refusal = (status, f"no, not with {TOKEN}")
    with pytest.raises(SatlisaError, match=said) as caught:
        send(folder)
    assert TOKEN not in str(caught.value)


def test_metadata_that_the_hub_refuses_is_quoted(account: Hub, folder: Path) -> None:
    account.bad_metadata = '"license" must be one of [mit]'
    with pytest.raises(SatlisaError, match=r'refused README.md .*"license" must be one of'):
        send(folder)
    assert not account.commits


def test_a_hub_that_is_not_there(account: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(SatlisaError, match=r"could not be uploaded to http://127.0.0.1:9 .*look at the connection"):
        send(folder)


@pytest.mark.parametrize(
    "repo", ["model", "alice/", "alice/a/b", "alice/my model", "https://huggingface.co/alice/m", ""]
)
def test_names_of_repositories(repo: str) -> None:
    with pytest.raises(SatlisaError, match="--repo: "):
        check_repo(repo)


def test_without_token_or_network_nothing_starts(account: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    check_account()
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    with pytest.raises(SatlisaError, match=r"no access token .* HF_TOKEN"):
        check_account()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(SatlisaError, match="HF_HUB_OFFLINE is set"):
        check_account()
    assert not account.tokens
