"""The server side: a model in this process, and what serves it over gRPC."""

from transparent_llm.extras import missing

try:
    from transparent_llm_server.models.transformer_lens import TransformerLensTransparentLlm
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(missing(__name__, "server", error), name=error.name) from error

__all__ = ["TransformerLensTransparentLlm"]
