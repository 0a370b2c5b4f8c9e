"""Who may call a server, as its settings say: the files of tokens and certificates, and those who are revoked."""

from __future__ import annotations

import ssl
from collections.abc import Callable

from transparent_llm.errors import AuthError
from transparent_llm_server.access.audit_log import Tell
from transparent_llm_server.access.bearer_tokens import BearerTokens
from transparent_llm_server.access.certificates import certificates
from transparent_llm_server.access.identity import Identity
from transparent_llm_server.access.revoked import RevokedList
from transparent_llm_server.config.server import ServerConfig


class Access:
    """The files of one server; `tell` hears when they are read again.

    Raises:
        InvalidRequestError: one of them cannot be used.
    """

    def __init__(self, config: ServerConfig, tell: Tell) -> None:
        self.certificates = certificates(config, tell)
        """For its ports; None: it speaks without TLS."""

        self._bearer_tokens = BearerTokens(config.tokens_file, tell=tell) if config.tokens_file is not None else None
        self._admin_tokens = (
            BearerTokens(config.admin_tokens_file, tell=tell) if config.admin_tokens_file is not None else None
        )
        self._revoked = RevokedList(config.revoked_file, tell=tell) if config.revoked_file is not None else None
        self.identity = Identity(
            self._bearer_tokens,
            self._revoked,
            administrators=self._admin_tokens,
            certificates=config.tls_client_ca is not None,
        )
        """Who calls."""

    @property
    def contexts(self) -> Callable[[], ssl.SSLContext] | None:
        """For connections that are not gRPC's own; None: they are without TLS."""
        return self.certificates.contexts() if self.certificates is not None else None

    def may_call(self, authorization: str | None) -> bool:
        """Whether a call with this header would be let through by its token, as far as it needs one."""
        try:
            self.identity.owner_of_bearer_token([] if authorization is None else [("authorization", authorization)])
        except AuthError:
            return False
        return True

    def require_certificate(self, pem: bytes) -> None:
        """Refuse a verified client certificate that is not good any more.

        Raises:
            AuthError: it is revoked.
        """
        if self._revoked is not None:
            self._revoked.require_certificate(pem)

    def read_again(self) -> None:
        """Now, and say in the log what came of it; the files are also watched."""
        for files in (self._bearer_tokens, self._admin_tokens, self._revoked, self.certificates):
            if files is not None:
                files.read_again()
