"""Folders of models, damaged in one place each."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

Damage = Callable[[Path], None]
"""Does something to a folder."""

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


def tensors(folder: Path, file: str = WEIGHTS) -> dict[str, torch.Tensor]:
    """What a file holds."""
    return load_file(folder / file)


def put(folder: Path, held: Mapping[str, torch.Tensor], file: str = WEIGHTS) -> None:
    """Write a file of tensors."""
    save_file(dict(held), folder / file, metadata={"format": "pt"})


def without(part: str) -> Damage:
    """Tensors whose names hold this are not there."""

    def damage(folder: Path) -> None:
        held = tensors(folder)
        left = {name: tensor for name, tensor in held.items() if part not in name}
        assert len(left) < len(held)
        put(folder, left)

    return damage


def renamed(rename: Callable[[str], str]) -> Damage:
    """All tensors have other names."""
    return lambda folder: put(folder, {rename(name): tensor for name, tensor in tensors(folder).items()})


def changed(part: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Damage:
    """The first tensor whose name holds this is another one."""

    def damage(folder: Path) -> None:
        held = tensors(folder)
        name = next(name for name in sorted(held) if part in name)
        put(folder, {**held, name: change(held[name]).contiguous()})

    return damage


def added(more: Mapping[str, torch.Tensor]) -> Damage:
    """There are tensors more."""
    return lambda folder: put(folder, {**tensors(folder), **more})


def config(**settings: Any) -> Damage:
    """config.json says something else."""
    return settings_of("config.json", **settings)


def settings_of(file: str, **settings: Any) -> Damage:
    """A file of settings says something else."""

    def damage(folder: Path) -> None:
        held = json.loads((folder / file).read_text(encoding="utf-8"))
        (folder / file).write_text(json.dumps({**held, **settings}), encoding="utf-8")

    return damage


def written(file: str, content: str | bytes) -> Damage:
    """A file holds this."""

    def damage(folder: Path) -> None:
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_bytes(content.encode() if isinstance(content, str) else content)

    return damage


def removed(*patterns: str) -> Damage:
    """Files are not there."""

    def damage(folder: Path) -> None:
        found = [path for pattern in patterns for path in folder.glob(pattern)]
        assert found
        for path in found:
            path.unlink()

    return damage


def piped(file: str) -> Damage:
    """In place of a file there is a pipe, which nobody writes to."""

    def damage(folder: Path) -> None:
        (folder / file).unlink(missing_ok=True)
        os.mkfifo(folder / file)

    return damage


def linked(file: str, target: str) -> Damage:
    """In place of a file there is a link."""

    def damage(folder: Path) -> None:
        (folder / file).unlink(missing_ok=True)
        (folder / file).symlink_to(target)

    return damage


def foldered(file: str) -> Damage:
    """In place of a file there is a folder."""

    def damage(folder: Path) -> None:
        (folder / file).unlink(missing_ok=True)
        (folder / file).mkdir()

    return damage


def truncated(file: str, size: int) -> Damage:
    """A file ends early."""
    return lambda folder: os.truncate(folder / file, size)


def sharded(*damages: Callable[[Path, dict[str, Any]], None]) -> Damage:
    """Two files and an index in place of one file, the index changed before it is written."""

    def damage(folder: Path) -> None:
        held = sorted(tensors(folder).items())
        files = {"a.safetensors": held[::2], "b.safetensors": held[1::2]}
        index = {"metadata": {}, "weight_map": {name: file for file, part in files.items() for name, _ in part}}
        for file, part in files.items():
            put(folder, dict(part), file)
        (folder / WEIGHTS).unlink()
        for each in damages:
            each(folder, index)
        (folder / INDEX).write_text(json.dumps(index), encoding="utf-8")

    return damage


def all_of(*damages: Damage) -> Damage:
    """One after the other."""

    def damage(folder: Path) -> None:
        for each in damages:
            each(folder)

    return damage


def damaged(source: Path, target: Path, damage: Damage) -> Path:
    """A copy of a folder, damaged."""
    shutil.copytree(source, target)
    damage(target)
    return target


def hub_cache(source: Path, cache: Path, *, shared: bool = False) -> Path:
    """The files of a folder as the hub's cache has them: links from a snapshot to blobs, and maybe from there to blobs
    that all models of the cache share."""
    repository = cache / "models--org--tiny"
    snapshot = repository / "snapshots" / ("1" * 40)
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("1" * 40)
    for number, path in enumerate(sorted(source.iterdir())):
        blob = repository / "blobs" / f"{number:040x}"
        if shared:
            store = cache / "blobs" / "ab" / f"{number:064x}"
            store.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, store)
            blob.symlink_to(os.path.relpath(store, blob.parent))
        else:
            shutil.copy(path, blob)
        (snapshot / path.name).symlink_to(os.path.relpath(blob, snapshot))
    return snapshot
