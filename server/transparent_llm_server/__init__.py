"""The server side: a model in this process, and what serves it over gRPC."""

from transparent_llm_server.models.transformer_lens import TransformerLensTransparentLlm

__all__ = ["TransformerLensTransparentLlm"]
