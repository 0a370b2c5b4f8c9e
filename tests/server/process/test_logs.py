"""What the log of a server at DEBUG says: nothing that was asked, no token; sentences only where that is wanted."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.servers.owners import BearerTokenFile
from support.servers.polling import wait_until
from support.servers.servers import running
from transparent_llm import RemoteTransparentLlm, errors
from transparent_llm_server.incidents import places
from transparent_llm_server.models.derived.run import RunValues
from transparent_llm_server.models.serving import ServedTransformerLens

WORDS = ("zanzibar", "quokka")
SENTENCE = " ".join(WORDS)
IDS = [417, 283, 391]


@pytest.fixture
def everything(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """The log of all libraries too, at the level that says most."""
    with caplog.at_level(logging.DEBUG):
        yield caplog


def break_down(what: type, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on it fails with the words of the prompt in its error, and in the one that led to it."""

    def broken(*arguments: Any, **_: Any) -> None:
        try:
            {}[SENTENCE]
        except KeyError as error:
            raise RuntimeError(f"cannot do {SENTENCE}, {arguments}") from error

    monkeypatch.setattr(what, name, broken)


def live_through_all(address: str, token: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Successes, refusals and incidents; the incidents' ids."""
    incidents = []
    with RemoteTransparentLlm(address, token=f"{token}-wrong") as stranger:
        with pytest.raises(errors.AuthError):
            stranger.run([SENTENCE])
    with RemoteTransparentLlm(address, token=token, rerun=False) as llm:
        llm.run([SENTENCE])
        llm.logits()
        llm.unembed(llm.residual_out(0)[0, 0], normalize=True)
        llm.tokens_to_strings(llm.tokens()[0])
        llm.run_tokens([IDS])
        llm.fetch([("residual_in", 0), ("ffn_out", 1)])
        for refused in (
            lambda: llm.residual_in(9),
            lambda: llm.run([SENTENCE] * 2000),
            lambda: llm.run([SENTENCE * 1000]),
            lambda: llm.run_tokens([[*IDS, 10**6]]),
        ):
            with pytest.raises(errors.TransparentLlmError):
                refused()
        with monkeypatch.context() as broken:
            break_down(RunValues, "residual_after_attn", broken)
            break_down(ServedTransformerLens, "prepare", broken)
            for failing in (lambda: llm.residual_after_attn(1), lambda: llm.run([SENTENCE])):
                with pytest.raises(errors.InternalError) as caught:
                    failing()
                assert not any(word in str(caught.value) for word in WORDS)
                incidents.append(caught.value.metadata["incident"])
        with monkeypatch.context() as broken:
            break_down(ServedTransformerLens, "execute", broken)
            with pytest.raises(errors.InternalError) as caught:
                llm.run([f"{SENTENCE} again"])
            incidents.append(caught.value.metadata["incident"])
    return incidents


def test_neither_prompts_nor_tokens_are_logged(
    everything: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = BearerTokenFile(tmp_path / "tokens", "alice")
    token = file.bearer_tokens["alice"]
    with running(tokens_file=file.path) as server:
        incidents = live_through_all(server.address, token, monkeypatch)
        file.path.write_text(f"alice {token}\n")  # in the wrong place
        with RemoteTransparentLlm(server.address, token=token) as llm:
            wait_until(lambda: llm.is_serving() and llm.model_info() and "stay in effect" in everything.text)
    log = everything.text + "".join(capfd.readouterr())
    for expected in ("Run OK", "Run UNAUTHENTICATED", "ResidualIn OUT_OF_RANGE", "Run INTERNAL", " of alice"):
        assert expected in log
    for incident in incidents:
        assert f"incident {incident}" in log
    assert "builtins.KeyError\nwhich led to\n" in log
    for secret in (*WORDS, ", ".join(map(str, IDS)), token, hashlib.sha256(token.encode()).hexdigest()):
        assert secret not in log


def test_prompts_are_logged_where_that_is_wanted_and_tokens_are_not(
    everything: pytest.LogCaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = BearerTokenFile(tmp_path / "tokens", "alice")
    token = file.bearer_tokens["alice"]
    with running(tokens_file=file.path, log_prompts=True) as server:
        live_through_all(server.address, token, monkeypatch)
    runs = [record.getMessage() for record in everything.records if record.name.endswith("prepared_runs")]
    assert any(f"of alice: ('{SENTENCE}',)" in run for run in runs)
    assert any(f"of alice: ({tuple(IDS)},)" in run for run in runs)
    assert f"cannot do {SENTENCE}" in everything.text
    assert token not in everything.text


def test_an_incident_tells_types_and_places_without_words() -> None:
    def fail(words: str) -> None:
        try:
            raise ValueError(words)
        except ValueError:
            raise KeyError(words)  # noqa: B904 - its context, not its cause

    with pytest.raises(KeyError) as caught:
        fail("".join(("no", "where")))
    told = places(caught.value)
    first, second = told.split("\nwhich led to\n")
    assert first.endswith("builtins.ValueError")
    assert second.endswith("builtins.KeyError")
    assert told.count("in fail") == 2
    assert "nowhere" not in told


def test_errors_that_lead_to_each_other_are_told_once() -> None:
    first, second = ValueError(), KeyError()
    first.__cause__, second.__cause__ = second, first
    assert places(first) == "builtins.KeyError\nwhich led to\nbuiltins.ValueError"
