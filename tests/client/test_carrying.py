"""A client that is pickled or copied deeply: what goes with it, and what never does."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

from support.servers.servers import Watcher, running
from transparent_llm import RemoteTransparentLlm, errors

SECRET = "s3cret-of-one-user"


def test_a_pickle_has_target_and_settings_and_no_run() -> None:
    with running() as server:
        with RemoteTransparentLlm(server.address, model="tiny", timeout_s=17, cache_bytes=0) as llm:
            llm.run_tokens([[1, 2]])
            wanted = llm.logits()
            again = pickle.loads(pickle.dumps(llm))
        with again:
            assert repr(again) == f"<RemoteTransparentLlm('{server.address}', model='tiny'): no run yet>"
            assert again._config == llm._config
            with pytest.raises(errors.NotRunError):
                again.logits()
            again.run_tokens([[1, 2]])
            assert torch.equal(again.logits(), wanted)


def test_a_token_of_the_environment_goes_by_its_name_only(monkeypatch: pytest.MonkeyPatch) -> None:
    watcher = Watcher()
    monkeypatch.setenv("TRANSPARENT_LLM_TOKEN", SECRET)
    with running(watcher) as server:
        pickled = pickle.dumps(RemoteTransparentLlm(server.address))
        assert SECRET.encode() not in pickled
        monkeypatch.setenv("TRANSPARENT_LLM_TOKEN", "of-the-worker")
        with pickle.loads(pickled) as llm:
            llm.model_info()
    assert watcher.calls[-1][1]["authorization"] == "Bearer of-the-worker"
    monkeypatch.delenv("TRANSPARENT_LLM_TOKEN")
    with pytest.raises(errors.InvalidRequestError, match="pickled where TRANSPARENT_LLM_TOKEN is set, and here it is"):
        pickle.loads(pickled)


@pytest.mark.parametrize(
    ("name", "value"), [("token", SECRET), ("proxy", f"http://user:{SECRET}@proxy.example.com:3128")]
)
def test_a_secret_that_was_given_is_never_pickled(name: str, value: str) -> None:
    llm = RemoteTransparentLlm("127.0.0.1:1", **{name: value})  # type: ignore[arg-type]
    with pytest.raises(errors.InvalidRequestError, match=f"set TRANSPARENT_LLM_{name.upper()} instead") as caught:
        pickle.dumps(llm)
    assert SECRET not in str(caught.value)


def test_no_token_stays_none_where_the_environment_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    pickled = pickle.dumps(RemoteTransparentLlm("127.0.0.1:1"))
    monkeypatch.setenv("TRANSPARENT_LLM_TOKEN", SECRET)
    assert pickle.loads(pickled)._config.token is None


def test_a_deep_copy_has_a_run_of_its_own() -> None:
    with running() as server, RemoteTransparentLlm(server.address, token=SECRET) as llm:
        llm.run_tokens([[1, 2]])
        twin = copy.deepcopy({"model": llm})["model"]
        twin.run_tokens([[3], [4]])
        assert (llm.batch_size(), twin.batch_size()) == (1, 2)
        assert twin._calls is llm._calls
