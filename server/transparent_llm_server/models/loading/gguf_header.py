"""What a GGUF file says of itself, read within bounds before any library opens it.

A file can come from anybody, and the libraries that read it believe its counts and lengths. So all of its header is
walked through here first: no length may lead beyond the file, no array may hold arrays, no tensor may lie outside.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from transparent_llm.errors import InvalidRequestError, ModelRefusedError
from transparent_llm.extras import missing
from transparent_llm_server.models.loading.refusal import printable

LARGEST_HEADER_BYTES = 2**28
"""Some ten times what the largest vocabularies take."""

_MOST_KEYS, _MOST_TENSORS, _MOST_ELEMENTS, _MOST_AXES = 2**12, 2**17, 2**22, 4
_LONGEST_NAME, _LONGEST_TEXT = 2**10, 2**22
_KEPT_ELEMENTS = 2**10
"""Of longer arrays, such as vocabularies, only the length is kept."""

_VERSIONS = (2, 3)
_STRING, _ARRAY = 8, 9
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""Types of values as struct calls them."""


@dataclass(frozen=True)
class Elements:
    """An array of which not the elements are kept."""

    count: int
    kind: int
    """The type of each, as GGUF numbers them."""


Setting = int | float | bool | str | list[int | float | bool] | Elements


@dataclass(frozen=True)
class GgufTensor:
    """Where a tensor lies, and as what."""

    kind: str
    """Its type as ggml calls it: F32, Q4_K."""

    shape: tuple[int, ...]
    """As torch has it: the axis whose elements lie side by side is the last."""

    start: int
    nbytes: int

    @property
    def elements(self) -> int:
        """How many numbers it stands for."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class GgufHeader:
    """All that a file says before its numbers."""

    path: Path
    settings: Mapping[str, Setting]
    kinds: Mapping[str, int]
    """The type of each setting, as GGUF numbers them."""

    tensors: Mapping[str, GgufTensor]

    @property
    def architecture(self) -> str:
        """What kind of model it is, in llama.cpp's words."""
        return str(self.settings["general.architecture"])

    @property
    def elements(self) -> int:
        """How many numbers all tensors stand for."""
        return sum(tensor.elements for tensor in self.tensors.values())

    @property
    def quantization(self) -> str:
        """How its weights are quantized, in llama.cpp's words: Q4_K_M, F16."""
        from gguf import LlamaFileType

        written = self.settings.get("general.file_type")
        names = {int(kind): kind.name.removeprefix("MOSTLY_").removeprefix("ALL_") for kind in LlamaFileType}
        if isinstance(written, int) and written in names:
            return str(names[written])
        sizes: dict[str, int] = {}
        for tensor in self.tensors.values():
            sizes[tensor.kind] = sizes.get(tensor.kind, 0) + tensor.elements
        return max(sizes, key=sizes.__getitem__)


def read_header(path: Path, name: str) -> GgufHeader:
    """Walk through the header of a file.

    Raises:
        InvalidRequestError: the package that knows its types is not installed.
        ModelRefusedError: it is no GGUF file, or says what cannot be.
    """
    require_package()
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            return _Walk(mapped).header(path)
    except (ValueError, struct.error, OverflowError) as error:  # an empty file cannot be mapped: a ValueError
        raise ModelRefusedError(
            f"{name!r} is not served: {printable(path.name)} is damaged, or no GGUF file: "
            f"{printable(str(error))[:200]}",
            metadata={"file": printable(path.name)},
        ) from error


def require_package() -> None:
    """GGUF files are read by transformers with a package of its own.

    Raises:
        InvalidRequestError: it is not installed.
    """
    try:
        import gguf  # noqa: F401
    except ModuleNotFoundError as error:
        raise InvalidRequestError(missing("reading a GGUF file", "gguf", error)) from error


class _Walk:
    """From the first byte on; every step looks whether it leads too far."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data, self._at = data, 0
        self._end = min(len(data), LARGEST_HEADER_BYTES)

    def header(self, path: Path) -> GgufHeader:
        if self._bytes(4) != b"GGUF":
            raise ValueError("it does not begin with GGUF")
        version, n_tensors, n_settings = self._take("IQQ")
        if version not in _VERSIONS:
            raise ValueError(f"version {version}, where 2 and 3 are known")
        self._require(n_tensors, _MOST_TENSORS, "tensors")
        self._require(n_settings, _MOST_KEYS, "settings")
        settings: dict[str, Setting] = {}
        kinds: dict[str, int] = {}
        for _ in range(n_settings):
            key = self._text(_LONGEST_NAME)
            if key in settings:
                raise ValueError(f"it sets {key} twice")
            (kinds[key],) = self._take("I")
            settings[key] = self._value(kinds[key])
        if not isinstance(settings.get("general.architecture"), str):
            raise ValueError("it says no general.architecture")
        return GgufHeader(path, settings, kinds, self._tensors(n_tensors, settings.get("general.alignment", 32)))

    def _tensors(self, count: int, alignment: Setting) -> dict[str, GgufTensor]:
        if type(alignment) is not int or not 0 < alignment <= 2**16 or alignment & (alignment - 1):
            raise ValueError(f"general.alignment is {alignment}, where it must be a power of two")
        entries: dict[str, tuple[tuple[int, ...], int, int]] = {}
        for _ in range(count):
            name = self._text(_LONGEST_NAME)
            (n_axes,) = self._take("I")
            self._require(n_axes, _MOST_AXES, f"axes of {name}")
            shape = self._take(f"{n_axes}Q")
            kind, offset = self._take("IQ")
            if name in entries:
                raise ValueError(f"it holds {name} twice")
            entries[name] = (tuple(reversed(shape)), kind, offset)
        start = -(-self._at // alignment) * alignment
        return {name: self._tensor(name, *entry[:2], start + entry[2]) for name, entry in entries.items()}

    def _tensor(self, name: str, shape: tuple[int, ...], number: int, start: int) -> GgufTensor:
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

        kind = GGMLQuantizationType(number)
        per_block, block_bytes = GGML_QUANT_SIZES[kind]
        if not all(shape) or (shape and shape[-1] % per_block):
            raise ValueError(f"{name} has the shape {list(shape)}, of which {kind.name} cannot be")
        nbytes = math.prod(shape) // per_block * block_bytes
        if start + nbytes > len(self._data):
            raise ValueError(f"{name} ends at byte {start + nbytes}, the file at {len(self._data)}: fetch it again")
        return GgufTensor(kind.name, shape, start, nbytes)

    def _value(self, kind: int) -> Setting:
        if kind == _STRING:
            return self._text(_LONGEST_TEXT)
        if kind != _ARRAY:
            return self._scalars(kind, 1)[0]
        of, count = self._take("IQ")
        self._require(count, _MOST_ELEMENTS, "elements of an array")
        if of == _STRING:
            for _ in range(count):
                self._skip(self._take("Q")[0])
            return Elements(count, of)
        values = self._scalars(of, count)
        return list(values) if count <= _KEPT_ELEMENTS else Elements(count, of)

    def _scalars(self, kind: int, count: int) -> tuple[int | float | bool, ...]:
        if kind not in _SCALARS:
            raise ValueError(f"a value of type {kind}, which is none")
        return self._take(f"{count}{_SCALARS[kind]}")

    def _text(self, longest: int) -> str:
        (length,) = self._take("Q")
        self._require(length, longest, "bytes of text")
        return self._bytes(length).decode("utf-8")

    def _take(self, form: str) -> tuple[int, ...]:
        form = f"<{form}"
        at = self._at
        self._skip(struct.calcsize(form))
        return struct.unpack_from(form, self._data, at)

    def _bytes(self, count: int) -> bytes:
        at = self._at
        self._skip(count)
        return self._data[at : self._at]

    def _skip(self, count: int) -> None:
        if count > self._end - self._at:
            raise ValueError(f"its header leads beyond byte {self._end}, where it ends or must end: fetch it again")
        self._at += count

    @staticmethod
    def _require(count: int, most: int, what: str) -> None:
        if count > most:
            raise ValueError(f"{count} {what}, of which {most} are read at most")
