"""Look inside a language model that runs somewhere else.

from transparent_llm import connect

llm = connect("gpu-box:50051")
llm.run(["The cat sat on the"])
llm.attention_matrix(batch_i=0, layer=3, head=1)
"""

from transparent_llm import waiting  # noqa: F401, I001 - first, as it must come before torch
from transparent_llm import errors
from transparent_llm.client.connect import connect
from transparent_llm.client.plan import PlannedRead
from transparent_llm.client.progress import Report
from transparent_llm.client.reads import ReadSpec
from transparent_llm.client.remote import RemoteTransparentLlm
from transparent_llm.contract import ModelInfo, TransparentLlm
from transparent_llm.description import Limits, ModelDescription, ModelState, ParityCheck, ServerInfo
from transparent_llm.runtime.run_warning import PaddingWarning, RunWarning
from transparent_llm.version import __version__

__all__ = [
    "Limits",
    "ModelDescription",
    "ModelInfo",
    "ModelState",
    "PaddingWarning",
    "ParityCheck",
    "PlannedRead",
    "ReadSpec",
    "RemoteTransparentLlm",
    "Report",
    "RunWarning",
    "ServerInfo",
    "TransparentLlm",
    "__version__",
    "connect",
    "errors",
]
