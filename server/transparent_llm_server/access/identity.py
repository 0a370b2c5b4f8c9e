"""Who calls: every run belongs to its owner."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterable, Mapping

import grpc

from transparent_llm.errors import AuthError, InvalidRequestError
from transparent_llm_server.access.bearer_tokens import BearerTokens
from transparent_llm_server.access.revoked import RevokedList

_TlsProperties = Mapping[str, Iterable[bytes]]

ANYONE = ""
"""The one owner where nobody has to say who they are."""

ADMINISTRATOR = "ADMIN="
"""Before the name of an administrator, who is nobody's owner of runs."""

_LONGEST_NAME = 200
_MISSING = {"problem": "missing"}


class Identity:
    """Finds the owner of a call: by its token, or else by its client certificate.

    Without tokens and certificates everybody is `ANYONE`. A token's owner is the name in the file. A certificate's is
    `CN=` and its common name, or `SAN=` and its first subject alternative name if it has no common name. No name in the
    file has a `=`, so a certificate never meets the runs of a token's owner, whatever its authority wrote into it.

    Raises:
        InvalidRequestError: somebody is revoked where nobody has to say who they are.
    """

    def __init__(
        self,
        bearer_tokens: BearerTokens | None = None,
        revoked: RevokedList | None = None,
        *,
        administrators: BearerTokens | None = None,
        certificates: bool = False,
    ) -> None:
        if revoked is not None and bearer_tokens is None and not certificates:
            raise InvalidRequestError("revoked has no effect here: require tokens or client certificates")
        self._bearer_tokens = bearer_tokens
        self._administrators = administrators
        self._revoked = revoked
        self._certificates = certificates
        self._is_open = bearer_tokens is None and administrators is None and not certificates
        self._owners: weakref.WeakKeyDictionary[grpc.ServicerContext, str] = weakref.WeakKeyDictionary()
        self._lock = threading.Lock()

    def owner_of(self, context: grpc.ServicerContext) -> str:
        """Whose runs this call may see. Found once for a call, whatever changes while it goes on.

        Raises:
            AuthError: neither a token nor a certificate, where one is wanted, or one that is wrong or revoked.
        """
        if self._is_open:
            return ANYONE
        owner = self.known(context)
        if owner is None:
            owner = self.owner_of_bearer_token(context.invocation_metadata())
            if owner is None:
                owner = _owner_of_certificate(_verified(context))
            self._admit(context, owner)
        return owner

    def admit_administrator(self, context: grpc.ServicerContext) -> None:
        """From here on the call's owner is the administrator.

        Raises:
            AuthError: as `administrator_of_bearer_token`, or the certificate that the call came with is revoked.
        """
        self._admit(context, self.administrator_of_bearer_token(context.invocation_metadata()))

    def _admit(self, context: grpc.ServicerContext, owner: str) -> None:
        if self._revoked is not None:
            _require_not_revoked(owner, _verified(context), self._revoked)
        with self._lock:
            self._owners[context] = owner

    def administrator_of_bearer_token(self, metadata: Iterable[tuple[str, str | bytes]]) -> str:
        """Which administrator a call's metadata says it is from, as the log has them.

        Raises:
            AuthError: there is no token, it is no administrator's, or has expired. Nobody else's token counts.
        """
        bearer_token = _bearer_token(metadata)
        if bearer_token is None:
            raise AuthError(
                "administrators need a token of their own: pass --token or set TRANSPARENT_LLM_ADMIN_TOKEN; it is made "
                "with `transparent-llm token NAME` and let in by the server's --admin-tokens file",
                metadata={"problem": "missing"},
            )
        name = self._administrators.owner_of(bearer_token) if self._administrators is not None else None
        if name is None:
            raise AuthError("this is no token of an administrator of this server", metadata={"problem": "unknown"})
        return f"{ADMINISTRATOR}{name}"

    def known(self, context: grpc.ServicerContext) -> str | None:
        """The owner, if the call was asked for it already."""
        with self._lock:
            return self._owners.get(context)

    def owner_of_bearer_token(self, metadata: Iterable[tuple[str, str | bytes]]) -> str | None:
        """Who a call's metadata says it is from; None if the certificate has to tell.

        Raises:
            AuthError: a token is wanted and there is none, or one that is wrong, expired or of a revoked owner.
        """
        if self._bearer_tokens is None:
            return None if self._certificates else ANYONE
        bearer_token = _bearer_token(metadata)
        if bearer_token is None and self._certificates:
            return None
        if bearer_token is None:
            raise AuthError(
                "this server requires a token: pass token=... or set TRANSPARENT_LLM_TOKEN (on the wire: the metadata "
                "`authorization: Bearer TOKEN`); its operator makes one with `transparent-llm token OWNER`",
                metadata={"problem": "missing"},
            )
        owner = self._bearer_tokens.owner_of(bearer_token)
        if owner is None:
            raise AuthError(
                "this server does not know the token; ask its operator whether it was replaced",
                metadata={"problem": "unknown"},
            )
        if self._revoked is not None:
            self._revoked.require_owner(owner)
        return owner


def _bearer_token(metadata: Iterable[tuple[str, str | bytes]]) -> str | None:
    """That a call brings; None if it brings none."""
    values = [str(value) for key, value in metadata if key == "authorization"]
    if not values:
        return None
    scheme, _, bearer_token = values[0].partition(" ")
    if len(values) > 1 or scheme.lower() != "bearer":
        raise AuthError(
            "the metadata `authorization` must be present exactly once and be `Bearer TOKEN`",
            metadata={"problem": "malformed"},
        )
    return bearer_token.strip()


def _verified(context: grpc.ServicerContext) -> _TlsProperties:
    """What TLS has verified of the caller."""
    return context.auth_context()  # type: ignore[return-value]  # lists of bytes, where the stubs say bytes


def _owner_of_certificate(properties: _TlsProperties) -> str:
    if not any(key.startswith("x509") for key in properties):
        raise AuthError("a call of a page needs a token: its certificate does not come with it", metadata=_MISSING)
    for prefix, key in (("CN", "x509_common_name"), ("SAN", "x509_subject_alternative_name")):
        name = next(iter(properties.get(key, ())), b"").decode("utf-8", "replace")
        if name:
            if len(name) > _LONGEST_NAME or not name.isprintable():
                raise _unnamed(f"the {prefix} of the client certificate is unprintable or over {_LONGEST_NAME} long")
            return f"{prefix}={name}"
    raise _unnamed("the client certificate has no common name and no subject alternative name: get one that has")


def _require_not_revoked(owner: str, properties: _TlsProperties, revoked: RevokedList) -> None:
    """By whatever the call has shown: a token does not make a revoked certificate good."""
    revoked.require_owner(owner)
    for pem in properties.get("x509_pem_cert", ()):
        revoked.require_certificate(pem)


def _unnamed(why: str) -> AuthError:
    return AuthError(why, metadata={"problem": "unnamed"})
