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

from transparent_llm.errors import ModelRefusedError
from transparent_llm_server.models.loading.refusal import listed, refused, refusing, told

CONFIG, INDEX, WEIGHTS = "config.json", "model.safetensors.index.json", "model.safetensors"

READ = frozenset({".gguf", ".json", ".jinja", ".model", ".safetensors", ".tiktoken", ".txt"})
"""Endings of what is read; all else in a folder, Python files and pickles among it, is never opened."""

TEMPLATES = "additional_chat_templates"
"""The only folder in a model's folder that is read."""

TOKENIZER = "tokenizer.json"
SETTINGS = (CONFIG, "generation_config.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
"""Files that must be JSON objects where they are."""

ADAPTER = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")
"""What tells that a folder holds changes to a model. Transformers adds them without a word where peft is installed,
and leaves them out without a word where it is not."""

LARGEST_JSON_BYTES = 256 * 2**20
"""Far over the largest tokenizers and indexes that are published."""

_LFS = b"version https://git-lfs.github.com/spec/"
"""How a file of Git LFS begins that stands for another one, which was not fetched."""

_LARGEST_POINTER_BYTES = 1024
_DISTRIBUTED = re.compile(r"shard-[0-9]{5}-model-[0-9]{5}-of-[0-9]{5}\.safetensors")
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def cannot_load(name: str, words: str) -> str:
    """The sentence for a folder that holds no model."""
    return f"cannot load model {name!r} from the folder: {words}"


def without_config(folder: Path) -> str:
    """What there is in a folder that has no configuration."""
    names = sorted(path.name for path in folder.iterdir())
    if not names:
        return "it is empty"
    within = [path.parent.name for path in folder.glob(f"*/{CONFIG}")]
    if within:
        return f"there is no {CONFIG} in it, but in its folders {listed(within)}: name one of them"
    return f"there is no {CONFIG}; it holds {listed(names)}"


def require_plain(folder: Path, name: str, *, is_adapter: bool = False) -> None:
    """Refuse what cannot be read safely, and what is no model by itself, unless it is to be an adapter.

    Raises:
        ModelRefusedError: with the file.
    """
    roots = _roots(folder)
    with refusing(lambda words: f"the folder of {name!r} cannot be read: {words}"):
        entries = sorted([*folder.iterdir(), *(folder / TEMPLATES).glob("*")])
    for entry in entries:
        if entry.name in ADAPTER and not is_adapter:
            raise _holds_adapter(folder, entry.name, name)
        if _DISTRIBUTED.fullmatch(entry.name):
            raise ModelRefusedError(
                f"{name!r} holds the parts of a distributed checkpoint ({entry.name}): save it as one model with "
                "save_pretrained, and serve the new folder",
                metadata={"file": entry.name},
            )
        if entry.suffix in READ:
            require_plain_file(entry, roots, name)


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


def _holds_adapter(folder: Path, file: str, name: str) -> ModelRefusedError:
    if (folder / CONFIG).exists():
        what = f"an adapter ({file}) beside its model: move that into a folder of its own"
    else:
        what = f"an adapter ({file}), which is no model by itself: serve the model that it was made for"
    return ModelRefusedError(
        f"{name!r} holds {what}, and name the adapter's folder too (--model NAME=BASE --adapter FOLDER), or serve both "
        "merged (peft: merge_and_unload, then save_pretrained)",
        metadata={"file": file},
    )


def require_plain_file(path: Path, roots: tuple[Path, ...], name: str) -> None:
    """Refuse a file that cannot be read safely, or that leads to a file outside of these folders.

    Raises:
        ModelRefusedError: with the file.
    """
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
    if status.st_size <= _LARGEST_POINTER_BYTES and target.read_bytes().startswith(_LFS):
        raise refused(name, "is a pointer of Git LFS, not the file itself: run git lfs pull in its folder", path.name)
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
