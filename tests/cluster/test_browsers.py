"""What a page can do through Envoy: gRPC-Web, and JSON for the small calls."""

from __future__ import annotations

import base64
import gzip
import http.client
import json
from typing import Any

import pytest
from google.rpc import error_details_pb2, status_pb2

from cluster.conftest import Cluster
from cluster.load import expected, rows
from support.models.tensors import assert_same_bits
from support.network.grpc_web import web_call
from support.servers.polling import wait_until
from transparent_llm.run_input import RunInput
from transparent_llm.wire import requests
from transparent_llm.wire._gen import service_pb2
from transparent_llm.wire.assembler import Assembler
from transparent_llm.wire.methods import RUN_KEY_HEADER
from transparent_llm_server.http.answer import STRICT
from transparent_llm_server.http.files import BUILT, TYPES

pytestmark = pytest.mark.measured

PAGE = "http://localhost:5173"
WORDS = "the secret of the king"
PAGE_FILES = {"/": "index.html", "/page.css": "page.css", "/page.js": "page.js"}
ON_ALL_FILES = ("x-content-type-options", "cross-origin-resource-policy")


def test_a_page_runs_and_reads(cluster: Cluster) -> None:
    key = {RUN_KEY_HEADER: "0123"}
    request = requests.run(RunInput.of_tokens(rows(0)), "")
    ran = web_call(cluster.proxy.address, "Run", request.SerializeToString(), origin=PAGE, **key)
    assert ran.trailers["grpc-status"] == "0"
    assert ran.headers["access-control-allow-origin"] == PAGE
    run_id = service_pb2.RunResponse.FromString(ran.messages[0]).run_id
    read = requests.of_method("logits", run_id)
    answer = web_call(cluster.proxy.address, "Logits", read.SerializeToString(), **key)
    assert answer.trailers["grpc-status"] == "0"
    assert len(answer.messages) > 1
    assembler = Assembler()
    for message in answer.messages:
        assembler.add(message)
    ((_, logits),) = assembler.tensors()
    assert_same_bits(logits, expected(0)[("logits",)])


def test_a_page_is_told_errors_with_their_reason(cluster: Cluster) -> None:
    answer = web_call(cluster.proxy.address, "Logits", requests.of_method("logits", "gone").SerializeToString())
    assert answer.trailers["grpc-status"] == "5"
    text = answer.trailers["grpc-status-details-bin"]
    status = status_pb2.Status.FromString(base64.b64decode(text + "=" * (-len(text) % 4)))
    info = error_details_pb2.ErrorInfo()
    status.details[0].Unpack(info)
    assert info.reason == "RUN_NOT_FOUND"


def test_a_page_may_ask_first(cluster: Cluster) -> None:
    connection = http.client.HTTPConnection(cluster.proxy.address, timeout=30)
    wanted = f"authorization,content-type,x-grpc-web,{RUN_KEY_HEADER}"
    headers = {"origin": PAGE, "access-control-request-method": "POST", "access-control-request-headers": wanted}
    connection.request("OPTIONS", "/transparent_llm.v1.TransparentLlmService/Run", headers=headers)
    response = connection.getresponse()
    response.read()
    connection.close()
    assert response.status == 200
    assert response.headers["access-control-allow-origin"] == PAGE
    assert set(wanted.split(",")) <= set(response.headers["access-control-allow-headers"].split(","))
    assert "POST" in response.headers["access-control-allow-methods"]


@pytest.mark.parametrize("page", ["https://page.example", "http://localhost.page.example", "null"])
def test_pages_of_others_are_not_let_in(cluster: Cluster, page: str) -> None:
    """Not even where the browser asks nobody first, or takes the page for one of this host by its name."""
    body = json.dumps({"sentences": {"sentences": ["a"]}})
    for kind in ("text/plain", "application/json", "application/grpc-web+proto"):
        for host in (cluster.proxy.address, "page.example:50051"):
            connection = http.client.HTTPConnection(cluster.proxy.address, timeout=30)
            connection.request("POST", "/v1/run", body, {"origin": page, "content-type": kind, "host": host})
            response = connection.getresponse()
            response.read()
            connection.close()
            assert response.status == 403
    connection = http.client.HTTPConnection(cluster.proxy.address, timeout=30)
    headers = {"origin": page, "access-control-request-method": "POST"}
    connection.request("OPTIONS", "/transparent_llm.v1.TransparentLlmService/Run", headers=headers)
    response = connection.getresponse()
    response.read()
    connection.close()
    assert response.headers["access-control-allow-origin"] is None


def ask(cluster: Cluster, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    connection = http.client.HTTPConnection(cluster.proxy.address, timeout=30)
    text = None if body is None else json.dumps(body)
    connection.request(method, path, text, {"content-type": "application/json"} if text else {})
    response = connection.getresponse()
    data = response.read()
    connection.close()
    try:
        return response.status, json.loads(data)
    except ValueError:
        return response.status, data.decode()


def test_the_server_describes_itself_in_json(cluster: Cluster) -> None:
    status, info = ask(cluster, "GET", "/v1/server_info")
    assert status == 200
    assert info["models"][0]["info"]["name"] == "demo"
    assert info["models"][0]["info"]["n_layers"] == 4


def test_sentences_run_in_json(cluster: Cluster) -> None:
    status, run = ask(cluster, "POST", "/v1/run", {"sentences": {"sentences": ["My lord", "What say you?"]}})
    assert status == 200
    assert (run["batch_size"], run["n_pos"]) == (2, len(run["token_ids"]) // 2)
    status, named = ask(cluster, "POST", "/v1/tokens_to_strings", {"token_ids": run["token_ids"]})
    assert (status, named["strings"]) == (200, run["token_strings"])


def test_errors_come_in_json(cluster: Cluster) -> None:
    status, error = ask(cluster, "POST", "/v1/run", {"model": "nope", "sentences": {"sentences": ["a"]}})
    assert status == 404
    assert error["details"][0]["reason"] == "MODEL_NOT_FOUND"
    assert error["message"] == "there is no model 'nope'; the models are: demo"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/", 404),
        ("GET", "/page", 404),
        ("GET", "/page.js.gz", 404),
        ("POST", "/v1/logits", 404),
        ("GET", "/v1/run", 404),
        ("POST", "/admin.Service/Stop", 404),
    ],
)
def test_what_is_not_there_is_not_found(cluster: Cluster, method: str, path: str, status: int) -> None:
    assert ask(cluster, method, path)[0] == status


@pytest.mark.parametrize("path", PAGE_FILES)
def test_the_page_is_there(cluster: Cluster, path: str) -> None:
    """The files that a server's own port has, under as strict headers."""
    file = BUILT / PAGE_FILES[path]
    connection = http.client.HTTPConnection(cluster.proxy.address, timeout=30)
    connection.request("GET", path)
    response = connection.getresponse()
    data = response.read()
    connection.close()
    assert response.status == 200
    assert (gzip.decompress(data) if response.headers["content-encoding"] == "gzip" else data) == file.read_bytes()
    assert response.headers.get_all("content-type") == [TYPES[file.suffix]]
    assert response.headers["cache-control"] == "no-cache"
    strict = dict(STRICT) if path == "/" else {name: dict(STRICT)[name] for name in ON_ALL_FILES}
    assert {name: response.headers[name] for name in strict} == strict


def test_the_admin_interface_is_not_to_be_had_from_other_hosts(cluster: Cluster) -> None:
    def status(path: str) -> int:
        connection = http.client.HTTPConnection(cluster.proxy.stats_address, timeout=30)
        connection.request("GET", path)
        found = connection.getresponse().status
        connection.close()
        return found

    assert [status(path) for path in ("/ready", "/stats/prometheus")] == [200, 200]
    assert [status(path) for path in ("/", "/config_dump", "/quitquitquit", "/stats")] == [404] * 4


def test_the_log_has_the_call_and_not_what_was_said(cluster: Cluster) -> None:
    before = len(cluster.proxy.calls())
    ask(cluster, "POST", "/v1/run", {"sentences": {"sentences": [WORDS]}})
    wait_until(lambda: any(call["path"] == "/v1/run" for call in cluster.proxy.calls()[before:]))
    text = cluster.proxy.log.read_text(encoding="utf-8")
    assert WORDS not in text
    assert "secret" not in text
