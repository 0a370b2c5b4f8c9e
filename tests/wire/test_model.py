"""What a server says of itself arrives exactly as it was."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from transparent_llm.contract import ModelInfo
from transparent_llm.description import (
    DatasetDescription,
    Limits,
    ModelDescription,
    ModelState,
    ParityCheck,
    SaeDescription,
    ServerInfo,
)
from transparent_llm.wire import dtypes, model, requests
from transparent_llm.wire._gen import model_pb2, service_pb2

INFO = ModelInfo(name="gpt2", n_params_estimate=2**40, n_layers=12, n_heads=13, d_model=768, d_vocab=50257)
DESCRIPTION = ModelDescription(
    info=INFO,
    digest="0" * 64,
    architecture="GPT2LMHeadModel",
    dtype=torch.bfloat16,
    device="cuda:1",
    n_ctx=1024,
    d_ffn=(3072, 0, 4096),
    prepends_bos=True,
    pad_token_id=50256,
    parity=(ParityCheck("logits_vs_huggingface", 1.1e-7, 1e-4), ParityCheck("attention_sum", 0.0, math.inf)),
    unsupported={"NeuronOutput": "layers 0 have no neurons", "AttentionMatrix": "layers 1 have no heads"},
    run_bytes_per_position=73_728,
    run_bytes_per_position_pair=48,
    state=ModelState.FAILED,
    aliases=("small", "kleines"),
    detail="the folder is gone — weg",
    revision="main",
    quantization="torchao-int8",
    devices={"cuda:0": 6, "disk": 6},
    weight_bytes=2**41,
    on_demand=True,
    engine="taps",
    saes=(SaeDescription("res1", "residual_out.1", "ffn_out.2", "transcoder", 128, 2**17, 64, "ab" * 32, 2**33),),
    conventions={"padding": "right", "bias": "no head's, no neuron's — überhaupt"},
)
LIMITS = Limits(
    max_tokens_per_run=2**33,
    max_sentences_per_run=1024,
    run_store_bytes=2**42,
    run_ttl_seconds=0.1,
    max_chunk_bytes=2**22,
    queue_length=256,
    max_read_bytes=2**40,
    run_bytes_per_owner=2**41,
    max_streams=160,
    max_streams_per_owner=64,
    model_bytes=2**43,
    max_text_bytes=2**21,
    max_items=4096,
    max_read_work=2**60,
    vector_store_bytes=2**40,
    vector_bytes_per_owner=2**39,
    vectors_per_owner=4096,
    max_vector_elements=2**18,
    max_sweep_cells=16_384,
    max_sweep_positions=2**40,
)
SERVER = ServerInfo(
    api_version="1.0",
    server_version="0.1.0",
    models=(DESCRIPTION, ModelDescription(dataclasses.replace(INFO, name="other"), digest="1" * 64)),
    limits=LIMITS,
    features=("slices", "resume"),
    versions={"torch": "2.13.0", "python": "3.11.2"},
    stored_runs=3,
    stored_run_bytes=2**41,
    datasets=(DatasetDescription("facts", 12), DatasetDescription("names", 1000)),
)


def described(description: ModelDescription) -> ModelDescription:
    """The description after it travelled."""
    data = model.description_to_wire(description).SerializeToString()
    return model.description_from_wire(model_pb2.ModelDescription.FromString(data))


def has_default(field: dataclasses.Field[object], value: object) -> bool:
    return value in (field.default, 0, "", (), {})


def test_the_examples_leave_no_field_at_its_default() -> None:
    for example in (INFO, DESCRIPTION, LIMITS, SERVER):
        left = [f.name for f in dataclasses.fields(example) if has_default(f, getattr(example, f.name))]
        assert left == []


def test_model_info_arrives_as_it_was() -> None:
    data = model.info_to_wire(INFO).SerializeToString()
    assert model.info_from_wire(model_pb2.ModelInfo.FromString(data)) == INFO


def test_a_description_arrives_as_it_was() -> None:
    assert described(DESCRIPTION) == DESCRIPTION


def test_a_description_of_which_nothing_is_known_arrives_as_it_was() -> None:
    bare = ModelDescription(info=INFO, digest="")
    assert described(bare) == bare


@pytest.mark.parametrize("dtype", dtypes.WIRE_BY_TORCH, ids=str)
def test_any_dtype_is_described(dtype: torch.dtype) -> None:
    assert described(dataclasses.replace(DESCRIPTION, dtype=dtype)).dtype is dtype


@pytest.mark.parametrize("state", ModelState)
def test_any_state_is_described(state: ModelState) -> None:
    assert described(dataclasses.replace(DESCRIPTION, state=state)).state is state


def test_a_model_of_a_server_that_knows_no_states_is_loaded() -> None:
    assert model.description_from_wire(model_pb2.ModelDescription()).state is ModelState.LOADED


def test_a_parity_error_that_is_no_number_stays_none() -> None:
    check = ParityCheck("attention_sum", math.nan, 1e-4)
    (got,) = described(dataclasses.replace(DESCRIPTION, parity=(check,))).parity
    assert math.isnan(got.max_abs_error)
    assert not got.passed


def test_a_server_info_arrives_as_it_was() -> None:
    data = model.server_to_wire(SERVER).SerializeToString()
    assert model.server_from_wire(service_pb2.ServerInfoResponse.FromString(data)) == SERVER


def test_models_keep_their_order() -> None:
    swapped = dataclasses.replace(SERVER, models=SERVER.models[::-1])
    assert [m.info.name for m in model.server_from_wire(model.server_to_wire(swapped)).models] == ["other", "gpt2"]


def test_asking_needs_no_words() -> None:
    assert requests.server_info() == service_pb2.ServerInfoRequest()
