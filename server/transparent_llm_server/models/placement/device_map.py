"""Where the parts of a model lie that is spread over several devices, as accelerate takes it."""

from __future__ import annotations

import json
import re
from pathlib import Path

from transparent_llm.errors import InvalidRequestError
from transparent_llm_server.models.placement.device import resolve_device

AUTOMATIC = ("auto", "balanced", "balanced_low_0", "sequential")
"""Maps that accelerate makes."""

_SIZE = re.compile(r"[0-9]+(\.[0-9]+)?([KMG]i?B|B)?")


def device_map_of(text: str) -> str | dict[str, str | int]:
    """From `auto`, `balanced`, `balanced_low_0`, `sequential`, or the name of a JSON file {module: device}.

    Raises:
        InvalidRequestError: neither; or a file that has something else in it, or a device that is not here.
    """
    if text in AUTOMATIC:
        return text
    try:
        written = json.loads(Path(text).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidRequestError(
            f"device_map {text!r} is neither {', '.join(AUTOMATIC)} nor a JSON file {{module: device}}: {error}"
        ) from error
    if not isinstance(written, dict) or not written:
        raise InvalidRequestError(f"device_map {text!r} does not hold an object {{module: device}}")
    return {module: _device(text, module, device) for module, device in written.items()}


def max_memory_of(text: str) -> dict[str | int, int | str]:
    """From `0=20GiB,cpu=60GiB`: device -> what it may hold.

    Raises:
        InvalidRequestError: it is written in another way.
    """
    found: dict[str | int, int | str] = {}
    for part in text.split(","):
        device, _, size = part.strip().partition("=")
        if not re.fullmatch(r"[0-9]{1,3}|cpu|disk", device) or not _SIZE.fullmatch(size):
            raise InvalidRequestError(
                f"max_memory {text!r} is not understood at {part!r}: write DEVICE=SIZE,DEVICE=SIZE, for example "
                "0=20GiB,cpu=60GiB"
            )
        number = size.removesuffix("B")
        found[int(device) if device.isdigit() else device] = int(number) if number.isdigit() else size
    return found


def _device(file: str, module: object, device: object) -> str | int:
    if type(device) is int:
        device = f"cuda:{device}"
    if not isinstance(device, str) or not isinstance(module, str):
        raise InvalidRequestError(f"device_map {file!r}: {module} is on {device!r}; write cpu, disk, cuda:0 or 0")
    if device != "disk":
        resolve_device(device)
    return int(device.partition(":")[2] or 0) if device.startswith("cuda") else device
