"""A Secret as the kubelet puts it into a pod's folder, and as it changes it there."""

from __future__ import annotations

import os
from pathlib import Path


class SecretVolume:
    """Files are links through `..data`, which is turned to a new folder at once: a reader never sees half a change."""

    def __init__(self, folder: Path, files: dict[str, bytes]) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self._versions = 0
        self.put(files)
        for name in files:
            (folder / name).symlink_to(Path("..data", name))

    def put(self, files: dict[str, bytes]) -> None:
        """Other contents under the same names; the old ones are gone."""
        before = os.path.realpath(self.folder / "..data") if self._versions else None
        self._versions += 1
        version = self.folder / f"..version_{self._versions}"
        version.mkdir()
        for name, data in files.items():
            (version / name).write_bytes(data)
        (self.folder / "..data_tmp").symlink_to(version.name)
        os.replace(self.folder / "..data_tmp", self.folder / "..data")
        if before is not None:
            for old in Path(before).iterdir():
                old.unlink()
            Path(before).rmdir()
