"""What is answered to a request that is no call: a status, headers that let a page do little, and a body."""

from __future__ import annotations

from collections.abc import Sequence

from transparent_llm_server.http.request import Send

_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
NOSNIFF = ("x-content-type-options", "nosniff")
STRICT = (
    ("content-security-policy", _POLICY),
    NOSNIFF,
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("permissions-policy", "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()"),
)
"""On everything that a browser could show."""

Headers = Sequence[tuple[str, str]]


async def begin(send: Send, status: int, headers: Headers) -> None:
    """Answer a status and headers."""
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    await send({"type": "http.response.start", "status": status, "headers": raw})


async def add(send: Send, body: bytes, *, more: bool) -> None:
    """Answer a piece of the body, once there is room for it; without `more` it is the last."""
    await send({"type": "http.response.body", "body": body, "more_body": more})


async def answer(send: Send, status: int, headers: Headers, body: bytes = b"") -> None:
    """Answer all at once, with the strict headers."""
    length = () if status == 304 else (("content-length", str(len(body))),)
    await begin(send, status, [*STRICT, *headers, *length])
    await add(send, body, more=False)


async def refuse(send: Send, status: int, words: str, headers: Headers = ()) -> None:
    """Answer why not, in words."""
    await answer(send, status, [("content-type", "text/plain; charset=utf-8"), *headers], f"{words}\n".encode())
