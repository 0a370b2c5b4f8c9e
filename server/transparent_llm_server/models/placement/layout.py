"""Where the modules of a model lie, and where they compute."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from transparent_llm.errors import InvalidRequestError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_OFFLOADED = ("cpu", "disk")
"""Where weights wait that are computed on an accelerator, if the map has one."""


class DeviceLayout:
    """Of one model: on one device, or over several as accelerate has spread it."""

    def __init__(self, device_map: Mapping[str, str | int]) -> None:
        self._places = {module: _name(device) for module, device in device_map.items()}
        first = next((place for place in self._places.values() if place not in _OFFLOADED), "cpu")
        self._first = torch.device(first)

    @classmethod
    def of(cls, hf_model: PreTrainedModel) -> DeviceLayout | None:
        """How a model is spread that was loaded with a map, if it is."""
        device_map = getattr(hf_model, "hf_device_map", None)
        if not device_map or (len(set(device_map.values())) == 1 and not is_offloaded(hf_model)):
            return None
        return cls(device_map)

    def place(self, module: str) -> str:
        """Where the weights of a module lie: what the map says of it, or of what it is part of."""
        parts = module.split(".")
        for n in range(len(parts), -1, -1):
            name = ".".join(parts[:n])
            if name in self._places:
                return self._places[name]
        within = [place for name, place in self._places.items() if name.startswith(f"{module}.")]
        if not within:
            raise InvalidRequestError(f"device_map does not mention {module}: name it, or a module that contains it")
        return within[0]

    def device(self, module: str) -> torch.device:
        """Where a module computes: what is offloaded computes on the first accelerator of the map."""
        place = self.place(module)
        return self._first if place in _OFFLOADED else torch.device(place)

    def require_whole(self, blocks: str) -> None:
        """Refuse a map that spreads the parts of one block.

        Raises:
            InvalidRequestError: with the block, and where its parts are.
        """
        places: dict[str, set[str]] = {}
        for module, place in self._places.items():
            match = re.match(rf"{re.escape(blocks)}\.[0-9]+(?=\.)", module)
            if match is not None:
                places.setdefault(match[0], set()).add(place)
        block = next((block for block, its_places in places.items() if len(its_places) > 1), None)
        if block is not None:
            raise InvalidRequestError(
                f"device_map spreads {block} over {', '.join(sorted(places[block]))}: put whole blocks on one device, "
                "so that the parts of a layer are added up where they are"
            )

    @property
    def is_single(self) -> bool:
        """Whether all of it lies in one place."""
        return len(set(self._places.values())) == 1

    def __str__(self) -> str:
        return ", ".join(dict.fromkeys(self._places.values()))


def is_offloaded(module: torch.nn.Module) -> bool:
    """Whether some of its weights are brought to memory only while they are used."""
    return any(parameter.is_meta for parameter in module.parameters())


def _name(device: str | int | torch.device) -> str:
    """A device of a map as torch writes it."""
    return f"cuda:{device}" if isinstance(device, int) else str(device)
