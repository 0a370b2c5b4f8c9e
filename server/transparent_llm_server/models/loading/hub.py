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
from transparent_llm_server.models.loading.refusal import listed, printable, refusing, told
from transparent_llm_server.models.loading.weight_files import without_weights

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

log = logging.getLogger(__name__)

ASKED_S = 10.0
"""How long the hub may take to say what a model consists of."""

_LATER = (408, 429)
"""What is asked may be right, and can be answered another time."""

_BAD_TOKEN = "Invalid credentials in Authorization header"
"""In the hub's words."""

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
        return _cached(name, revision, wanted, "HF_HUB_OFFLINE is set, so that it is not asked for")
    info = _asked(name, revision)
    if isinstance(info, str):
        return _cached(name, revision, wanted, info)
    sizes = {each.rfilename: each.size or 0 for each in info.siblings or ()}
    folder = _fetched(name, revision, _first(name, sizes, wanted), sizes)
    if wanted.weights and wanted.gguf is None and not any(folder.glob("*.gguf")):
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
        raise _unknown(name, at) from error
    except errors.RevisionNotFoundError as error:
        raise _no_model(name, f"{at} has no revision {printable(str(revision))!r} of it") from error
    except errors.HfHubHTTPError as error:
        if error.response.status_code >= 500 or error.response.status_code in _LATER:
            return f"{at} answers {error.response.status_code}"
        if error.response.status_code == 401 and error.response.headers.get("X-Error-Message") != _BAD_TOKEN:
            raise _unknown(name, at) from error  # so it says, to those without a token, of what it does not have
        if error.response.status_code == 401:
            raise _no_model(
                name, f"{at} does not accept the token that it was sent; give the server {_token()}"
            ) from error
        raise _no_model(name, f"{at} says {told(error)}") from error
    except Exception as error:
        if isinstance(error, MemoryError):
            raise
        return f"{at} cannot be reached ({told(error)})"


def _unknown(name: str, at: str) -> InvalidRequestError:
    why = f"there is no such folder here, and {at} knows no such model; if it is a private one, give it {_token()}"
    return _no_model(name, why)


def _token() -> str:
    from huggingface_hub import get_token

    return "a token with access to it (HF_TOKEN)" if get_token() is None else "another token (HF_TOKEN) that has access"


def _cached(name: str, revision: str | None, wanted: Wanted, why: str) -> Path:
    """What the cache has of it, which need not be all: whoever reads it next says what is missing."""
    from huggingface_hub import constants, snapshot_download

    told_by = [wanted.gguf] if wanted.gguf is not None else [CONFIG, ADAPTER[0]]
    found = next((path for path in (_in_cache(name, revision, file) for file in told_by) if path is not None), None)
    if found is not None:
        folder = found.parent
    else:
        try:
            only = glob.escape(wanted.gguf) if wanted.gguf is not None else "*.gguf"
            folder = Path(snapshot_download(name, revision=revision, local_files_only=True, allow_patterns=only))
        except OSError as error:
            of = f"revision {printable(revision)!r} of that model" if revision else "model of that name"
            words = f"there is no such folder here, {why}, and the hub's cache (HF_HOME) has no {of}"
            raise _no_model(name, words) from error
    if not constants.HF_HUB_OFFLINE:
        log.warning("%s: %s; served is what the cache has, commit %s", name, why, folder.name)
    return folder


def _first(name: str, files: Collection[str], wanted: Wanted) -> list[str]:
    """All but weights: what says which files these are is among it. Of a GGUF file, itself."""
    found = sorted(file for file in files if file.endswith(".gguf") and "/" not in file)
    if wanted.gguf is not None:
        if wanted.gguf not in files:
            others = f"its GGUF files are {listed(found)}" if found else "it has no GGUF file"
            raise _no_model(name, f"it has no {printable(wanted.gguf)}; {others}")
        return [wanted.gguf]
    if wanted.weights and not wanted.adapter and CONFIG not in files and ADAPTER[0] not in files:
        if len(found) > 1:
            raise _no_model(name, f"it has {len(found)} GGUF files ({listed(found)}); say which: {name}:{found[0]}")
        if found:
            return found
    return [
        file
        for file in files
        if Path(file).suffix in _NOT_WEIGHTS and ("/" not in file or Path(file).parent.as_posix() == TEMPLATES)
    ]


def _weights(folder: Path, name: str, names: Collection[str], wanted: Wanted) -> list[str]:
    """Files of weights; of several, those that the index names."""
    if wanted.adapter or (folder / ADAPTER[0]).exists():
        return [ADAPTER[1]] if wanted.adapter and ADAPTER[1] in names else []
    if WEIGHTS in names:
        return [WEIGHTS]
    if not (folder / INDEX).exists():
        raise _no_model(name, without_weights(names))
    require_plain(folder, name)
    try:
        places = set(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return []  # whoever reads it next says what is wrong
    return sorted(places & set(names))


def _fetched(name: str, revision: str | None, files: Collection[str], sizes: dict[str, int]) -> Path:
    from huggingface_hub import constants, snapshot_download

    lacking = sum(sizes.get(file, 0) for file in files if _in_cache(name, revision, file) is None)
    cache = Path(constants.HF_HUB_CACHE)
    cache.mkdir(parents=True, exist_ok=True)
    if lacking:
        free = shutil.disk_usage(cache).free
        if lacking > free:
            raise _no_model(name, f"{lacking} bytes must be fetched, and the cache has room for {free} (HF_HOME)")
        step(f"fetching {lacking} bytes from {constants.ENDPOINT}")
    with refusing(lambda words: f"cannot load model {name!r}: it could not be fetched: {words}", InvalidRequestError):
        return Path(snapshot_download(name, revision=revision, allow_patterns=[glob.escape(file) for file in files]))


def _in_cache(name: str, revision: str | None, file: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, file, revision=revision)
    return Path(found) if isinstance(found, str) else None


def _no_model(name: str, why: str) -> InvalidRequestError:
    return InvalidRequestError(f"cannot load model {printable(name)!r}: {why}")
