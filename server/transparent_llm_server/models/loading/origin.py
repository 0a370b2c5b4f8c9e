"""Where a model is read from, told from the name that it was given: a folder, a GGUF file, or a model of the hub."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from transparent_llm.errors import InvalidRequestError, ModelRefusedError
from transparent_llm_server.models.loading.folder import CONFIG, require_plain, require_plain_file
from transparent_llm_server.models.loading.hub import Wanted, hub_folder
from transparent_llm_server.models.loading.refusal import display_name, listed

GGUF = ".gguf"

_OF_HUB = re.compile(r"[A-Za-z0-9_][\w.-]{0,95}(/[A-Za-z0-9_][\w.-]{0,95})?", re.ASCII)
"""What the hub calls models: NAME or ORGANISATION/NAME."""

_PART = re.compile(r"-[0-9]{5}-of-[0-9]{5}\.gguf$")


@dataclass(frozen=True)
class Origin:
    """Files of a model on this machine, of which it is known that they can be opened."""

    folder: Path
    name: str
    """What it is called where others see it."""

    gguf: str | None = None
    """The one file in the folder that all is read from."""

    @property
    def path(self) -> Path:
        """The GGUF file, or the folder."""
        return self.folder / (self.gguf or "")


def origin_of(
    model_name: str, revision: str | None = None, *, with_weights: bool = True, is_adapter: bool = False
) -> Origin:
    """The files of a model or of an adapter; what the hub has is fetched, unless its cache holds it.

    Raises:
        InvalidRequestError: there is no such model, or it could not be fetched.
        ModelRefusedError: something in the folder cannot be read safely, or is no model by itself.
    """
    name = display_name(model_name)
    place, file = split_name(model_name)
    if os.path.isdir(place):
        folder = Path(place)
    elif _names_path(place) or not _OF_HUB.fullmatch(place):
        raise InvalidRequestError(f"cannot load model {name!r}: {_why_not(place)}")
    else:
        folder = hub_folder(place, revision, Wanted(file, with_weights, is_adapter))
    if file is None and not is_adapter:
        file = _only_gguf(folder, name)
    if file is None:
        require_plain(folder, name, is_adapter=is_adapter)
    else:
        _require_gguf(folder, file, name)
    return Origin(folder, name, file)


def split_name(model_name: str) -> tuple[str, str | None]:
    """The folder or hub name, and the GGUF file in it if one is named: `FILE.gguf` or `PLACE:FILE.gguf`."""
    if os.path.isdir(model_name):
        return model_name, None
    if os.path.isfile(model_name) and model_name.endswith(GGUF):
        return os.path.dirname(model_name) or ".", os.path.basename(model_name)
    place, colon, file = model_name.rpartition(":")
    return (place, file) if colon and file.endswith(GGUF) else (model_name, None)


def _names_path(place: str) -> bool:
    return place.startswith(("/", ".", "~")) or place.endswith(GGUF) or os.path.exists(place)


def _why_not(place: str) -> str:
    """What is wrong with a name of which no folder is here."""
    if os.path.isfile(place):
        return f"it is a file: name the folder with its {CONFIG}, or a file whose name ends with {GGUF}"
    if place.startswith("~"):
        return "'~' stands for the home folder only where a shell reads it unquoted; write the whole path"
    if place.endswith(GGUF):
        return "there is no such file on the machine of the server"
    words = "there is no such folder on the machine of the server"
    if not _names_path(place):
        words += ", and the hub's models are called NAME or ORGANISATION/NAME"
    return words


def _only_gguf(folder: Path, name: str) -> str | None:
    """The GGUF file of a folder that has no model in another form."""
    if (folder / CONFIG).exists():
        return None
    files = sorted(path.name for path in folder.glob(f"*{GGUF}"))
    if len(files) > 1:
        raise InvalidRequestError(
            f"cannot load model {name!r} from the folder: it holds {len(files)} GGUF files ({listed(files)}); say "
            f"which: {name}:{files[0]}"
        )
    return files[0] if files else None


def _require_gguf(folder: Path, file: str, name: str) -> None:
    path = folder / file
    if Path(file).name != file or not (path.exists() or path.is_symlink()):
        raise InvalidRequestError(f"cannot load model {name!r}: there is no file {Path(file).name} in its folder")
    if _PART.search(file):
        raise ModelRefusedError(
            f"{name!r} is not served: {file} is one part of several; put them together first "
            "(llama-gguf-split --merge FIRST_PART WHOLE.gguf)",
            metadata={"file": file},
        )
    named = path.resolve().parent if path.is_symlink() and path.resolve().exists() else folder.resolve()
    require_plain_file(path, (named, folder.resolve()), name)
