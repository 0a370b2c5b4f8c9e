"""The models of a server, by the names that clients use."""

from __future__ import annotations

from collections.abc import Iterator

from transparent_llm.errors import InvalidRequestError, NotFoundError
from transparent_llm_server.models.served import ServedModel


class Registry:
    """Models by name; an empty name means the only one."""

    def __init__(self) -> None:
        self._models: dict[str, ServedModel] = {}

    def __iter__(self) -> Iterator[ServedModel]:
        return iter(list(self._models.values()))

    def states(self) -> dict[str, int]:
        """How many models there are in each state."""
        return {"loaded": len(self._models)}

    def add(self, model: ServedModel) -> None:
        """Serve one more.

        Raises:
            InvalidRequestError: the name is taken.
        """
        if model.name in self._models:
            raise name_taken(model.name)
        self._models[model.name] = model

    def get(self, name: str) -> ServedModel:
        """The model that a request names.

        Raises:
            NotFoundError: there is no such model.
            InvalidRequestError: the request names none and several are served.
        """
        if name in self._models:
            return self._models[name]
        names = ", ".join(self._models)
        if name:
            raise NotFoundError(
                f"there is no model {name!r}; served are: {names}",
                reason="MODEL_NOT_FOUND",
                metadata={"model": name, "models": names},
            )
        if not self._models:
            raise NotFoundError("no model is served", reason="MODEL_NOT_FOUND", metadata={"model": "", "models": ""})
        if len(self._models) != 1:
            raise InvalidRequestError(
                f"several models are served, name one: {names}", reason="MODEL_REQUIRED", metadata={"models": names}
            )
        return next(iter(self._models.values()))


def name_taken(name: str) -> InvalidRequestError:
    """The error for a second model of one name."""
    return InvalidRequestError(f"two models are named {name!r}; write --model ALIAS=NAME_OR_DIR")
