"""Models by the names that clients use."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import pytest

from support.models.families import FAMILIES, build_model, build_tokenizer
from support.models.reference import HuggingFaceReference
from support.servers.engines import SOON
from support.servers.polling import wait_until
from transparent_llm.contract import TransparentLlm
from transparent_llm.description import ModelState
from transparent_llm.errors import InternalError, InvalidRequestError, NotFoundError, TooLargeError, UnavailableError
from transparent_llm_server.models.serving import ServedModel
from transparent_llm_server.models.serving_contract import ServedTransparentLlm
from transparent_llm_server.registry.registry import LoadRules, Registry
from transparent_llm_server.registry.slot import ModelSource


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


def named(registry: Registry, name: str) -> ServedModel:
    with registry.use(name) as model:
        return model


def test_a_model_is_found_by_its_name(registry: Registry, models: dict[str, ServedModel]) -> None:
    assert {name: named(registry, name) for name in models} == models


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
    assert named(registry, "") is models["large"]


def test_an_empty_name_is_refused_where_there_are_several(registry: Registry) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        named(registry, "")
    assert refused.value.message == "several models are served, name one: small, large"
    assert refused.value.reason == "MODEL_REQUIRED"
    assert refused.value.metadata == {"models": "small, large"}


@pytest.mark.parametrize("name", ["medium", "Small", "small ", "smal"])
def test_an_unknown_name_is_refused_with_those_that_exist(registry: Registry, name: str) -> None:
    with pytest.raises(NotFoundError) as refused:
        named(registry, name)
    assert refused.value.message == f"there is no model {name!r}; the models are: small, large"
    assert refused.value.reason == "MODEL_NOT_FOUND"
    assert refused.value.metadata == {"model": name, "models": "small, large"}


def test_an_unknown_name_is_refused_also_where_there_is_only_one_model(models: dict[str, ServedModel]) -> None:
    registry = Registry()
    registry.add(models["small"])
    with pytest.raises(NotFoundError, match=r"^there is no model 'large'; the models are: small$"):
        named(registry, "large")


def test_a_name_is_given_once(registry: Registry, models: dict[str, ServedModel], llm: TransparentLlm) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        registry.add(ServedTransparentLlm("small", llm))
    assert refused.value.message == "two models are named 'small'; write --model ALIAS=NAME_OR_DIR"
    assert named(registry, "small") is models["small"]


def test_a_server_without_models_does_not_speak_of_several() -> None:
    with pytest.raises((InvalidRequestError, NotFoundError)) as refused:
        named(Registry(), "")
    assert "several" not in refused.value.message


# Models that are loaded when they are asked for; here their loads do what a test wants


def sized(llm: TransparentLlm, name: str, nbytes: int) -> ServedModel:
    model = ServedTransparentLlm(name, llm)
    model.description = replace(model.description, weight_bytes=nbytes)
    return model


def offered(model: ServedModel, before: Callable[[], object] = lambda: None) -> ModelSource:
    """Of a size that only loading tells."""

    def load(tell: Callable[[str], None]) -> ServedModel:
        tell("reading weights")
        before()
        return model

    return ModelSource(model.name, load, on_demand=True)


def states(registry: Registry) -> dict[str, ModelState]:
    return {known.info.name: known.state for known in registry.descriptions()}


def loaded(registry: Registry, name: str) -> ServedModel:
    came: list[ServedModel] = []

    def come() -> bool:
        with suppress(UnavailableError):
            came.append(named(registry, name))
        return bool(came)

    wait_until(come)
    return came[0]


def test_a_model_of_unknown_size_that_never_fits_is_refused_when_it_is_known(llm: TransparentLlm) -> None:
    unloaded: list[ServedModel] = []
    registry = Registry(LoadRules(max_bytes=100, failed_retry_s=0.0), on_unload=unloaded.append)
    registry.offer(offered(sized(llm, "large", 101)))
    with pytest.raises(UnavailableError):
        named(registry, "large")
    wait_until(lambda: states(registry)["large"] is ModelState.FAILED)
    for _ in range(2):  # now before it is loaded
        with pytest.raises(
            TooLargeError, match="model 'large' takes 101 bytes, of model_bytes = 100 the pinned models l"
        ):
            named(registry, "large")
    assert states(registry)["large"] is ModelState.FAILED
    registry.close(SOON)


def test_a_model_that_is_not_served_after_all_leaves_memory(llm: TransparentLlm, no_collector: None) -> None:
    made: list[weakref.ref[ServedModel]] = []

    def load(_: Callable[[str], None]) -> ServedModel:
        model = sized(llm, "large", 101)
        model.knows_itself = model  # type: ignore[attr-defined]  # as modules of a bridge do
        made.append(weakref.ref(model))
        return model

    registry = Registry(LoadRules(max_bytes=100))
    registry.offer(ModelSource("large", load, on_demand=True))
    with pytest.raises(UnavailableError):
        named(registry, "large")
    wait_until(lambda: made and made[0]() is None)
    assert states(registry)["large"] is ModelState.FAILED
    registry.close(SOON)


def test_models_of_unknown_size_that_do_not_fit_together_leave_when_it_is_known(llm: TransparentLlm) -> None:
    unloaded: list[ServedModel] = []
    registry = Registry(LoadRules(max_bytes=100), on_unload=unloaded.append)
    first, second = sized(llm, "first", 60), sized(llm, "second", 60)
    registry.offer(offered(first))
    registry.offer(offered(second))
    assert loaded(registry, "first") is first
    assert loaded(registry, "second") is second
    assert states(registry) == {"first": ModelState.UNLOADED, "second": ModelState.LOADED}
    wait_until(lambda: unloaded == [first])
    with (
        pytest.raises(NotFoundError, match="its model 'first' was unloaded; send Run again") as gone,
        registry.hold(first),
    ):
        pass
    assert gone.value.reason == "RUN_NOT_FOUND"
    registry.close(SOON)


def test_what_is_too_much_leaves_when_its_last_call_ends(llm: TransparentLlm) -> None:
    registry = Registry(LoadRules(max_bytes=100))
    first, second = sized(llm, "first", 60), sized(llm, "second", 60)
    registry.offer(offered(first))
    registry.offer(offered(second))
    loaded(registry, "first")
    with registry.use("first"), registry.hold(first):
        assert loaded(registry, "second") is second
        assert states(registry) == {"first": ModelState.LOADED, "second": ModelState.UNLOADED}
    assert states(registry) == {"first": ModelState.LOADED, "second": ModelState.UNLOADED}
    registry.close(SOON)


def test_a_loaded_model_waits_for_those_who_asked_for_it(llm: TransparentLlm) -> None:
    registry = Registry(LoadRules(max_bytes=100, retry_after_s=SOON))
    registry.offer(replace(offered(sized(llm, "first", 60)), weight_bytes=60))
    registry.offer(replace(offered(sized(llm, "second", 60)), weight_bytes=60))
    with pytest.raises(UnavailableError):
        named(registry, "first")
    wait_until(lambda: states(registry)["first"] is ModelState.LOADED)
    with pytest.raises(UnavailableError, match="cannot be loaded yet, waiting for memory: first in use"):
        named(registry, "second")
    named(registry, "first")  # somebody came
    with pytest.raises(UnavailableError, match="model 'second' is being loaded"):
        named(registry, "second")
    assert states(registry)["first"] is ModelState.UNLOADED
    registry.close(SOON)


def test_others_are_found_while_one_is_loaded_and_loads_wait_for_each_other(llm: TransparentLlm) -> None:
    go_on, registry = threading.Event(), Registry()
    small = sized(llm, "small", 1)
    registry.add(small)
    registry.offer(offered(sized(llm, "slow", 1), lambda: go_on.wait(SOON)))
    registry.offer(offered(sized(llm, "next", 1)))
    with pytest.raises(UnavailableError):
        named(registry, "slow")
    with pytest.raises(UnavailableError, match="model 'next' is being loaded: waiting for another model to be loaded"):
        named(registry, "next")
    wait_until(lambda: [known.detail for known in registry.descriptions()][1] == "reading weights")
    assert named(registry, "small") is small
    go_on.set()
    wait_until(lambda: set(states(registry).values()) == {ModelState.LOADED})
    registry.close(SOON)


def test_a_bug_in_a_load_is_an_incident(llm: TransparentLlm) -> None:
    def fail() -> None:
        raise RuntimeError("words that nobody else should read")

    registry = Registry()
    registry.offer(offered(sized(llm, "odd", 1), fail))
    with pytest.raises(UnavailableError):
        named(registry, "odd")
    wait_until(lambda: states(registry)["odd"] is ModelState.FAILED)
    with pytest.raises(
        InternalError, match=r"^RuntimeError in loading model 'odd', incident \w+; the server's log has t"
    ):
        named(registry, "odd")
    registry.close(SOON)


def test_a_load_ends_at_its_next_step_when_the_server_does(llm: TransparentLlm) -> None:
    begun, go_on, registry = threading.Event(), threading.Event(), Registry()
    model = sized(llm, "slow", 1)

    def load(tell: Callable[[str], None]) -> ServedModel:
        begun.set()
        assert go_on.wait(SOON)
        tell("checking")
        return model

    registry.offer(ModelSource("slow", load, on_demand=True))
    with pytest.raises(UnavailableError):
        named(registry, "slow")
    assert begun.wait(SOON)
    registry.close(timeout_s=0.0)
    go_on.set()
    wait_until(lambda: states(registry)["slow"] is ModelState.FAILED)
