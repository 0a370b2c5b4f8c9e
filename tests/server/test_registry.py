"""Models by the names that clients use."""

from __future__ import annotations

import pytest

from support.families import FAMILIES, build_model, build_tokenizer
from support.reference import HuggingFaceReference
from transparent_llm.contract import TransparentLlm
from transparent_llm.errors import InvalidRequestError, NotFoundError
from transparent_llm_server.models.served import ServedModel, ServedTransparentLlm
from transparent_llm_server.registry import Registry


@pytest.fixture(scope="module")
def llm() -> TransparentLlm:
    return HuggingFaceReference(build_model(FAMILIES["gpt2"]()), build_tokenizer())


@pytest.fixture
def models(llm: TransparentLlm) -> dict[str, ServedModel]:
    return {name: ServedTransparentLlm(name, llm) for name in ("small", "large")}


@pytest.fixture
def registry(models: dict[str, ServedModel]) -> Registry:
    """Of both models."""
    registry = Registry()
    for model in models.values():
        registry.add(model)
    return registry


def test_a_model_is_found_by_its_name(registry: Registry, models: dict[str, ServedModel]) -> None:
    assert {name: registry.get(name) for name in models} == models


def test_models_are_listed_in_the_order_in_which_they_came(registry: Registry) -> None:
    assert [model.name for model in registry] == ["small", "large"]


def test_a_model_may_come_while_others_are_listed(models: dict[str, ServedModel]) -> None:
    registry = Registry()
    registry.add(models["small"])
    for model in registry:
        if model.name == "small":
            registry.add(models["large"])
    assert [model.name for model in registry] == ["small", "large"]


def test_an_empty_name_means_the_only_model(models: dict[str, ServedModel]) -> None:
    registry = Registry()
    registry.add(models["large"])
    assert registry.get("") is models["large"]


def test_an_empty_name_is_refused_where_there_are_several(registry: Registry) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        registry.get("")
    assert refused.value.message == "several models are served, name one: small, large"
    assert refused.value.reason == "MODEL_REQUIRED"
    assert refused.value.metadata == {"models": "small, large"}


@pytest.mark.parametrize("name", ["medium", "Small", "small ", "smal"])
def test_an_unknown_name_is_refused_with_those_that_exist(registry: Registry, name: str) -> None:
    with pytest.raises(NotFoundError) as refused:
        registry.get(name)
    assert refused.value.message == f"there is no model {name!r}; served are: small, large"
    assert refused.value.reason == "MODEL_NOT_FOUND"
    assert refused.value.metadata == {"model": name, "models": "small, large"}


def test_an_unknown_name_is_refused_also_where_there_is_only_one_model(models: dict[str, ServedModel]) -> None:
    registry = Registry()
    registry.add(models["small"])
    with pytest.raises(NotFoundError, match=r"^there is no model 'large'; served are: small$"):
        registry.get("large")


def test_a_name_is_given_once(registry: Registry, models: dict[str, ServedModel], llm: TransparentLlm) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        registry.add(ServedTransparentLlm("small", llm))
    assert refused.value.message == "two models are named 'small'; write --model ALIAS=NAME_OR_DIR"
    assert registry.get("small") is models["small"]


def test_a_server_without_models_does_not_speak_of_several() -> None:
    with pytest.raises((InvalidRequestError, NotFoundError)) as refused:
        Registry().get("")
    assert "several" not in refused.value.message
