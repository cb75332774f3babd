"""The token is in one header to one host, and in nothing that anybody can read."""

from __future__ import annotations

import copy
import io
import json
import logging
import pickle
import pprint
import socket
import traceback
from typing import TYPE_CHECKING, cast

import pytest
import requests
import rich.console
import rich.traceback
from urllib3.connection import HTTPConnection

from qoderdata import errors, settings
from qoderdata.client import Client
from qoderdata.client.transport import Token
from qoderdata.load import load_agents
from qoderdata.pages import walk
from qoderdata.settings import Secret

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import ScriptedService

#: Long and odd enough to be found wherever it is.
TOKEN = "pt-Zq7_token-that-nobody-may-see.0123456789"  # noqa: S105 - made up, and what the search is for


def all_that_a_traceback_can_show(error: BaseException) -> str:
    """Format an exception with the local variables of every frame, its causes and contexts, and what it holds."""
    seen: list[str] = []
    link: BaseException | None = error
    while link is not None:
        seen.extend(traceback.TracebackException.from_exception(link, capture_locals=True, compact=False).format())
        seen.extend([str(link), repr(link), repr(link.args), pprint.pformat(vars(link))])
        link = link.__cause__ or link.__context__
    return "\n".join(seen)


def error_of(call: Callable[[], object]) -> BaseException:
    """Catch what a call raises; the frames of the test itself, which knows the token, stay out of it."""
    try:
        call()
    except BaseException as error:  # noqa: BLE001 - Ctrl-C is one of the cases
        return error
    raise AssertionError("nothing was raised")


def envelope(message: str, **more: str) -> bytes:
    return json.dumps({"type": "error", "error": {"type": "api_error", "message": message, **more}}).encode()


class TestNothingShowsIt:
    @pytest.mark.parametrize(
        "answer",
        [
            (200, b"not json, but " + TOKEN.encode(), {}),
            (401, envelope(f"the token {TOKEN} has expired"), {}),
            (400, envelope("no", type=TOKEN, param=TOKEN), {}),
            (400, envelope("x" * 280 + TOKEN), {}),
            (500, b" " * 1180 + TOKEN.encode() * 3, {"Content_Type": "text/plain"}),
            (403, b"Authorization: Bearer " + TOKEN.encode(), {"Content_Type": "text/plain"}),
            (502, b"<html>" + TOKEN.encode(), {}),
            (503, b"", {"x_request_id": TOKEN, "Retry_After": "3600"}),
            (302, b"", {"Location": f"https://{TOKEN}.example/{TOKEN}"}),
            (302, b"", {"Location": f"https://evil.example/?token={TOKEN}"}),
        ],
        ids=lambda answer: str(answer[0]),
    )
    def test_when_the_service_repeats_it(
        self, service: ScriptedService, caplog: pytest.LogCaptureFixture, answer: tuple[int, bytes, dict[str, str]]
    ) -> None:
        status, body, headers = answer
        service.play(service.answer(status, body, **headers))
        client = Client(TOKEN, service.base_url, max_retries=1)
        with caplog.at_level(logging.DEBUG):
            error = error_of(lambda: client.get_deployment("dep_1"))
        assert isinstance(error, errors.APIError)
        half = TOKEN[: len(TOKEN) // 2]
        assert half.lower() not in all_that_a_traceback_can_show(error).lower()
        assert half not in caplog.text
        assert service.requests[0].headers["Authorization"] == f"Bearer {TOKEN}"

    @pytest.mark.parametrize("raised", [KeyboardInterrupt, SystemExit, MemoryError, OSError, TypeError])
    @pytest.mark.parametrize("where", [(HTTPConnection, "connect"), (socket.socket, "sendall")])
    def test_when_anything_goes_wrong_beneath(
        self,
        service: ScriptedService,
        monkeypatch: pytest.MonkeyPatch,
        raised: type[BaseException],
        where: tuple[type, str],
    ) -> None:
        """Down there the frames hold the request as it is sent, header and all."""

        def go_wrong(*_: object) -> None:
            try:
                int("an earlier one, still being handled")
            except ValueError:
                raise raised  # noqa: B904 - the context is the point

        client = Client(TOKEN, service.base_url, max_retries=0)
        with monkeypatch.context() as patch:
            patch.setattr(*where, go_wrong)
            error = error_of(lambda: client.get_deployment("dep_1"))
        assert isinstance(error, errors.APIConnectionError if raised is OSError else raised)
        assert TOKEN not in all_that_a_traceback_can_show(error)

    def test_when_a_walk_fails_in_its_own_thread(self, service: ScriptedService) -> None:
        service.play(service.answer(401, envelope(TOKEN)))
        client = Client(TOKEN, service.base_url)
        pages = walk(lambda _cursor, _limit: client.get("/deployments", {}, lambda _: pytest.fail("unread")))
        error = error_of(lambda: next(pages))
        assert isinstance(error, errors.AuthenticationError)
        assert TOKEN not in all_that_a_traceback_can_show(error)

    @pytest.mark.parametrize(
        "call",
        [
            lambda: Client(f"{TOKEN} and more"),
            lambda: Client(f"{TOKEN}\u00e9"),
            lambda: Client(TOKEN, "http://api.qoder.com"),
            lambda: Client(TOKEN, "nonsense"),
            lambda: Client(TOKEN, "https://-.example\u2024"),
            lambda: Client(TOKEN, workspace_id="a\nb"),
            lambda: Client(TOKEN, max_retries=-1),
            lambda: Client(TOKEN, timeout=-1),
            lambda: settings.resolve_token(f"{TOKEN}\n{TOKEN}"),
        ],
    )
    def test_when_it_or_its_company_is_refused(self, call: Callable[[], object]) -> None:
        error = error_of(call)
        assert isinstance(error, ValueError | errors.CredentialError)
        assert TOKEN not in all_that_a_traceback_can_show(error)

    def test_in_the_objects_that_know_it(self, service: ScriptedService) -> None:
        client = Client(TOKEN, service.base_url)
        prepared = client._token(requests.Request("GET", service.base_url).prepare())
        shown = [repr(client), str(client), f"{client}", client.account, str(client._token)]
        shown += [pprint.pformat(vars(part)) for part in (client, client._token, client._transport, prepared)]
        shown += [pprint.pformat(vars(client._transport._session)), repr(prepared.headers), str(prepared.headers)]
        assert TOKEN not in "\n".join(shown)
        assert repr(client) == (
            f"Client(base_url={service.base_url!r}, workspace_id=None, account={client.account!r})"
        )

    def test_in_the_log_and_on_the_screen_when_all_is_well(
        self,
        service: ScriptedService,
        caplog: pytest.LogCaptureFixture,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        with caplog.at_level(logging.DEBUG):
            Client(TOKEN, service.base_url).get_deployment("dep_1")
        assert TOKEN not in caplog.text
        assert capfd.readouterr() == ("", "")

    @pytest.mark.parametrize("part", ["_token", "_transport", ""])
    def test_no_part_of_a_client_can_be_pickled_or_copied(self, service: ScriptedService, part: str) -> None:
        client = Client(TOKEN, service.base_url)
        secret = getattr(client, part) if part else Secret(TOKEN)
        for duplicate in (pickle.dumps, copy.copy, copy.deepcopy):
            if part != "_transport" or duplicate is not copy.copy:
                with pytest.raises(TypeError):
                    duplicate(secret)

    def test_no_client_is_written_to_a_file(self, service: ScriptedService) -> None:
        with pytest.raises(TypeError):
            pickle.dump(Client(TOKEN, service.base_url), io.BytesIO())

    @pytest.mark.parametrize("token", [TOKEN, TOKEN * 9], ids=["short", "long"])
    @pytest.mark.parametrize(
        "call",
        [
            lambda token: Client(f"{token} and more"),
            lambda token: Client(cast("str", f"{token} and more".encode())),
            lambda token: Client(token, "http://api.qoder.com"),
            lambda token: Client(token, max_retries=-1),
            lambda token: Client(token, timeout=(1, -1)),
            lambda token: settings.resolve_token(f"{token}\n{token}"),
            lambda token: settings.resolve_token(cast("str", f"{token}\n{token}".encode())),
            lambda token: Token(Secret(token), base_url="https://[bad"),
        ],
    )
    def test_in_a_traceback_of_rich_with_local_variables(self, call: Callable[[str], object], token: str) -> None:
        """Rich slices long strings before it shows them."""
        error = error_of(lambda: call(token))
        # The frames of this test know the token.
        ours = error.__traceback__
        while ours is not None and "/tests/" in ours.tb_frame.f_code.co_filename:
            ours = ours.tb_next
        screen = rich.console.Console(file=io.StringIO(), width=200)
        screen.print(
            rich.traceback.Traceback.from_exception(
                type(error), error, ours, show_locals=True, locals_hide_dunder=False, locals_hide_sunder=False
            )
        )
        shown = cast("io.StringIO", screen.file).getvalue()
        assert "locals" in shown
        assert TOKEN[:12] not in shown

    def test_a_token_in_bytes_is_refused_in_plain_words(self) -> None:
        with pytest.raises(TypeError, match="the access token must be a str, not bytes") as caught:
            Client(TOKEN.encode())  # type: ignore[arg-type] # the point of it
        assert TOKEN not in all_that_a_traceback_can_show(caught.value.with_traceback(None))

    def test_when_the_service_repeats_it_as_a_cursor(self, service: ScriptedService) -> None:
        page = {"data": [], "has_more": True, "first_id": None, "last_id": TOKEN, "next_page": TOKEN}
        service.play(service.answer(body=json.dumps(page).encode()))
        error = error_of(lambda: load_agents(client=Client(TOKEN, service.base_url)))
        assert isinstance(error, errors.PaginationError)
        assert "'***' again" in str(error)
        assert TOKEN[:12] not in f"{error} {error!r}"

    def test_when_the_service_repeats_it_in_what_breaks_the_contract(self, service: ScriptedService) -> None:
        def read(body: bytes) -> None:
            key = json.loads(body)["key"]
            raise errors.APIResponseValidationError(f"the key {key!r} is odd") from ValueError(key)

        service.play(service.answer(body=json.dumps({"key": TOKEN}).encode()))
        client = Client(TOKEN, service.base_url)
        error = error_of(lambda: client.get("/deployments", {}, read))
        assert str(error).startswith("the key '***' is odd")
        assert TOKEN not in all_that_a_traceback_can_show(error)

    def test_when_an_id_is_the_token(self, service: ScriptedService) -> None:
        service.play(service.answer(404))
        error = error_of(lambda: Client(TOKEN, service.base_url).get_run(TOKEN))
        assert str(error).startswith("GET /deployment_runs/***: ")

    def test_the_account_does_not_give_it_away(self) -> None:
        """It is part of file names."""
        account = Client(TOKEN).account
        assert len(account) == 16
        assert account.isalnum()
        assert account not in TOKEN


class TestOneHeaderToOneHost:
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
    def test_another_origin_gets_none(self, base_url: str, url: str, *, sent: bool) -> None:
        prepared = requests.Request("GET", url, auth=Token(Secret(TOKEN), base_url=base_url)).prepare()
        assert ("Authorization" in prepared.headers) is sent

    def test_netrc_does_not_replace_it(
        self, service: ScriptedService, nobodys_machine: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A password from there would take the place of a plain header."""
        netrc = nobodys_machine / ".netrc"
        netrc.write_text("machine 127.0.0.1 login me password netrcpassword\n")
        netrc.chmod(0o600)
        monkeypatch.setenv("NETRC", str(netrc))
        assert requests.utils.get_netrc_auth(service.base_url) == ("me", "netrcpassword")
        Client(TOKEN, service.base_url).get_deployment("dep_1")
        received = [value for name, value in service.requests[0].headers.items() if name == "Authorization"]
        assert received == [f"Bearer {TOKEN}"]

    def test_netrc_is_not_read_for_the_service_itself(
        self, nobodys_machine: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Over https, where the environment counts."""
        netrc = nobodys_machine / ".netrc"
        netrc.write_text("machine api.qoder.com login me password netrcpassword\n")
        netrc.chmod(0o600)
        monkeypatch.setenv("NETRC", str(netrc))
        client = Client(TOKEN, "https://api.qoder.com/api")
        assert client._transport._session.trust_env
        assert "Authorization" not in client._transport._template.headers

    def test_a_redirect_does_not_carry_it_on(self, service: ScriptedService) -> None:
        with socket.create_server(("127.0.0.1", 0)) as elsewhere:
            elsewhere.settimeout(0.05)
            port = elsewhere.getsockname()[1]
            service.play(service.answer(302, Location=f"http://127.0.0.1:{port}/"))
            with pytest.raises(errors.APIStatusError):
                Client(TOKEN, service.base_url).get_deployment("dep_1")
            with pytest.raises(TimeoutError):
                elsewhere.accept()

    def test_a_secret_is_revealed_on_request_alone(self) -> None:
        secret = Secret(TOKEN)
        assert (secret.reveal(), secret.encode()) == (TOKEN, TOKEN.encode())
        assert {repr(secret), str(secret), f"{secret}", f"{[secret]}"[1:-1]} == {"Secret('***')"}
