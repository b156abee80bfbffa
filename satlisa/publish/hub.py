"""A folder → a repository of the hub, in one commit. Errors are one line, and tokens are never in it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import huggingface_hub.constants
from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import validate_repo_id

from satlisa import __version__
from satlisa.errors import SatlisaError, first_line, redact

_LOG_IN = "run `hf auth login`, or set HF_TOKEN, with a token of https://huggingface.co/settings/tokens that may write"


def check_repo(repo: str) -> None:
    """Refuse anything but owner/name.

    Raises:
        SatlisaError: says what was found.
    """
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise SatlisaError(f"--repo: {first_line(error)}") from error
    if repo.count("/") != 1:
        raise SatlisaError(f"--repo: expected owner/name, such as your-name/my-model, found '{repo}'")


def check_account() -> None:
    """Refuse before anything is written: offline, or without a token.

    Raises:
        SatlisaError: says what to do.
    """
    if huggingface_hub.constants.HF_HUB_OFFLINE:
        raise SatlisaError(
            "HF_HUB_OFFLINE is set, so nothing can be uploaded; unset it, or write the folder with --dry_run OUT and "
            "upload that elsewhere: hf upload owner/name OUT"
        )
    if not get_token():
        raise SatlisaError(f"there is no access token for the hub; {_LOG_IN}")


def upload(folder: Path, repo: str, *, private: bool, replaced: Sequence[str]) -> str:
    """Create the repository where there is none, and upload all files of a folder as one commit.

    Args:
        private: the repository is made private; one that exists already must be.
        replaced: patterns of names; such files are deleted where the folder has none of them. All other files of the
            repository stay.

    Returns:
        the repository's address.

    Raises:
        SatlisaError: the hub refused, or was not reached.
    """
    api = HfApi(library_name="satlisa", library_version=__version__)
    with _one_line(repo, api.endpoint):
        api.create_repo(repo, private=private or None, exist_ok=True)
        if private and not api.model_info(repo).private:
            raise SatlisaError(f"--private: {repo} exists already and is public; make it private in its settings")
        api.upload_folder(
            repo_id=repo, folder_path=folder, commit_message="Publish the model", delete_patterns=list(replaced)
        )
    return f"{api.endpoint}/{repo}"


@contextmanager
def _one_line(repo: str, endpoint: str) -> Iterator[None]:
    """Any error meanwhile, as one line that says what to do."""
    try:
        yield
    except SatlisaError:
        raise
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        raise SatlisaError(f"{repo}: {_advice(status, repo)} ({_whole(error)})") from error
    except ValueError as error:  # with all reasons, of which the first line has none
        raise SatlisaError(
            f"{repo}: the hub refused README.md ({_whole(error)}); --license and --language are in it"
        ) from error
    except Exception as error:  # of httpx, of hf_xet, of the disk
        raise SatlisaError(
            f"{repo}: could not be uploaded to {endpoint} ({type(error).__name__}: {first_line(error)}); look at the "
            "connection, then run the same command again"
        ) from error


def _whole(error: BaseException) -> str:
    """All lines of a message as one, redacted: the hub's reason is not in the first."""
    return redact(" ".join(str(error).split()))


def _advice(status: int, repo: str) -> str:
    owner = repo.split("/")[0]
    return {
        400: "the hub refused the files, for the reason in brackets",
        401: f"the hub does not know the token; {_LOG_IN}",
        403: f"the token may not write to {owner}; take one that may, or name your own account in --repo",
        404: f"not found, or the token may not see it; look at the name, and whether the token may write to {owner}",
    }.get(status, f"the hub answered with status {status}; try again later")
