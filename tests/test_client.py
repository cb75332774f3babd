"""Tests of `qoderdata.client.Client`: the request it sends, single records, settings, proxies and TLS."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import warnings
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from qoderdata import __version__, errors
from qoderdata.client import Client
from qoderdata.client.client import _read_object
from qoderdata.decode import from_records, jsontext
from qoderdata.schema import SESSIONS
from tests.test_client_limits import TLS, listening

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

    from conftest import FastClock, ScriptedService


class TestSentRequest:
    def test_request_headers(self, service: ScriptedService) -> None:
        Client("pt-secret", service.base_url).get("/deployments", {}, len)
        headers = service.requests[0].headers
        assert headers["Authorization"] == "Bearer pt-secret"
        assert headers["User-Agent"] == f"qoderdata/{__version__}"
        assert headers["Accept"] == "application/json"
        assert "gzip" in headers["Accept-Encoding"]
        assert "qoder-workspace-id" not in headers

    def test_workspace_id_is_sent_as_a_header(self, service: ScriptedService) -> None:
        client = Client("pt-secret", service.base_url, "ws_1")
        client.get("/deployments", {}, len)
        assert client.workspace_id == "ws_1"
        assert service.requests[0].headers["qoder-workspace-id"] == "ws_1"

    def test_list_parameter_is_sent_as_repeated_parameters(self, service: ScriptedService) -> None:
        Client("pt-secret", service.base_url).get(
            "/sessions", {"statuses[]": ["idle", "running"], "limit": "1"}, len
        )
        assert service.requests[0].raw_path.endswith("?statuses%5B%5D=idle&statuses%5B%5D=running&limit=1")

    def test_path_and_query_parameters_arrive_unchanged(self, service: ScriptedService) -> None:
        params = {"limit": "1000", "created_at[gte]": "2026-06-15T00:00:00+08:00", "agent_id": "a&b=c d"}
        Client("pt-secret", service.base_url).get("/deployments", params, len)
        assert service.requests[0].path == "/api/v1/cloud/deployments"
        assert service.requests[0].query == params

    def test_cookies_from_a_response_are_not_sent_back(self, service: ScriptedService) -> None:
        """A gateway between client and service may set one."""
        service.respond_with(service.response(Set_Cookie="who=me; Path=/"))
        client = Client("pt-secret", service.base_url)
        client.get("/deployments", {}, len)
        client.get("/deployments", {}, len)
        assert "Cookie" not in service.requests[1].headers

    def test_connection_is_reused_for_all_requests(self, service: ScriptedService) -> None:
        service.respond_with(
            service.response(body=b"x" * 1_000_000), service.response(404, b"<html>"), service.response(body=b"")
        )
        client = Client("pt-secret", service.base_url)
        assert client.get("/deployments", {}, len) == 1_000_000
        with pytest.raises(errors.NotFoundError):
            client.get("/deployments", {}, len)
        assert client.get("/deployments", {}, len) == 0
        assert len({request.port for request in service.requests}) == 1

    def test_close_ends_connections_and_client_stays_usable(self, service: ScriptedService) -> None:
        with Client("pt-secret", service.base_url) as client:
            client.get("/deployments", {}, len)
        client.get("/deployments", {}, len)
        assert len({request.port for request in service.requests}) == 2


class TestGetOneRecord:
    def test_get_deployment_keeps_large_integers_exact(self, service: ScriptedService) -> None:
        """Also numbers that neither a float nor a 64-bit integer can hold."""
        body = b'{"id": "dep_1", "n": 9007199254740993, "m": 18446744073709551617}'
        service.respond_with(service.response(body=body))
        record = Client("pt-secret", service.base_url).get_deployment("dep_1")
        assert record == {"id": "dep_1", "n": 9007199254740993, "m": 18446744073709551617}
        assert service.requests[0].path == "/api/v1/cloud/deployments/dep_1"

    @pytest.mark.parametrize(
        ("get", "path"), [(Client.get_run, "deployment_runs"), (Client.get_session, "sessions")]
    )
    def test_run_or_session_is_requested_by_its_id(
        self, service: ScriptedService, get: Callable[[Client, str], dict[str, Any]], path: str
    ) -> None:
        service.respond_with(service.response(body=b'{"id": "one"}'))
        assert get(Client("pt-secret", service.base_url), "one") == {"id": "one"}
        assert service.requests[0].path == f"/api/v1/cloud/{path}/one"

    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("0", 0),
            ("-7", -7),
            ("1.50", Decimal("1.50")),
            ("1e400", Decimal("1e400")),
            ("-0", Decimal("-0")),
            ("12" * 50, int("12" * 50)),
            ("1" * 5000, Decimal("1" * 5000)),
            ("1e99999999999999999999", "1e99999999999999999999"),
        ],
        ids=lambda value: f"{value!s:.10}",
    )
    def test_numbers_keep_all_digits(self, service: ScriptedService, text: str, value: object) -> None:
        service.respond_with(service.response(body=f'{{"n": {text}, "in": [{{"n": [{text}]}}]}}'.encode()))
        record = Client("pt-secret", service.base_url).get_run("run_1")
        for number in (record["n"], record["in"][0]["n"][0]):
            assert (type(number), str(number) if len(text) < 4000 else number) == (
                type(value),
                str(value) if len(text) < 4000 else value,
            )

    def test_single_record_converts_to_the_same_row_as_in_a_page(self, service: ScriptedService) -> None:
        body = (
            b'{"id": "sess_1", "usage": {"total_credits": 1.50, "input_tokens": -0},'
            b' "stats": {"active_seconds": 1e400}, "new": [1.50, 12345678901234567890123, {"a": 0.10}]}'
        )
        service.respond_with(service.response(body=body))
        client = Client("pt-secret", service.base_url)
        with warnings.catch_warnings(action="ignore", category=errors.DataQualityWarning):
            rows = [
                from_records([record], SESSIONS).to_pylist()[0]
                for record in (client.get_session("sess_1"), jsontext.parse(b"[%b]" % body)[0])
            ]
        assert rows[0].pop("extra").replace("1E+400", "1e400") == rows[1].pop("extra")
        assert rows[0] == rows[1]
        assert (rows[0]["usage_total_credits"], rows[0]["usage_input_tokens"]) == (1.5, 0)

    @pytest.mark.parametrize(
        "body", [b'{"a": "\\ud800"}', b'{"a": 1e400}', b'{"a": %b}' % (b"9" * 5000), b'{"a": 1.50, "b": -0}']
    )
    def test_single_record_is_parsed_like_a_record_in_a_page(self, service: ScriptedService, body: bytes) -> None:
        service.respond_with(service.response(body=body))
        record = Client("pt-secret", service.base_url).get("/deployment_runs/run_1", {}, _read_object)
        assert [record] == jsontext.parse(b'{"data": [%b]}' % body, plain=True)["data"]
        assert service.requests[0].path == "/api/v1/cloud/deployment_runs/run_1"

    @pytest.mark.parametrize(
        ("id_", "segment"),
        [
            ("../deployment_runs", "..%2Fdeployment_runs"),
            ("x/../../y", "x%2F..%2F..%2Fy"),
            ("x?limit=1", "x%3Flimit%3D1"),
            ("x#y", "x%23y"),
            ("%2e%2e", "%252e%252e"),
            ("..%2f", "..%252f"),
            ("a b\r\nX: y", "a%20b%0D%0AX%3A%20y"),
            ("中文", "%E4%B8%AD%E6%96%87"),
            ("...", "..."),
            ("@evil.example/", "%40evil.example%2F"),
        ],
    )
    def test_id_is_escaped_to_one_path_segment(self, service: ScriptedService, id_: str, segment: str) -> None:
        Client("pt-secret", service.base_url).get_deployment(id_)
        assert service.requests[0].raw_path == f"/api/v1/cloud/deployments/{segment}"

    @pytest.mark.parametrize("id_", ["", "  ", ".", "..", "\ud800", None, float("nan"), 5])
    def test_invalid_id_raises_value_error_without_a_request(self, service: ScriptedService, id_: Any) -> None:  # noqa: ANN401
        client = Client("pt-secret", service.base_url)
        for get in (client.get_deployment, client.get_run, client.get_session):
            with pytest.raises(
                ValueError, match=r"is not the id of anything|this run has no session|surrogates not allowed"
            ):
                get(id_)
        assert service.requests == []

    @pytest.mark.parametrize("body", [b"[]", b"null", b'"text"', b"1", b"[" * 5000 + b"]" * 5000])
    def test_json_other_than_an_object_raises_without_a_retry(self, service: ScriptedService, body: bytes) -> None:
        """The JSON is complete, so that a retry would not help."""
        service.respond_with(service.response(body=body))
        with pytest.raises(errors.APIResponseValidationError) as caught:
            Client("pt-secret", service.base_url).get_deployment("dep_1")
        assert caught.value.request_id == "req_scripted"
        assert len(service.requests) == 1


class TestClientSettings:
    def test_environment_variables_replace_missing_arguments(
        self, service: ScriptedService, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("QODER_PAT", "pt-env")
        monkeypatch.setenv("QODER_MANAGED_BASE_URL", service.base_url + "/")
        client = Client()
        assert client.base_url == service.base_url
        client.get("/deployments", {}, len)
        assert service.requests[0].headers["Authorization"] == "Bearer pt-env"

    def test_constructor_sends_no_request(self, service: ScriptedService) -> None:
        client = Client("pt-secret", service.base_url)
        assert client.page_limit is None
        assert service.requests == []

    def test_importing_client_does_not_import_the_http_library(self) -> None:
        """Its import takes half as long as that of this package, and analysing a frame does not need it."""
        program = "import sys, qoderdata.client; sys.exit('requests' in sys.modules or 'urllib3' in sys.modules)"
        subprocess.run([sys.executable, "-c", program], check=True)

    def test_account_depends_on_the_token_only(self) -> None:
        one, same, other = Client("pt-1"), Client(" pt-1 ", "https://other.example"), Client("pt-2")
        assert one.account == same.account != other.account

    def test_account_with_a_name_does_not_depend_on_the_token(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("QODERDATA_ACCOUNT", "staging")
        for token in ("pt-1", "pt-2"):
            monkeypatch.setenv("QODER_PAT", token)
            assert Client().account == "staging"
            assert Client(account="production").account == "production"
            assert Client(token, account="production").account == "production"

    def test_account_of_the_environment_is_not_that_of_a_given_token(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        without = Client("pt-1").account
        monkeypatch.setenv("QODERDATA_ACCOUNT", "staging")
        assert Client("pt-1").account == without

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"account": "pt-1"}, "the argument account must be a name of your choice: .* no access token"),
            ({"account": 1}, "account must be a str or None, not int"),
            ({"min_interval": -0.1}, "min_interval=-0.1"),
            ({"min_interval": float("nan")}, "min_interval=nan"),
            ({"min_interval": "1"}, "min_interval='1'"),
            ({"max_retries": -1}, "max_retries=-1"),
            ({"max_retries": 1.5}, "max_retries=1.5"),
            ({"max_retries": True}, "max_retries=True"),
            ({"timeout": 0}, "timeout=0"),
            ({"timeout": None}, "timeout=None"),
            ({"timeout": (1, float("inf"))}, "timeout=inf"),
            ({"timeout": (1, 2, 3)}, r"timeout=\(1, 2, 3\)"),
            ({"timeout": 1e10}, "timeout=10000000000.0 must be .* at most 1,000,000"),
            ({"min_interval": 1e12}, "min_interval=1000000000000.0 must be .* at most 1,000,000"),
            ({"base_url": "https://exa mple.com/x"}, "is not an absolute http"),
            ({"base_url": "https://*.example.com"}, "the base URL has a host that is not valid"),
            ({"max_pages": 0}, "max_pages=0"),
            ({"max_pages": 1e6}, "max_pages=1000000.0"),
            ({"max_response_bytes": 0}, "max_response_bytes=0"),
            ({"max_response_bytes": None}, "max_response_bytes=None"),
            ({"workspace_id": "a\nb"}, "workspace_id"),
            ({"workspace_id": 123}, "workspace_id must be a str or None, not int"),
            ({"base_url": 123}, "base_url must be a str or None, not int"),
            ({"base_url": "http://api.qoder.com"}, "unencrypted"),
        ],
    )
    def test_invalid_argument_raises_value_error_that_names_it(
        self, arguments: dict[str, object], message: str
    ) -> None:
        with pytest.raises(ValueError, match=message):
            Client("pt-secret", **arguments)  # type: ignore[arg-type] # invalid on purpose

    def test_missing_token_raises_credential_error(self) -> None:
        with pytest.raises(errors.CredentialError, match="QODER_PAT"):
            Client()

    def test_single_timeout_sets_connect_and_read_timeouts(self) -> None:
        assert Client("pt-secret", timeout=3)._transport._timeout == (3.0, 3.0)
        assert Client("pt-secret", timeout=[1, 2.5])._transport._timeout == (1.0, 2.5)  # type: ignore[arg-type] # a list
        assert Client("pt-secret", timeout=np.int64(3))._transport._timeout == (3.0, 3.0)  # type: ignore[arg-type] # of NumPy


@contextlib.contextmanager
def recording_server(answer: bytes = b"", *, tls: bool = False) -> Iterator[tuple[int, list[bytes]]]:
    """Listen on loopback, record all requests, and send the same response to each."""
    received: list[bytes] = []

    def talk(stream: socket.socket) -> None:
        received.append(stream.recv(65536))
        stream.sendall(answer)

    with listening(talk, tls=tls) as port:
        yield port, received


class TestProxiesAndTls:
    def test_https_proxy_does_not_receive_the_token(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with recording_server(b"HTTP/1.1 407 No\r\n\r\n") as (port, received):
            monkeypatch.setenv("HTTPS_PROXY", f"http://me:proxypassword@127.0.0.1:{port}")
            with pytest.raises(errors.APIConnectionError, match=r"the proxy failed.*HTTPS_PROXY") as caught:
                Client("pt-secret", "https://api.qoder.example", max_retries=0).get("/deployments", {}, len)
        assert received[0].startswith(b"CONNECT api.qoder.example:443 ")
        assert b"pt-secret" not in b"".join(received)
        assert "proxypassword" not in str(caught.value)

    def test_http_to_loopback_ignores_proxies(
        self, service: ScriptedService, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A proxy could read the token."""
        with recording_server() as (port, received):
            for variable in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
                monkeypatch.setenv(variable, f"http://127.0.0.1:{port}")
            Client("pt-secret", service.base_url).get("/deployments", {}, len)
        assert received == []
        assert len(service.requests) == 1

    @pytest.mark.parametrize(
        "proxy",
        [
            "http://me:proxypassword@[bad",
            "http://me:proxypassword@",
            "me:proxypassword@:x",
            "http://me:proxypassword@host:port",
            "://me:proxypassword@",
        ],
    )
    def test_invalid_proxy_url_raises_an_error_that_does_not_quote_it(
        self, monkeypatch: pytest.MonkeyPatch, clock: FastClock, proxy: str
    ) -> None:
        monkeypatch.setenv("HTTPS_PROXY", proxy)
        with pytest.raises(errors.APIConnectionError, match="HTTPS_PROXY") as caught:
            Client("pt-secret", "https://127.0.0.1:9").get("/deployments", {}, len)
        assert "proxypassword" not in str(caught.value)
        assert clock.sleeps == []

    def test_ca_bundle_from_the_environment_is_trusted(self, monkeypatch: pytest.MonkeyPatch) -> None:
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
        with recording_server(answer, tls=True) as (port, received):
            monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(TLS))
            assert Client("pt-secret", f"https://127.0.0.1:{port}/api").get("/deployments", {}, len) == 2
        assert received[0].startswith(b"GET /api/deployments HTTP/1.1\r\n")
        assert received[0].count(b"Authorization: Bearer pt-secret\r\n") == 1

    def test_untrusted_certificate_is_raised_without_a_retry(self, clock: FastClock) -> None:
        with recording_server(tls=True) as (port, received):
            client = Client("pt-secret", f"https://127.0.0.1:{port}")
            with pytest.raises(errors.APIConnectionError, match=r"not trusted here.*REQUESTS_CA_BUNDLE"):
                client.get("/deployments", {}, len)
        assert clock.sleeps == []
        assert received == []

    def test_missing_ca_bundle_file_is_raised_without_a_retry(
        self, monkeypatch: pytest.MonkeyPatch, clock: FastClock
    ) -> None:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere.pem")
        with pytest.raises(errors.APIConnectionError, match=r"/nowhere\.pem.*REQUESTS_CA_BUNDLE"):
            Client("pt-secret", "https://127.0.0.1:9").get("/deployments", {}, len)
        assert clock.sleeps == []
