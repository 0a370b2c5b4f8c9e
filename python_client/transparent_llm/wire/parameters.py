"""Arguments of a method that are no indices: numbers, choices and lists, as the fields of a request say them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

from transparent_llm.errors import InvalidRequestError, TooLargeError
from transparent_llm.quoting import kind_of, quoted
from transparent_llm.runtime.indexing import integer
from transparent_llm.runtime.numbers import finite_number

Argument = int | float | str | tuple[int, ...] | None
"""Of a method: an index or a parameter. Hashable."""

LONGEST_NAME = 256
"""Characters of an argument that is a name."""

MOST_NUMBERS = 4096
"""In one list."""

_REPEATED = 3
"""What `label` says of a list in versions of protobuf that do not say `is_repeated`."""

_LARGEST = {FieldDescriptor.TYPE_UINT32: 2**32 - 1, FieldDescriptor.TYPE_INT32: 2**31 - 1}


@dataclass(frozen=True)
class Parameter:
    """A field of a request."""

    name: str
    field_type: int
    is_list: bool
    choices: tuple[str, ...] = ()
    """Of an enum, in the order of their numbers from 1 on: "in" of RESIDUAL_POINT_IN and so on."""

    size_of: str | None = None
    """The axis of the answer that is as long as this says."""

    all_if_empty: bool = False
    """Whether an empty list stands for the whole axis."""

    @property
    def default(self) -> Argument:
        """What an argument is that is left out."""
        if self.choices:
            return self.choices[0]
        if self.is_list:
            return ()
        if self.field_type == FieldDescriptor.TYPE_STRING:
            return ""
        return 0.0 if self.field_type == FieldDescriptor.TYPE_DOUBLE else 0

    def checked(self, method: str, got: object) -> Argument:
        """An argument as a caller wrote it.

        Raises:
            InvalidRequestError: it is of another type, no such choice, or a number that no field holds.
            TooLargeError: a list that is longer than any request may have.
        """
        if self.choices:
            return self._chosen(method, got)
        if self.is_list:
            return self._listed(method, got)
        if self.field_type == FieldDescriptor.TYPE_DOUBLE:
            return self._float(method, got)
        if self.field_type == FieldDescriptor.TYPE_STRING:
            return self._name(method, got)
        if self.field_type == FieldDescriptor.TYPE_BOOL:
            return self._bool(method, got)
        return self._number(got)

    def read(self, request: Any) -> Argument:
        """The argument in a request.

        Raises:
            InvalidRequestError: a choice that is not known here, or a number that is none.
            TooLargeError: a list that is too long.
        """
        got = getattr(request, self.name)
        if self.choices:
            return self._numbered(got)
        if self.is_list:
            self._require_few(len(got))
            return tuple(got)
        if self.field_type == FieldDescriptor.TYPE_DOUBLE:
            return finite_number(self.name, got)
        if self.field_type == FieldDescriptor.TYPE_STRING:
            return self._name("a request", got)
        return int(got)

    def field(self, argument: Argument) -> Any:
        """What stands in the request for an argument that was checked."""
        return self.choices.index(str(argument)) + 1 if self.choices else argument

    def size(self, argument: Argument) -> int | None:
        """The length that the argument gives to its axis; None: that of the whole."""
        if isinstance(argument, tuple):
            return len(argument) if argument or not self.all_if_empty else None
        assert isinstance(argument, int)
        return argument

    def _chosen(self, method: str, got: object) -> str:
        if not isinstance(got, str) or got not in self.choices:
            known = ", ".join(f'"{choice}"' for choice in self.choices)
            shown = quoted(got) if isinstance(got, str) else kind_of(got)
            raise InvalidRequestError(
                f"{self.name} of {method} must be one of {known}, got {shown}", metadata={"argument": self.name}
            )
        return got

    def _numbered(self, number: int) -> str:
        if not 0 <= number <= len(self.choices):
            raise InvalidRequestError(
                f"{self.name} {number} is not known; known are 1 to {len(self.choices)}: {', '.join(self.choices)}",
                metadata={"argument": self.name, "got": str(number)},
            )
        return self.choices[max(0, number - 1)]

    def _listed(self, method: str, got: object) -> tuple[int, ...]:
        if isinstance(got, str | bytes) or not hasattr(got, "__iter__"):
            raise InvalidRequestError(
                f"{self.name} of {method} must be a list of integers, got {kind_of(got)}",
                metadata={"argument": self.name},
            )
        listed = tuple(islice(got, MOST_NUMBERS + 1))
        self._require_few(len(listed), "or more ")
        return tuple(self._number(each) for each in listed)

    def _require_few(self, count: int, or_more: str = "") -> None:
        if count > MOST_NUMBERS:
            raise TooLargeError(
                f"{self.name} has {count} {or_more}numbers, at most {MOST_NUMBERS} are taken; ask several times",
                metadata={"needed": str(count), "allowed": str(MOST_NUMBERS)},
            )

    def _number(self, got: object) -> int:
        number = integer(self.name, got)
        largest = _LARGEST.get(self.field_type, 2**31 - 1)
        least = 0 if self.field_type == FieldDescriptor.TYPE_UINT32 else -largest - 1
        if not least <= number <= largest:
            raise InvalidRequestError(
                f"{self.name} {number} is out of range: {least} to {largest} are numbers that it can be",
                metadata={"argument": self.name, "got": str(number)},
            )
        return number

    def _float(self, method: str, got: object) -> float:
        return finite_number(f"{self.name} of {method}", got)

    def _name(self, method: str, got: object) -> str:
        if not isinstance(got, str) or len(got) > LONGEST_NAME:
            shown = f"{len(got)} characters" if isinstance(got, str) else kind_of(got)
            raise InvalidRequestError(
                f"{self.name} of {method} must be a name of at most {LONGEST_NAME} characters, got {shown}",
                metadata={"argument": self.name},
            )
        return got

    def _bool(self, method: str, got: object) -> int:
        if not isinstance(got, bool) and got not in (0, 1):
            raise InvalidRequestError(
                f"{self.name} of {method} must be True or False, got {kind_of(got)}", metadata={"argument": self.name}
            )
        return int(bool(got))


def parameter_of(field: FieldDescriptor, size_of: str, *, all_if_empty: bool) -> Parameter:
    """The parameter that a field of a request is."""
    is_list: bool = field.is_repeated if hasattr(field, "is_repeated") else getattr(field, "label", 0) == _REPEATED
    return Parameter(field.name, field.type, is_list, _choices(field), size_of or None, all_if_empty)


def _choices(field: FieldDescriptor) -> tuple[str, ...]:
    """Names of an enum's values but the one with number 0, which says what they all begin with."""
    if field.enum_type is None:
        return ()
    values = sorted(field.enum_type.values, key=lambda value: int(value.number))
    prefix = values[0].name.removesuffix("UNSPECIFIED")
    return tuple(value.name.removeprefix(prefix).lower() for value in values[1:])
