"""A model that somebody changes after it was loaded: nothing answers from what it was, or from a mix."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from support.models.families import FAMILIES, build_model, build_tokenizer
from transparent_llm import TransparentLlm
from transparent_llm.errors import InvalidRequestError, NotFoundError
from transparent_llm.testing import serve_in_process
from transparent_llm_server import TransformerLensTransparentLlm

ROWS = [[1, 2, 3, 4, 5, 6, 7], [9, 8, 7]]
CHANGED = "the model's weights were changed since this was run: run it again"
Model = Any


def loaded(family: str = "llama_gqa", **options: Any) -> tuple[Model, TransformerLensTransparentLlm]:
    """A model, and what was made of it."""
    model = build_model(FAMILIES[family]())
    return model, TransformerLensTransparentLlm(family, hf_model=model, tokenizer=build_tokenizer(), **options)


@torch.no_grad()
def in_place(model: Model) -> None:
    model.model.layers[1].mlp.down_proj.weight.mul_(1.5)


def through_data(model: Model) -> None:
    model.model.layers[1].mlp.down_proj.weight.data.mul_(1.5)


def one_neuron(model: Model) -> None:
    """The usual way to ablate it."""
    model.model.layers[1].mlp.down_proj.weight.data[:, 5] = 0


def new_storage(model: Model) -> None:
    weight = model.model.layers[1].mlp.down_proj.weight
    weight.data = weight.data * 1.5


def new_parameter(model: Model) -> None:
    projection = model.model.layers[1].mlp.down_proj
    projection.weight = torch.nn.Parameter(projection.weight.detach() * 1.5)


def loading_a_state(model: Model) -> None:
    state = {name: tensor * 1.5 if "mlp" in name else tensor for name, tensor in model.state_dict().items()}
    model.load_state_dict(state)


def a_training_step(model: Model) -> None:
    model.train()
    weight = model.model.layers[1].mlp.down_proj.weight.requires_grad_()
    optimizer = torch.optim.AdamW([weight], lr=0.1)
    model(torch.tensor([ROWS[0]])).logits.sum().backward()
    optimizer.step()


def the_embedding(model: Model) -> None:
    model.model.embed_tokens.weight.data[:7] *= 1.5


EDITS = [
    in_place,
    through_data,
    one_neuron,
    new_storage,
    new_parameter,
    loading_a_state,
    a_training_step,
    the_embedding,
]

READS: list[Callable[[TransparentLlm], torch.Tensor]] = [
    lambda llm: llm.logits(),
    lambda llm: llm.residual_in(1),
    lambda llm: llm.residual_out(1),
    lambda llm: llm.residual_after_attn(1),
    lambda llm: llm.ffn_out(1),
    lambda llm: llm.attention_matrix(0, 1, 1),
    lambda llm: llm.attention_output(0, 1, 1),
    lambda llm: llm.attention_output(0, 1, 1, 1),
    lambda llm: llm.decomposed_attn(0, 1),
    lambda llm: llm.neuron_activations(0, 1, 1),
    lambda llm: llm.decomposed_ffn_out(0, 1, 1),
]
OF_WEIGHTS: list[Callable[[TransparentLlm], torch.Tensor]] = [
    lambda llm: llm.neuron_output(1, 5),
    lambda llm: llm.unembed(torch.linspace(-1, 1, 64), normalize=True),
]


def as_loaded_anew(model: Model, family: str = "llama_gqa") -> list[torch.Tensor]:
    """What a model with these weights gives, by an engine that has never known others."""
    plain = build_model(FAMILIES[family]())
    plain.load_state_dict(model.state_dict())
    llm = TransformerLensTransparentLlm(family, hf_model=plain, tokenizer=build_tokenizer())
    llm.run_tokens(ROWS)
    return [read(llm) for read in (*READS, *OF_WEIGHTS)]


def assert_all_equal(got: list[torch.Tensor], wanted: list[torch.Tensor]) -> None:
    for a, b in zip(got, wanted, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.__name__)
def test_a_run_after_an_edit_is_that_of_the_edited_model_with_another_digest(edit: Callable[[Model], None]) -> None:
    model, llm = loaded()
    before = llm.describe()
    llm.run_tokens(ROWS)
    edit(model)
    llm.run_tokens(ROWS)
    assert_all_equal([read(llm) for read in (*READS, *OF_WEIGHTS)], as_loaded_anew(model))
    after = llm.describe()
    assert after.digest != before.digest
    assert len(after.digest) == 64
    assert after.conventions["weights"].startswith("edited since the model was loaded")
    assert llm.describe() is after  # until the next edit
    edit(model)
    assert (llm.describe().digest != after.digest) == (edit is not one_neuron)  # which is 0 already


def value_or_error(read: Callable[[TransparentLlm], torch.Tensor], llm: TransparentLlm) -> torch.Tensor | NotFoundError:
    """What a read gives, or what its caller is told."""
    try:
        return read(llm)
    except NotFoundError as error:
        return error


def counted(edit: Callable[[Model], None]) -> bool:
    """Whether torch counts these writes, or the tensors are others; the rest is seen where weights are read."""
    return edit in (in_place, new_storage, new_parameter, loading_a_state, a_training_step)


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.__name__)
def test_a_run_before_an_edit_is_over(edit: Callable[[Model], None]) -> None:
    model, llm = loaded()
    llm.run_tokens(ROWS)
    kept = [read(llm) for read in READS]
    edit(model)
    told = 0
    for read, was in zip(READS, kept, strict=True):
        got = value_or_error(read, llm)
        told += isinstance(got, NotFoundError)
        assert isinstance(got, NotFoundError) or torch.equal(got, was)  # as that run was; never a mix
    assert told == len(READS) if counted(edit) else told < len(READS)
    llm.describe()  # looks at everything
    for read in READS:
        with pytest.raises(NotFoundError, match=CHANGED):
            read(llm)
    assert torch.equal(llm.tokens(), llm.copy().tokens())  # what was run is still known


@pytest.mark.parametrize(("family", "path"), [("llama_gqa", "lm_head"), ("gpt2", "transformer.ln_f")])
def test_logits_of_an_edited_unembedding_are_no_mix(family: str, path: str) -> None:
    model, llm = loaded(family)
    llm.run_tokens(ROWS)
    model.get_submodule(path).weight.data.mul_(2)
    with pytest.raises(NotFoundError, match=CHANGED):
        llm.logits()


@pytest.mark.parametrize("family", FAMILIES)
def test_every_weight_of_every_family_is_watched(family: str) -> None:
    """Each is edited by itself: the next run is that of the edited model."""
    model, llm = loaded(family)
    for name, parameter in list(model.named_parameters()):
        digest = llm.describe().digest
        parameter.data[::2] += 0.125
        llm.run_tokens(ROWS)
        assert llm.describe().digest != digest, name


def test_edits_that_are_reverted_before_anybody_looks_are_none_unless_they_were_counted() -> None:
    model, llm = loaded()
    digest, weight = llm.describe().digest, model.lm_head.weight
    weight.data.mul_(2)
    weight.data.div_(2)
    assert llm.describe().digest == digest
    with torch.no_grad():
        weight.mul_(1)
    assert llm.describe().digest != digest  # torch counted a write


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda model: model.double(), "it was cast, moved or reshaped"),
        (lambda model: model.half(), "it was cast, moved or reshaped"),
        (lambda model: model.to("meta"), "it was cast, moved or reshaped"),
        (lambda model: model.lm_head.register_forward_hook(lambda *_: None), "hooks were added to its modules"),
        (lambda model: model.model.layers[0].register_forward_pre_hook(lambda *_: None), "hooks were added to its"),
        (lambda model: setattr(model, "lm_head", torch.nn.Linear(64, 500)), "modules were added to it"),
        (lambda model: model.model.layers.pop(1), "modules were added to it or removed"),
        (lambda model: model.set_attn_implementation("sdpa"), "its attention was set to sdpa"),
    ],
)
def test_what_cannot_be_followed_is_refused(change: Callable[[Model], object], why: str) -> None:
    model, llm = loaded()
    change(model)
    with pytest.raises(InvalidRequestError, match=f"{why}.*load the model again"):
        llm.run_tokens(ROWS)


def test_a_hook_that_is_taken_off_again_does_no_harm() -> None:
    model, llm = loaded()
    llm.run_tokens(ROWS)
    wanted = llm.logits()
    hook = model.lm_head.register_forward_hook(lambda *_: None)
    with pytest.raises(InvalidRequestError):
        llm.run_tokens(ROWS)
    hook.remove()
    llm.run_tokens(ROWS)
    assert torch.equal(llm.logits(), wanted)


def test_a_model_in_training_mode_drops_nothing_and_stays_in_it() -> None:
    model, llm = loaded("gpt2")  # with dropout
    llm.run_tokens(ROWS)
    wanted = llm.logits()
    model.train()
    llm.run_tokens(ROWS)
    assert torch.equal(llm.logits(), wanted)
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("family", ["phi3_longrope", "llama_gqa", "gpt2"])
def test_runs_are_no_edits(family: str) -> None:
    """LongRoPE writes its frequencies again in every forward pass."""
    _, llm = loaded(family)
    digest = llm.describe().digest
    for length in (3, 40, 5):
        llm.run_tokens([list(range(1, length))])
        llm.logits()
    assert llm.describe().digest == digest


def test_weights_that_were_made_in_inference_mode_are_watched_too() -> None:
    with torch.inference_mode():
        model, llm = loaded("gpt2")
    llm.run_tokens(ROWS)
    assert model.lm_head.weight is model.transformer.wte.weight  # still tied
    digest = llm.describe().digest
    with torch.no_grad():
        model.transformer.h[0].mlp.c_proj.weight[3] = 0
    with pytest.raises(NotFoundError, match=CHANGED):
        llm.residual_out(1)
    assert llm.describe().digest != digest


# Served by this process


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.__name__)
def test_a_served_model_that_its_process_edits(edit: Callable[[Model], None]) -> None:
    model, local = loaded()
    with serve_in_process(local) as llm:
        llm.run_tokens(ROWS)
        first = [read(llm) for read in (*READS, *OF_WEIGHTS)]
        digest = llm.describe().digest
        edit(model)
        llm.run_tokens(ROWS)
        wanted = as_loaded_anew(model)
        assert not torch.equal(first[0], wanted[0])
        for _ in range(2):  # sent, then kept
            assert_all_equal([read(llm) for read in (*READS, *OF_WEIGHTS)], wanted)
        assert llm.describe().digest != digest
        assert "weights" in llm.describe().conventions


def test_a_client_whose_run_was_of_other_weights_is_told_so() -> None:
    model, local = loaded()
    with serve_in_process(local, cache_bytes=0) as llm:
        llm.run_tokens(ROWS)
        in_place(model)
        for read in READS:
            with pytest.raises(NotFoundError) as told:
                read(llm)
            assert told.value.reason == "MODEL_CHANGED"
        llm.run_tokens(ROWS)
        for read in READS:
            read(llm)
