"""The folder of a model that the hub has: asked for once, fetched into the hub's cache, and told in words if not."""

from __future__ import annotations

import glob
import json
import logging
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from transparent_llm.errors import InvalidRequestError
from transparent_llm_server.models.loading.folder import ADAPTER, CONFIG, INDEX, READ, TEMPLATES, WEIGHTS, require_plain
from transparent_llm_server.models.loading.progress import step
from transparent_llm_server.models.loading.refusal import printable, refusing, told

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

log = logging.getLogger(__name__)

ASKED_S = 10.0
"""How long the hub may take to say what a model consists of."""

_NOT_WEIGHTS = READ - {".gguf", ".safetensors"}


@dataclass(frozen=True)
class Wanted:
    """What is needed of a model."""

    gguf: str | None = None
    """This file, and nothing else."""

    weights: bool = True
    adapter: bool = False
    """It is to be an adapter, which is a kind of model to the hub."""


def hub_folder(name: str, revision: str | None, wanted: Wanted) -> Path:
    """The folder in the hub's cache that holds one commit of a model, with all that is wanted of it.

    The hub is asked once. Where it cannot be reached, or must not be (HF_HUB_OFFLINE), the cache is taken as it is.

    Raises:
        InvalidRequestError: what the hub says of such a name, or that neither hub nor cache has it.
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return _cached(name, revision, "HF_HUB_OFFLINE is set, so that it is not asked for")
    info = _asked(name, revision)
    if isinstance(info, str):
        return _cached(name, revision, info)
    sizes = {each.rfilename: each.size or 0 for each in info.siblings or ()}
    folder = _fetched(name, revision, _first(sizes, wanted), sizes)
    if wanted.weights and wanted.gguf is None:
        second = _weights(folder, name, sizes, wanted)
        if second:
            folder = _fetched(name, folder.name, second, sizes)
    return folder


def _asked(name: str, revision: str | None) -> ModelInfo | str:
    """What the hub knows of a model, or why it does not answer."""
    from huggingface_hub import HfApi, constants, errors

    at = constants.ENDPOINT
    try:
        return HfApi().model_info(name, revision=revision, files_metadata=True, timeout=ASKED_S)
    except errors.GatedRepoError as error:
        why = f"{at} says that it is gated: accept its terms there, and give the server {_token()}"
        raise _no_model(name, why) from error
    except errors.RepositoryNotFoundError as error:
        why = f"there is no such folder here, and {at} knows no such model; if it is a private one, give it {_token()}"
        raise _no_model(name, why) from error
    except errors.RevisionNotFoundError as error:
        raise _no_model(name, f"{at} has no revision {printable(str(revision))!r} of it") from error
    except errors.HfHubHTTPError as error:
        if error.response.status_code >= 500:
            return f"{at} answers {error.response.status_code}"
        if error.response.status_code == 401:
            raise _no_model(
                name, f"{at} does not accept the token that it was sent; give the server {_token()}"
            ) from error
        raise _no_model(name, f"{at} says {told(error)}") from error
    except Exception as error:
        if isinstance(error, MemoryError):
            raise
        return f"{at} cannot be reached ({told(error)})"


def _token() -> str:
    from huggingface_hub import get_token

    return "a token with access to it (HF_TOKEN)" if get_token() is None else "another token (HF_TOKEN) that has access"


def _cached(name: str, revision: str | None, why: str) -> Path:
    from huggingface_hub import constants, snapshot_download

    try:
        folder = Path(snapshot_download(name, revision=revision, local_files_only=True))
    except OSError as error:
        version = f" revision {printable(revision)!r} of" if revision else ""
        words = f"there is no such folder here, {why}, and the cache ({Path(constants.HF_HUB_CACHE).name}) has no"
        raise _no_model(name, f"{words}{version} model of that name") from error
    if not constants.HF_HUB_OFFLINE:
        log.warning("%s: %s; the cache has it as it was at commit %s", name, why, folder.name)
    return folder


def _first(names: Collection[str], wanted: Wanted) -> list[str]:
    """All but weights: what says which files these are is among it. Of a GGUF file, itself."""
    if wanted.gguf is not None:
        return [wanted.gguf]
    if not wanted.adapter and CONFIG not in names and ADAPTER[0] not in names:
        found = [name for name in names if name.endswith(".gguf") and "/" not in name]
        if len(found) == 1 and wanted.weights:
            return found
    return [
        name
        for name in names
        if Path(name).suffix in _NOT_WEIGHTS and ("/" not in name or Path(name).parent.as_posix() == TEMPLATES)
    ]


def _weights(folder: Path, name: str, names: Collection[str], wanted: Wanted) -> list[str]:
    """Files of weights; of several, those that the index names."""
    if wanted.adapter or (folder / ADAPTER[0]).exists():
        return [ADAPTER[1]] if wanted.adapter and ADAPTER[1] in names else []
    if WEIGHTS in names:
        return [WEIGHTS]
    if not (folder / INDEX).exists():
        return []
    require_plain(folder, name)
    try:
        places = set(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return []  # whoever reads it next says what is wrong
    return sorted(places & set(names))


def _fetched(name: str, revision: str | None, files: Collection[str], sizes: dict[str, int]) -> Path:
    from huggingface_hub import constants, snapshot_download

    lacking = sum(sizes.get(file, 0) for file in files if not _is_cached(name, revision, file))
    cache = Path(constants.HF_HUB_CACHE)
    cache.mkdir(parents=True, exist_ok=True)
    if lacking:
        free = shutil.disk_usage(cache).free
        if lacking > free:
            raise _no_model(name, f"{lacking} bytes must be fetched, and the cache has room for {free} (HF_HOME)")
        step(f"fetching {lacking} bytes from {constants.ENDPOINT}")
    with refusing(lambda words: f"cannot load model {name!r}: it could not be fetched: {words}", InvalidRequestError):
        return Path(snapshot_download(name, revision=revision, allow_patterns=[glob.escape(file) for file in files]))


def _is_cached(name: str, revision: str | None, file: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(name, file, revision=revision), str)


def _no_model(name: str, why: str) -> InvalidRequestError:
    return InvalidRequestError(f"cannot load model {printable(name)!r}: {why}")
