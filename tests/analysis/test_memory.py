"""What analyses keep in memory: never a vector for each pair of positions and each head."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from support.models.families import FAMILIES, build_model, build_tokenizer
from transparent_llm.analysis.analyses import ANALYSES
from transparent_llm_server import TransformerLensTransparentLlm

N_TOKENS = 256

READS = {
    "attn_contributions": [(0, 1, norm) for norm in ("l1", "l2")],
    "contribution_edges": [(0, 1, 0.04, renormalize, norm) for renormalize in (False, True) for norm in ("l1", "l2")],
    "source_attribution": [(0, 1, -1, 7), (0, 1, -1, 7, 8)],
    "logit_attribution": [(0, 1, -1, 7)],
    "value_weighted_norms": [(0, 1)],
    "attention_matrices": [(0, 1)],
    "head_scores": [(0, 1, "induction"), (0, 1, "entropy")],
}


class Largest(TorchDispatchMode):
    """The bytes of the largest tensor that an operation gave."""

    def __init__(self) -> None:
        super().__init__()
        self.nbytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor) and not leaf.is_sparse:
                self.nbytes = max(self.nbytes, leaf.untyped_storage().nbytes())
        return result


@cache
def run_of(family: str) -> TransformerLensTransparentLlm:
    config = FAMILIES[family]()
    config.update({"n_positions": N_TOKENS} if family == "gpt2" else {"max_position_embeddings": N_TOKENS})
    llm = TransformerLensTransparentLlm(family, hf_model=build_model(config), tokenizer=build_tokenizer())
    llm.run_tokens([[5 + i % 90 for i in range(N_TOKENS)]])
    return llm


@pytest.mark.parametrize("family", ["gpt2", "llama_gqa", "gemma2"])  # one whose gain differs among targets, too
@pytest.mark.parametrize("name", READS)
def test_no_vector_for_each_pair_of_positions_is_kept(family: str, name: str) -> None:
    """A sixteenth of it at the most, weights counted in; what is kept of a pair and a head is some numbers."""
    llm = run_of(family)
    info = llm.model_info()
    dense = N_TOKENS * N_TOKENS * info.n_heads * info.d_model * 4
    for arguments in READS[name]:
        with Largest() as largest:
            ANALYSES[name](llm, *arguments)
        assert 0 < largest.nbytes <= dense // 16, f"{arguments}: {largest.nbytes} of {dense} bytes"


def test_a_dense_value_would_be_seen() -> None:
    llm = run_of("gpt2")
    with Largest() as largest:
        dense = llm.decomposed_attn(0, 1)
    assert largest.nbytes >= dense.nbytes
