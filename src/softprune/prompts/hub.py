"""Tickets on the Hugging Face hub, through its own client."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from softprune.errors import SoftpruneError, shorten

_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


def is_hub_name(text: str) -> bool:
    """Whether a text has the form user/name."""
    return _NAME.fullmatch(text) is not None


def download(name: str, files: Sequence[str]) -> Path:
    """The folder, in the hub's cache, that holds these files of a repository.

    Raises:
        SoftpruneError: when the repository can't be fetched.
    """
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=list(files)))
    except Exception as error:  # the client lets errors of its HTTP library through, and changes that
        do = "check the path or name, the network, and (private ones) your login: hf auth login"
        found = f"no folder {name}; from the hub: {shorten(error)}"
        raise SoftpruneError("a local folder, or a repository of the hub", found, do) from error


def upload(repo_id: str, files: Mapping[str, bytes], *, private: bool, token: str | None, message: str) -> str:
    """Put files into a repository in one commit; its address.

    Raises:
        SoftpruneError: when the name has another form, or the hub can't be reached, or refuses.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    if not is_hub_name(repo_id):
        raise SoftpruneError("a repository as user/name", f'"{repo_id}"', "put your user name before it")
    operations = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=data) for name, data in files.items()]
    try:
        api = HfApi(token=token)
        address = str(api.create_repo(repo_id, private=private, exist_ok=True))
        api.create_commit(repo_id, operations=operations, commit_message=message)
    except Exception as error:  # as above
        do = "check the name, the network, and your login: hf auth login"
        raise SoftpruneError(f"a repository {repo_id} that you may write to", shorten(error), do) from error
    return address
