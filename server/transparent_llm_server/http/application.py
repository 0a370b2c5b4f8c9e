"""What becomes of a request: a file, a call, or words why neither."""

from __future__ import annotations

from transparent_llm_server.http.answer import refuse
from transparent_llm_server.http.files import Files
from transparent_llm_server.http.gateway import PATHS, Gateway
from transparent_llm_server.http.grpc_web import MEDIA_TYPES
from transparent_llm_server.http.origins import Origins
from transparent_llm_server.http.request import Receive, Request, Scope, Send

_READS = ("GET", "HEAD")


class Application:
    """An ASGI application."""

    def __init__(self, origins: Origins, files: Files, gateway: Gateway, most_head_bytes: int) -> None:
        self._origins, self._files, self._gateway = origins, files, gateway
        self._most_head_bytes = most_head_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request.of(scope)
        if request.head_bytes > self._most_head_bytes:
            await refuse(send, 431, f"a head of {request.head_bytes} bytes; at most {self._most_head_bytes} are taken")
        elif why_not := self._origins.why_not_asked(request):
            await refuse(send, 421, why_not)
        elif request.method == "POST" and not self._files.has(request.path):
            await self._call(request, receive, send)
        elif request.method in _READS and self._files.has(request.path):
            await self._files.answer(request, send)
        else:
            await _explain(request, send, is_file=self._files.has(request.path))

    async def _call(self, request: Request, receive: Receive, send: Send) -> None:
        media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if why_not := self._origins.why_no_call(request):
            await refuse(send, 403, why_not)
        elif media_type not in MEDIA_TYPES:
            wanted = " or ".join(sorted(MEDIA_TYPES))
            await refuse(send, 415, f"calls are of the type {wanted}, and this is {media_type[:100]!r}")
        else:
            await self._gateway.answer(request, receive, send)


async def _explain(request: Request, send: Send, *, is_file: bool) -> None:
    if is_file:
        await refuse(send, 405, "this is a file: GET it", [("allow", "GET, HEAD")])
    elif request.path in PATHS:
        await refuse(send, 405, "this is a call: POST it as gRPC-Web", [("allow", "POST")])
    elif request.method in _READS:
        await refuse(send, 404, "there is no such file")
    else:
        await refuse(send, 405, "files are read with GET, and calls made with POST", [("allow", "GET, HEAD, POST")])
