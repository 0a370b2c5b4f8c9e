"""The server side: a model in this process, and what serves it over gRPC."""

from importlib.util import find_spec

from transparent_llm.extras import missing
from transparent_llm_server.models.transformer_lens import TransformerLensTransparentLlm

for _module in ("transformers", "transformer_lens"):  # which are imported only when a model is loaded
    if find_spec(_module) is None:
        _error = ModuleNotFoundError(name=_module)
        raise ModuleNotFoundError(missing(__name__, "server", _error), name=_module)

__all__ = ["TransformerLensTransparentLlm"]
