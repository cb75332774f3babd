"""Tests of the exceptions for error responses: class, attributes, and a one-line message with advice."""

from __future__ import annotations

import copy
import json
import pickle
import re
from typing import TYPE_CHECKING

import pytest

from qoderdata import errors
from qoderdata.client import Client

if TYPE_CHECKING:
    from conftest import ScriptedService


def error_body(kind: object, message: object, param: object = None) -> bytes:
    """Return the body of an error response as the service writes it."""
    error = {"type": kind, "message": message} | ({} if param is None else {"param": param})
    return json.dumps({"type": "error", "error": error}).encode()


def error_of(service: ScriptedService, status: int, body: bytes = b"", **headers: str) -> errors.APIStatusError:
    """Request a deployment, and return the exception that this response raises."""
    service.respond_with(service.response(status, body, **headers))
    with pytest.raises(errors.APIStatusError) as caught:
        Client("pt-secret", service.base_url, max_retries=0).get_deployment("dep_1")
    return caught.value


@pytest.mark.parametrize(
    ("status", "kind", "exception", "advice"),
    [
        (400, "invalid_request_error", errors.BadRequestError, "arguments"),
        (
            401,
            "authentication_error",
            errors.AuthenticationError,
            "Make a new access token.*QODER_ACCESS_TOKEN or QODER_PAT",
        ),
        (403, "permission_error", errors.PermissionDeniedError, "workspace_id"),
        (404, "not_found_error", errors.NotFoundError, "QODER_MANAGED_BASE_URL, else QODER_BASE_URL"),
        (409, "conflict_error", errors.ConflictError, "try again"),
        (413, "invalid_request_error", errors.APIStatusError, "Ask for less"),
        (422, "invalid_request_error", errors.APIStatusError, "arguments"),
        (429, "rate_limit_error", errors.RateLimitError, "min_interval"),
        (500, "api_error", errors.InternalServerError, "try again later"),
        (501, "feature_not_available", errors.InternalServerError, "does not support this request"),
        (503, "api_error", errors.InternalServerError, "try again later"),
        (529, "overloaded_error", errors.InternalServerError, "overloaded"),
        (418, "teapot", errors.APIStatusError, "any proxy or gateway before the service"),
    ],
)
def test_documented_error_statuses(
    service: ScriptedService, status: int, kind: str, exception: type[errors.APIStatusError], advice: str
) -> None:
    error = error_of(service, status, error_body(kind, "That is how it is.", "limit"))
    assert type(error) is exception
    assert (error.status_code, error.type, error.param) == (status, kind, "limit")
    assert (error.request_id, error.retry_after, error.attempts) == ("req_scripted", None, 1)
    text = str(error)
    assert text.startswith(f"GET /deployments/dep_1: the service answered {status} {kind}: That is how it is. ")
    assert text.endswith(". [1 attempt in 0.0 s; request id req_scripted]")
    assert re.search(advice, text)


@pytest.mark.parametrize(
    ("body", "content_type", "message"),
    [
        (b"", "application/json", "answered 502: an empty body."),
        (b"  \n", "text/plain", "answered 502: an empty body."),
        (b"<html><body>secret page</body></html>", "text/html", "answered 502: an HTML page"),
        (b"\n<!DOCTYPE html><p>secret page", "application/json", "answered 502: an HTML page"),
        (b"secret page", "text/html; charset=utf-8", "answered 502: an HTML page"),
        (b"upstream connect error", "text/plain", "answered 502: 'upstream connect error'."),
        (b"\xff\xfe\x00bad", "text/plain", "answered 502: '\ufffd\ufffd\ufffdbad'."),
        (b'{"message": "no"}', "application/json", """answered 502: '{"message": "no"}'."""),
        (b'{"error": "no"}', "application/json", """answered 502: '{"error": "no"}'."""),
        (b'["no"]', "application/json", """answered 502: '["no"]'."""),
        (b"[" * 100_000, "application/json", "answered 502: '[[["),
        (error_body(7, ["no"], {"a": 1}), "application/json", "answered 502: '{"),
        (error_body("api_error", "", ""), "application/json", "answered 502 api_error: '{"),
        (
            error_body("api_error", "two\nlines\x1b[31m\u202e"),
            "application/json",
            "502 api_error: two lines\ufffd[31m\ufffd.",
        ),
        (error_body("api_error", "x" * 100_000), "application/json", "xxx…."),
    ],
)
def test_message_is_one_short_line_for_any_body(
    service: ScriptedService, body: bytes, content_type: str, message: str
) -> None:
    error = error_of(service, 502, body, Content_Type=content_type)
    assert message in str(error)
    assert str(error).isprintable()
    assert len(str(error)) < 800
    assert "secret page" not in str(error)
    assert error.param is None


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("https://elsewhere.example/steal?token=abc", "a redirect to elsewhere.example, not followed"),
        ("//me:password@elsewhere.example:8443/x", "a redirect to elsewhere.example, not followed"),
        ("/login?next=abc", "a redirect to another path of the same host, not followed"),
        ("https://[bad", "a redirect to another path of the same host, not followed"),
        ("", "a redirect to another path of the same host, not followed"),
    ],
)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect_message_names_only_the_host(
    service: ScriptedService, status: int, location: str, message: str
) -> None:
    error = error_of(service, status, b"<html>Moved", Location=location)
    assert message in str(error)
    assert "QODER_MANAGED_BASE_URL" in str(error)
    assert not any(word in str(error) for word in ("abc", "password", "steal", "login"))
    assert len(service.requests) == 1


def test_redirect_to_the_same_service_is_not_followed(service: ScriptedService) -> None:
    error_of(service, 307, Location=f"{service.base_url}/deployments")
    assert len(service.requests) == 1


def test_request_id_is_shortened_to_one_printable_line(service: ScriptedService) -> None:
    error = error_of(service, 500, x_request_id="req_\x1b[2J\t" + "x" * 1000)
    assert error.request_id is not None
    assert error.request_id.isprintable()
    assert len(error.request_id) <= 300


@pytest.mark.parametrize(
    ("header", "id_in_body", "expected"),
    [
        (None, "req_body", "req_body"),
        ("", "req_body", "req_body"),
        ("req_h", "req_body", "req_h"),
        (None, 7, None),
    ],
)
@pytest.mark.parametrize("error", [{"type": "api_error", "message": "no"}, "no", None])
def test_request_id_comes_from_the_header_else_from_the_body(
    service: ScriptedService, header: str | None, id_in_body: object, expected: str | None, error: object
) -> None:
    body = json.dumps({"type": "error", "error": error, "request_id": id_in_body}).encode()
    line = b"" if header is None else f"x-request-id: {header}\r\n".encode()
    service.respond_with(b"HTTP/1.1 404 No\r\n%bContent-Length: %d\r\n\r\n%b" % (line, len(body), body))
    with pytest.raises(errors.NotFoundError) as caught:
        Client("pt-secret", service.base_url).get_session("sess_1")
    assert caught.value.request_id == expected


def test_missing_request_id_is_none(service: ScriptedService) -> None:
    service.respond_with(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")
    with pytest.raises(errors.InternalServerError) as caught:
        Client("pt-secret", service.base_url, max_retries=0).get_deployment("dep_1")
    assert caught.value.request_id is None
    assert "request id" not in str(caught.value)


def test_invalid_response_is_not_quoted_in_the_message(service: ScriptedService) -> None:
    """A truncated record may contain secrets."""
    service.respond_with(service.response(body=b'{"environment_variables": {"KEY": "hunter2"'))
    with pytest.raises(errors.APIResponseValidationError, match="43 bytes of something else") as caught:
        Client("pt-secret", service.base_url, max_retries=0).get_deployment("dep_1")
    assert "hunter2" not in str(caught.value)
    assert caught.value.request_id == "req_scripted"


@pytest.mark.parametrize("pages", [None, 3])
def test_error_is_unchanged_by_pickling_and_copying(service: ScriptedService, pages: int | None) -> None:
    """Process pools pickle exceptions."""
    error = error_of(service, 429, error_body("rate_limit_error", "slow down", "x"), Retry_After="120")
    error.pages = pages
    for duplicate in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):  # noqa: S301 - made by this test
        assert type(duplicate) is errors.RateLimitError
        assert str(duplicate) == str(error)
        assert vars(duplicate) == vars(error)
        assert (duplicate.status_code, duplicate.retry_after, duplicate.pages) == (429, 120.0, pages)
