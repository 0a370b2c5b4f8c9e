"""The models that ran, as their server describes them."""

from __future__ import annotations

from transparent_llm.client.transport.calls import Calls
from transparent_llm.contract import ModelInfo
from transparent_llm.description import Limits, ModelDescription, ServerInfo
from transparent_llm.errors import NotSupportedError
from transparent_llm.runtime.forking import lock_of
from transparent_llm.wire import requests, responses

UNKNOWN_MODEL = ModelDescription(ModelInfo("", 0, 0, 0, 0, 0), digest="", dtype=None)
"""Of a run whose model was not asked for, or is not served any more, or not by the server that was asked: no index is
known to be right, and of what comes nothing can be expected."""

UNKNOWN_LIMITS = Limits(0, 0, 0, 0.0, 0, 0)


class Models:
    """By their digests, under which nothing of them changes. Shared by a client and its copies."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._by_digest: dict[str, ModelDescription] = {}
        self._features: frozenset[str] | None = None
        self.limits = UNKNOWN_LIMITS
        """Of the server, if it was asked."""

        self._lock = lock_of(self)  # one question is enough for all threads

    def ask(self) -> ServerInfo:
        """What the server says about itself now; its models need not be asked for again."""
        info = self._calls.unary("ServerInfo", requests.server_info(), responses.server_info)
        self._by_digest.update({model.digest: model for model in info.models if model.digest})
        self._features, self.limits = frozenset(info.features), info.limits
        return info

    def find(self, digest: str) -> None:
        """Ask for the model with this digest, unless that was done, or `connect` was told of it."""
        with self._lock:
            if digest not in self._by_digest:
                self.ask()
                self._by_digest.setdefault(digest, UNKNOWN_MODEL)

    def known(self, digest: str) -> ModelDescription:
        """The model with this digest, if it was asked for. No call is made."""
        return self._by_digest.get(digest, UNKNOWN_MODEL)

    def require(self, feature: str) -> None:
        """See `offers`: an older server would do something else.

        Raises:
            NotSupportedError: it cannot.
        """
        if not self.offers(feature):
            raise NotSupportedError(f"this server knows no {feature}; its version is too old")

    def offers(self, feature: str) -> bool:
        """Whether the server can do this; it is asked if that was not done yet."""
        if self._features is None:
            self.ask()
        return self.has(feature)

    def has(self, feature: str) -> bool:
        """Whether the server, if it was asked for a model, said that it can do this. No call is made."""
        return feature in (self._features or ())
