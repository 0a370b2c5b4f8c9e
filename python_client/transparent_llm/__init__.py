"""Look inside a language model that runs somewhere else.

from transparent_llm import connect

llm = connect("gpu-box:50051")
llm.run(["The cat sat on the"])
llm.attention_matrix(batch_i=0, layer=3, head=1)
"""

from transparent_llm import errors
from transparent_llm.client.connect import connect
from transparent_llm.client.remote import RemoteTransparentLlm
from transparent_llm.contract import ModelInfo, TransparentLlm
from transparent_llm.version import __version__

__all__ = ["ModelInfo", "RemoteTransparentLlm", "TransparentLlm", "__version__", "connect", "errors"]
