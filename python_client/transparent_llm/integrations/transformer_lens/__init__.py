"""TransformerLens: a `RemoteBridge` whose values come from a `TransparentLlm`. Needs the extra `[transformer-lens]`.

bridge = boot_transparent_llm(connect("gpu-box:50051"), "/models/gpt2")
logits, cache = bridge.run_with_cache("The cat sat on the", names_filter="blocks.3.hook_resid_post")
"""

from __future__ import annotations

try:
    from transparent_llm.integrations.transformer_lens.boot import boot_transparent_llm
    from transparent_llm.integrations.transformer_lens.bridge import TransparentLlmBridge
    from transparent_llm.integrations.transformer_lens.driver import TransparentLlmDriver
except ModuleNotFoundError as error:
    missing = str(error.name).partition(".")[0]
    raise ImportError(
        f"transparent_llm.integrations.transformer_lens requires TransformerLens 4.3, but {missing} is not "
        "installed: pip install 'transparent-llm[transformer-lens]'"
    ) from error

__all__ = ["TransparentLlmBridge", "TransparentLlmDriver", "boot_transparent_llm"]
