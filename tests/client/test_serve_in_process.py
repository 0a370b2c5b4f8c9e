"""`serve_in_process` puts any implementation of the contract behind a real server."""

from __future__ import annotations

import pytest
import torch

from support.models.families import FAMILIES, build_model, build_tokenizer
from support.models.reference import HuggingFaceReference
from support.servers.servers import tiny
from transparent_llm import RemoteTransparentLlm, errors
from transparent_llm.testing import serve_in_process


def test_an_implementation_that_is_none_of_ours() -> None:
    theirs = HuggingFaceReference(build_model(FAMILIES["gpt2"]()), build_tokenizer(), name="theirs")
    with serve_in_process(theirs) as llm:
        assert isinstance(llm, RemoteTransparentLlm)
        assert llm.model_info() == theirs.model_info()
        llm.run(["The river", "a"])
        theirs.run(["The river", "a"])
        assert torch.equal(llm.tokens(), theirs.tokens())
        assert torch.equal(llm.mask(), theirs.mask())
        assert torch.equal(llm.logits(), theirs.logits())
        assert torch.equal(llm.decomposed_attn(1, 1), theirs.decomposed_attn(1, 1))
        llm.run_tokens([[1, 2, 3]])
        other = llm.copy()
        other.run(["something else"])
        assert llm.tokens().tolist() == [[1, 2, 3]]
        theirs.run_tokens([[1, 2, 3]])
        assert torch.equal(llm.residual_out(0), theirs.residual_out(0))


def test_closing_the_client_stops_the_server() -> None:
    llm = serve_in_process(tiny())
    address = llm.server.address
    assert llm.model_info().name == "gpt2"
    llm.close()
    with RemoteTransparentLlm(address, timeout_s=60) as late, pytest.raises(errors.UnavailableError):
        late.model_info()


def test_options_go_to_the_client() -> None:
    with serve_in_process(tiny(), rerun=False) as llm:
        llm.run_tokens([[1, 2]])
        llm.release()
        with pytest.raises(errors.NotFoundError):
            llm.logits()
