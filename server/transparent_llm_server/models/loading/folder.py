"""The folder that a model is read from, looked at before anything in it is opened.

A folder can come from anybody. What is read of it must be plain files that lie in it: a pipe in place of a file would
stop the server for good, a link could show it a file of somebody else. What could run code is never opened.
"""

from __future__ import annotations

import json
import os
import re
import stat
from pathlib import Path

from transparent_llm.errors import InvalidRequestError, ModelRefusedError
from transparent_llm_server.models.loading.refusal import display_name, refused, refusing, told

CONFIG, INDEX, WEIGHTS = "config.json", "model.safetensors.index.json", "model.safetensors"

READ = frozenset({".json", ".jinja", ".model", ".safetensors", ".tiktoken", ".txt"})
"""Endings of what is read; all else in a folder, Python files and pickles among it, is never opened."""

TEMPLATES = "additional_chat_templates"
"""The only folder in a model's folder that is read."""

SETTINGS = (CONFIG, "generation_config.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
"""Files that must be JSON objects where they are."""

ADAPTER = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")
"""What tells that a folder holds changes to a model. Transformers adds them without a word where peft is installed,
and leaves them out without a word where it is not."""

LARGEST_JSON_BYTES = 256 * 2**20
"""Far over the largest tokenizers and indexes that are published."""

_DISTRIBUTED = re.compile(r"shard-[0-9]{5}-model-[0-9]{5}-of-[0-9]{5}\.safetensors")
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def model_folder(model_name: str, revision: str | None, *, with_weights: bool) -> Path:
    """The folder of a model; of one from the hub, that in the hub's cache, with its configuration and maybe weights.

    Raises:
        InvalidRequestError: there is no such model.
        ModelRefusedError: something in the folder cannot be read safely, or is no model by itself.
    """
    if os.path.isdir(model_name):
        folder = Path(model_name)
    else:
        with refusing(lambda words: cannot_load(model_name, words), InvalidRequestError):
            folder = _from_hub(model_name, revision, with_weights)
    require_plain(folder, display_name(model_name))
    return folder


def cannot_load(model_name: str, words: str) -> str:
    """The sentence for a model that is not there."""
    where = "the folder" if os.path.isdir(model_name) else "the hub (there is no such folder here)"
    return f"cannot load model {display_name(model_name)!r} from {where}: {words}"


def require_plain(folder: Path, name: str) -> None:
    """Refuse what cannot be read safely, and what is no model by itself.

    Raises:
        ModelRefusedError: with the file.
    """
    roots = _roots(folder)
    with refusing(lambda words: f"the folder of {name!r} cannot be read: {words}"):
        entries = sorted([*folder.iterdir(), *(folder / TEMPLATES).glob("*")])
    for entry in entries:
        if entry.name in ADAPTER:
            raise ModelRefusedError(
                f"{name!r} holds an adapter ({entry.name}): merge it into its base model (peft: merge_and_unload), "
                "save that with save_pretrained, and serve the new folder",
                metadata={"file": entry.name},
            )
        if _DISTRIBUTED.fullmatch(entry.name):
            raise ModelRefusedError(
                f"{name!r} holds the parts of a distributed checkpoint ({entry.name}): save it as one model with "
                "save_pretrained, and serve the new folder",
                metadata={"file": entry.name},
            )
        if entry.suffix in READ:
            _require_plain_file(entry, roots, name)


def settings_of(folder: Path, file: str, name: str) -> dict[str, object] | None:
    """What a file of settings holds; None where there is none.

    Raises:
        ModelRefusedError: it holds something else.
    """
    path = folder / file
    if not path.exists():
        return None
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise refused(name, f"is not JSON: {told(error)}", file) from error
    if not isinstance(held, dict):
        raise refused(name, f"holds a {type(held).__name__}, not an object of settings", file)
    return held


def _require_plain_file(path: Path, roots: tuple[Path, ...], name: str) -> None:
    try:
        target = path.resolve(strict=True)
        status = target.stat()
    except (OSError, RuntimeError) as error:  # a circle of links is a RuntimeError before Python 3.13
        raise refused(name, "is a broken link", path.name) from error
    if not any(target.is_relative_to(root) for root in roots):
        raise refused(name, "is a link that leads outside the model's folder; put the file itself there", path.name)
    if not stat.S_ISREG(status.st_mode):
        kind = next((words for matches, words in _KINDS if matches(status.st_mode)), "no file")
        raise refused(name, f"is {kind}, not a file", path.name)
    if not os.access(target, os.R_OK):
        raise refused(name, "cannot be read by this user", path.name)
    if path.suffix == ".json" and status.st_size > LARGEST_JSON_BYTES:
        raise refused(name, f"has {status.st_size} bytes, over {LARGEST_JSON_BYTES}, too many for JSON", path.name)


def _roots(folder: Path) -> tuple[Path, ...]:
    """Where links may lead: into the folder itself. In the hub's cache a model's files are links to blobs beside its
    snapshots, and those may be links to blobs that the models of that cache share."""
    folder = folder.resolve()
    repository = folder.parent.parent
    if folder.parent.name == "snapshots" and repository.name.startswith("models--"):
        return repository, repository.parent / "blobs"
    return (folder,)


def _from_hub(model_name: str, revision: str | None, with_weights: bool) -> Path:
    """What is needed of a model, fetched if need be. All of it is of one commit: the folder is that of a commit."""
    from transformers.utils.hub import cached_file, cached_files

    def there(file: str) -> str | None:
        found: str | None = cached_file(
            model_name, file, revision=revision, _raise_exceptions_for_missing_entries=False
        )
        return found

    adapter = there(ADAPTER[0])
    config = adapter or cached_file(model_name, CONFIG, revision=revision)
    if config is None:
        raise OSError(f"it has no {CONFIG}")
    folder = Path(config).parent
    index = there(INDEX) if with_weights and not adapter and not there(WEIGHTS) else None
    if index is not None:
        require_plain(folder, model_name)
        shards = sorted(set(json.loads(Path(index).read_text(encoding="utf-8"))["weight_map"].values()))
        cached_files(model_name, shards, revision=revision)
    return folder
