"""TransformerLens: a `RemoteBridge` whose values come from a `TransparentLlm`. Needs the extra `[transformer-lens]`.

bridge = boot_transparent_llm(connect("gpu-box:50051"), "/models/gpt2")
logits, cache = bridge.run_with_cache("The cat sat on the", names_filter="blocks.3.hook_resid_post")
"""

from __future__ import annotations

from transparent_llm.extras import missing

try:
    from transparent_llm.integrations.transformer_lens.boot import boot_transparent_llm
    from transparent_llm.integrations.transformer_lens.bridge import TransparentLlmBridge
    from transparent_llm.integrations.transformer_lens.driver import TransparentLlmDriver
except ModuleNotFoundError as error:
    raise ImportError(missing(__name__, "transformer-lens", error)) from error

__all__ = ["TransparentLlmBridge", "TransparentLlmDriver", "boot_transparent_llm"]
