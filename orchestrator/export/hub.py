"""A model folder on its way to a hub, by huggingface_hub: HF_TOKEN or `hf auth login` says who, HF_ENDPOINT where."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rollout.errors import InputError, ServiceError

WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "adapter_config.json")
"""Files of a model that was there before would be loaded in place of the new one, or beside it."""


def check_name(option: str, repo_id: str) -> None:
    """Raises InputError unless a repository may be called so."""
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(repo_id)
    except HFValidationError:
        raise InputError(f"{option} {repo_id}: is no name of a repository; write it as OWNER/NAME") from None


def check_hub(repo_id: str) -> None:
    """Ask the hub who we are, before anything is written.

    Raises:
        InputError: the hub takes no token of ours.
        ServiceError: the hub does not answer.
    """
    from huggingface_hub import HfApi

    with _told(repo_id):
        HfApi().whoami()


def push(folder: Path, repo_id: str, *, private: bool, message: str) -> str:
    """Upload a folder as one commit; returns its address. The repository is made if there is none; weights that it had go.

    Args:
        private: whether a new repository is seen by its owner alone.

    Raises:
        InputError: the hub refuses it.
        ServiceError: the hub does not answer, or fails.
    """
    from huggingface_hub import HfApi

    hub = HfApi()
    with _told(repo_id):
        made = hub.create_repo(repo_id, private=private or None, exist_ok=True)
        hub.upload_folder(
            repo_id=made.repo_id, folder_path=folder, commit_message=message, delete_patterns=list(WEIGHTS)
        )
    return str(made)


@contextmanager
def _told(repo_id: str) -> Iterator[None]:
    """What a hub answers, in a line."""
    from httpx2 import HTTPError
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

    try:
        yield
    except LocalTokenNotFoundError:
        raise InputError(f"--push {repo_id}: no token; set HF_TOKEN, or log in with `hf auth login`") from None
    except OfflineModeIsEnabled:
        raise InputError(f"--push {repo_id}: HF_HUB_OFFLINE is set, so no hub is asked; unset it") from None
    except HfHubHTTPError as problem:
        said = " ".join(str(problem.server_message or problem).split())[:300]
        status = problem.response.status_code
        if status in (401, 403):
            raise InputError(f"--push {repo_id}: {constants.ENDPOINT} refuses this token ({status}): {said}") from None
        kind = InputError if status < 500 else ServiceError
        raise kind(f"--push {repo_id}: {constants.ENDPOINT} answers {status}: {said}") from problem
    except (HTTPError, OSError) as problem:
        raise ServiceError(
            f"--push {repo_id}: {constants.ENDPOINT} does not answer ({type(problem).__name__}: {problem})"
        ) from problem
