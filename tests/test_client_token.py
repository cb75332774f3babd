"""Tests that the access token is sent to one origin only, and is never logged, printed or shown in an error."""

from __future__ import annotations

import copy
import io
import json
import logging
import pickle
import pprint
import socket
import traceback
from typing import TYPE_CHECKING, Any, cast

import pytest
import requests
import rich.console
import rich.traceback
from urllib3.connection import HTTPConnection

from qoderdata import errors, settings
from qoderdata.client import Client
from qoderdata.client.transport import Token
from qoderdata.load.lists import load_agents
from qoderdata.pages import PageSize, walk
from qoderdata.settings import Secret
from tests.test_client_errors import error_body

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import ScriptedService

#: Unique, so that a search finds it in any text.
TOKEN = "pt-Zq7_token-that-nobody-may-see.0123456789"  # noqa: S105 - not a real token
#: Status, body and headers of responses, by the place where they repeat the token.
RESPONSES_WITH_THE_TOKEN: dict[str, tuple[int, bytes, dict[str, str]]] = {
    "200: body without JSON": (200, b"not json, but " + TOKEN.encode(), {}),
    "401: message": (401, error_body("api_error", f"the token {TOKEN} has expired"), {}),
    "400: type and parameter": (400, error_body(TOKEN, "no", TOKEN), {}),
    "400: end of a long message": (400, error_body("api_error", "x" * 280 + TOKEN), {}),
    "500: end of a long text": (500, b" " * 1180 + TOKEN.encode() * 3, {"Content_Type": "text/plain"}),
    "403: text": (403, b"Authorization: Bearer " + TOKEN.encode(), {"Content_Type": "text/plain"}),
    "502: HTML": (502, b"<html>" + TOKEN.encode(), {}),
    "503: headers": (503, b"", {"x_request_id": TOKEN, "Retry_After": "3600"}),
    "302: host of the redirect": (302, b"", {"Location": f"https://{TOKEN}.example/{TOKEN}"}),
    "302: query of the redirect": (302, b"", {"Location": f"https://evil.example/?token={TOKEN}"}),
}
#: Calls with a token that raise an error about an argument.
INVALID_CALLS: dict[str, Callable[[str], object]] = {
    "token with spaces": lambda token: Client(f"{token} and more"),
    "bytes with spaces": lambda token: Client(cast("str", f"{token} and more".encode())),
    "token that is not ASCII": lambda token: Client(f"{token}\u00e9"),
    "token with a line break": lambda token: settings.resolve_token(f"{token}\n{token}"),
    "bytes with a line break": lambda token: settings.resolve_token(cast("str", f"{token}\n{token}".encode())),
    "unencrypted base URL": lambda token: Client(token, "http://api.qoder.com"),
    "base URL without a scheme": lambda token: Client(token, "nonsense"),
    "base URL with an invalid host": lambda token: Client(token, "https://-.example\u2024"),
    "invalid base URL": lambda token: Token(Secret(token), base_url="https://[bad"),
    "workspace with a line break": lambda token: Client(token, workspace_id="a\nb"),
    "negative max_retries": lambda token: Client(token, max_retries=-1),
    "negative timeout": lambda token: Client(token, timeout=-1),
    "negative read timeout": lambda token: Client(token, timeout=(1, -1)),
}


def traceback_with_locals(error: BaseException) -> str:
    """Format an exception, its causes and contexts, with the local variables of every frame and all attributes."""
    seen: list[str] = []
    link: BaseException | None = error
    while link is not None:
        seen.extend(traceback.TracebackException.from_exception(link, capture_locals=True, compact=False).format())
        seen += [str(link), repr(link), repr(link.args), repr(vars(link)), pprint.pformat(vars(link))]
        link = link.__cause__ or link.__context__
    return "\n".join(seen)


def error_of(call: Callable[[], object]) -> BaseException:
    """Return what a call raises. Its traceback lacks the frame of the test, which has the token in a variable."""
    try:
        call()
    except BaseException as error:  # noqa: BLE001 - KeyboardInterrupt is one of the cases
        return error
    raise AssertionError("no exception was raised")


def write_netrc(home: Path, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write a netrc file with a password for a host, and let the environment name it."""
    netrc = home / ".netrc"
    netrc.write_text(f"machine {host} login me password netrcpassword\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))


class TestTokenIsNotShown:
    @pytest.mark.parametrize("place", RESPONSES_WITH_THE_TOKEN)
    def test_token_repeated_in_a_response_is_masked(
        self, service: ScriptedService, caplog: pytest.LogCaptureFixture, place: str
    ) -> None:
        status, body, headers = RESPONSES_WITH_THE_TOKEN[place]
        service.respond_with(service.response(status, body, **headers))
        client = Client(TOKEN, service.base_url, max_retries=1)
        with caplog.at_level(logging.DEBUG):
            error = error_of(lambda: client.get_deployment("dep_1"))
        assert isinstance(error, errors.APIError)
        half = TOKEN[: len(TOKEN) // 2]
        assert half.lower() not in traceback_with_locals(error).lower()
        assert half not in caplog.text
        assert service.requests[0].headers["Authorization"] == f"Bearer {TOKEN}"

    @pytest.mark.parametrize("raised", [KeyboardInterrupt, SystemExit, MemoryError, OSError, TypeError])
    @pytest.mark.parametrize("where", [(HTTPConnection, "connect"), (socket.socket, "sendall")])
    def test_exception_in_the_transport_does_not_show_the_token(
        self,
        service: ScriptedService,
        monkeypatch: pytest.MonkeyPatch,
        raised: type[BaseException],
        where: tuple[type, str],
    ) -> None:
        """There the local variables hold the request with its headers."""

        def raise_error(*_: object) -> None:
            try:
                int("an exception that is still being handled")
            except ValueError:
                raise raised  # noqa: B904 - with a context, on purpose

        client = Client(TOKEN, service.base_url, max_retries=0)
        with monkeypatch.context() as patch:
            patch.setattr(*where, raise_error)
            error = error_of(lambda: client.get_deployment("dep_1"))
        assert isinstance(error, errors.APIConnectionError if raised is OSError else raised)
        assert TOKEN not in traceback_with_locals(error)

    def test_exception_in_the_fetch_thread_does_not_show_the_token(self, service: ScriptedService) -> None:
        service.respond_with(service.response(401, error_body("api_error", TOKEN)))
        client = Client(TOKEN, service.base_url)

        def fetch(_cursor: str | None, _limit: int) -> Any:  # noqa: ANN401 - no page is read
            return client.get("/deployments", {}, lambda _: pytest.fail("the error was read"))

        pages = walk("/deployments", fetch, limit=PageSize(), max_pages=10, mask=client.mask)
        error = error_of(lambda: next(pages))
        assert isinstance(error, errors.AuthenticationError)
        assert TOKEN not in traceback_with_locals(error)

    def test_repr_and_attributes_of_a_client_do_not_show_the_token(self, service: ScriptedService) -> None:
        client = Client(TOKEN, service.base_url)
        prepared = client._token(requests.Request("GET", service.base_url).prepare())
        shown = [repr(client), str(client), f"{client}", client.account, str(client._token)]
        shown += [pprint.pformat(vars(part)) for part in (client, client._token, client._transport, prepared)]
        shown += [pprint.pformat(vars(client._transport._session)), repr(prepared.headers), str(prepared.headers)]
        assert TOKEN not in "\n".join(shown)
        assert repr(client) == (
            f"Client(base_url={service.base_url!r}, workspace_id=None, account={client.account!r})"
        )

    def test_successful_request_does_not_log_or_print_the_token(
        self, service: ScriptedService, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
    ) -> None:
        with caplog.at_level(logging.DEBUG):
            Client(TOKEN, service.base_url).get_deployment("dep_1")
        assert TOKEN not in caplog.text
        assert capfd.readouterr() == ("", "")

    @pytest.mark.parametrize("part", ["_token", "_transport", ""])
    def test_parts_of_a_client_cannot_be_pickled_or_copied(self, service: ScriptedService, part: str) -> None:
        client = Client(TOKEN, service.base_url)
        secret = getattr(client, part) if part else Secret(TOKEN)
        for duplicate in (pickle.dumps, copy.copy, copy.deepcopy):
            if part != "_transport" or duplicate is not copy.copy:
                with pytest.raises(TypeError):
                    duplicate(secret)

    def test_client_cannot_be_pickled_to_a_file(self, service: ScriptedService) -> None:
        with pytest.raises(TypeError):
            pickle.dump(Client(TOKEN, service.base_url), io.BytesIO())

    @pytest.mark.parametrize("token", [TOKEN, TOKEN * 9], ids=["short", "long"])
    @pytest.mark.parametrize("call", INVALID_CALLS.values(), ids=INVALID_CALLS)
    def test_error_about_an_invalid_argument_does_not_show_the_token(
        self, call: Callable[[str], object], token: str
    ) -> None:
        """Rich truncates long strings, so that a search for the whole token could miss one."""
        error = error_of(lambda: call(token))
        assert isinstance(error, TypeError | ValueError | errors.CredentialError)
        # Skip the frames of this test: their local variables hold the token.
        frames = error.__traceback__
        while frames is not None and "/tests/" in frames.tb_frame.f_code.co_filename:
            frames = frames.tb_next
        screen = rich.console.Console(file=io.StringIO(), width=200)
        screen.print(
            rich.traceback.Traceback.from_exception(
                type(error), error, frames, show_locals=True, locals_hide_dunder=False, locals_hide_sunder=False
            )
        )
        shown = cast("io.StringIO", screen.file).getvalue()
        assert "locals" in shown
        assert TOKEN[:12] not in shown
        assert TOKEN[:12] not in traceback_with_locals(error.with_traceback(frames))

    def test_token_in_bytes_raises_type_error(self) -> None:
        with pytest.raises(TypeError, match="the access token must be a str, not bytes") as caught:
            Client(TOKEN.encode())  # type: ignore[arg-type] # invalid on purpose
        assert TOKEN not in traceback_with_locals(caught.value.with_traceback(None))

    def test_token_repeated_as_a_cursor_is_masked(self, service: ScriptedService) -> None:
        page = {"data": [], "has_more": True, "first_id": None, "last_id": TOKEN, "next_page": TOKEN}
        service.respond_with(service.response(body=json.dumps(page).encode()))
        error = error_of(lambda: load_agents(client=Client(TOKEN, service.base_url)))
        assert isinstance(error, errors.PaginationError)
        assert "'***' again" in str(error)
        assert TOKEN[:12] not in f"{error} {error!r}"

    def test_token_in_a_validation_error_is_masked(self, service: ScriptedService) -> None:
        def read(body: bytes) -> None:
            key = json.loads(body)["key"]
            raise errors.APIResponseValidationError(f"the key {key!r} is invalid") from ValueError(key)

        service.respond_with(service.response(body=json.dumps({"key": TOKEN}).encode()))
        client = Client(TOKEN, service.base_url)
        error = error_of(lambda: client.get("/deployments", {}, read))
        assert str(error).startswith("GET /deployments: the key '***' is invalid")
        assert TOKEN not in traceback_with_locals(error)

    def test_token_given_as_an_id_is_masked(self, service: ScriptedService) -> None:
        service.respond_with(service.response(404))
        error = error_of(lambda: Client(TOKEN, service.base_url).get_run(TOKEN))
        assert str(error).startswith("GET /deployment_runs/***: ")

    def test_account_is_not_part_of_the_token(self) -> None:
        """The account is part of file names."""
        account = Client(TOKEN).account
        assert len(account) == 16
        assert account.isalnum()
        assert account not in TOKEN


class TestTokenIsSentToOneOrigin:
    @pytest.mark.parametrize(
        ("base_url", "url", "sent"),
        [
            ("https://api.qoder.com/api", "https://api.qoder.com/api/x", True),
            ("https://api.qoder.com/api", "https://api.qoder.com/other", True),
            ("https://api.qoder.com:8443", "https://api.qoder.com:8443/x", True),
            ("https://bücher.example/api", "https://bücher.example/api/x", True),
            ("https://api.qoder.com/api", "http://api.qoder.com/api/x", False),
            ("https://api.qoder.com/api", "https://api.qoder.com:8443/api/x", False),
            ("https://api.qoder.com/api", "https://api.qoder.com.evil.example/api/x", False),
            ("https://api.qoder.com/api", "https://api.qoder.com@evil.example/api/x", False),
            ("https://api.qoder.com/api", "https://evil.example/api.qoder.com", False),
        ],
    )
    def test_only_requests_to_the_origin_of_base_url_get_the_token(
        self, base_url: str, url: str, *, sent: bool
    ) -> None:
        prepared = requests.Request("GET", url, auth=Token(Secret(TOKEN), base_url=base_url)).prepare()
        assert ("Authorization" in prepared.headers) is sent

    def test_netrc_password_does_not_replace_the_token(
        self, service: ScriptedService, isolated_home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """By default, the library `requests` replaces the header by a password from there."""
        write_netrc(isolated_home, "127.0.0.1", monkeypatch)
        assert requests.utils.get_netrc_auth(service.base_url) == ("me", "netrcpassword")
        Client(TOKEN, service.base_url).get_deployment("dep_1")
        received = [value for name, value in service.requests[0].headers.items() if name == "Authorization"]
        assert received == [f"Bearer {TOKEN}"]

    def test_netrc_is_not_read_for_https_base_url(
        self, isolated_home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Over HTTPS, the library `requests` reads the environment (`trust_env`)."""
        write_netrc(isolated_home, "api.qoder.com", monkeypatch)
        client = Client(TOKEN, "https://api.qoder.com/api")
        assert client._transport._session.trust_env
        assert "Authorization" not in client._transport._template.headers

    def test_redirect_target_receives_no_request(self, service: ScriptedService) -> None:
        with socket.create_server(("127.0.0.1", 0)) as elsewhere:
            elsewhere.settimeout(0.05)
            port = elsewhere.getsockname()[1]
            service.respond_with(service.response(302, Location=f"http://127.0.0.1:{port}/"))
            with pytest.raises(errors.APIStatusError):
                Client(TOKEN, service.base_url).get_deployment("dep_1")
            with pytest.raises(TimeoutError):
                elsewhere.accept()

    def test_secret_is_shown_only_by_reveal_and_encode(self) -> None:
        secret = Secret(TOKEN)
        assert (secret.reveal(), secret.encode()) == (TOKEN, TOKEN.encode())
        assert {repr(secret), str(secret), f"{secret}", f"{[secret]}"[1:-1]} == {"Secret('***')"}
