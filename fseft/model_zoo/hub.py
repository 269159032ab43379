"""Download from the Hugging Face Hub with the user's token, if `huggingface_hub` is installed."""

from __future__ import annotations

import re
import shutil
from importlib import import_module
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from fseft.errors import FseftError, summarise_exception

if TYPE_CHECKING:
    from pathlib import Path

_FILE_URL = re.compile(
    r"https://huggingface\.co/(?P<repo_id>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/"
    r"(?P<filename>[^?#]+)"
)


def fetch_from_hub(url: str, file: Path) -> bool:
    """Downloads a file of a model repository.

    Gated repositories need the token of a user who has accepted their conditions, from
    `hf auth login` or the environment variable HF_TOKEN.

    Args:
        url: An address of the form `https://huggingface.co/OWNER/NAME/resolve/REVISION/PATH`.
        file: Target file.

    Returns:
        False if the address is another, or the package is not installed.

    Raises:
        FseftError: The download fails.
    """
    match = _FILE_URL.match(url)
    hub = _import_hub() if match else None
    if match is None or hub is None:
        return False
    location = {key: unquote(value) for key, value in match.groupdict().items()}
    folder = file.with_name(f"{file.name}.hub")  # kept after an error: the next call continues
    try:
        downloaded = hub.hf_hub_download(**location, local_dir=folder)
    except Exception as error:  # of requests, httpx or the package, depending on its version
        raise _error(error, url, match["repo_id"]) from error
    shutil.move(downloaded, file)
    shutil.rmtree(folder)
    return True


def _import_hub() -> Any:
    try:
        return import_module("huggingface_hub")
    except ImportError:
        return None


def _error(error: Exception, url: str, repository: str) -> FseftError:
    if type(error).__name__ == "GatedRepoError":
        return FseftError(
            "access to the file must be requested",
            file=url,
            hint=f"Accept the conditions at https://huggingface.co/{repository}, log in by "
            "`hf auth login`, and run again.",
        )
    hint = "Check the network and run again, or download the file manually."
    return FseftError(f"download failed ({summarise_exception(error)})", file=url, hint=hint)
