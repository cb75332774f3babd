"""Tests of `qoderdata.settings`: precedence of argument, environment and default, and invalid values."""

from __future__ import annotations

import contextlib
import os
import re
import traceback
from pathlib import Path
from typing import Any

import pytest

from qoderdata import errors, settings


class TestToken:
    def test_argument_takes_precedence_over_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("QODER_PAT", "pt-env")
        assert settings.resolve_token("pt-arg").reveal() == "pt-arg"
        assert settings.resolve_token().reveal() == "pt-env"

    def test_qoder_access_token_takes_precedence_over_qoder_pat(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("QODER_PAT", "pt-second")
        monkeypatch.setenv("QODER_ACCESS_TOKEN", "first")
        assert settings.resolve_token().reveal() == "first"
        monkeypatch.setenv("QODER_ACCESS_TOKEN", " \n")
        assert settings.resolve_token().reveal() == "pt-second"

    def test_jwt_is_accepted(self) -> None:
        jwt = ".".join(["eyJhbGciOiJSUzI1NiJ9" * 40, "eyJzdWIiOiJzYV8xIn0" * 40, "x-_9" * 90])
        assert settings.resolve_token(jwt).reveal() == jwt

    @pytest.mark.parametrize("value", [b"pt-secret-bytes", 5, Path("pt-secret-path")])
    def test_token_of_another_type_raises_type_error(self, value: object) -> None:
        with pytest.raises(TypeError, match=f"access token must be a str, not {type(value).__name__}") as caught:
            settings.resolve_token(value)  # type: ignore[arg-type] # invalid on purpose
        assert "secret" not in str(caught.value)

    def test_has_token(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert not settings.has_token()
        monkeypatch.setenv("QODER_ACCESS_TOKEN", " ")
        assert not settings.has_token()
        monkeypatch.setenv("QODER_PAT", "pt-1")
        assert settings.has_token()

    @pytest.mark.parametrize("text", ["pt-1", " pt-1", "pt-1\n", "\tpt-1\r\n"])
    def test_surrounding_white_space_is_removed(self, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """As in a token that was copied from a page, or read from a file that ends with a line break."""
        monkeypatch.setenv("QODER_PAT", text)
        assert settings.resolve_token(text).reveal() == settings.resolve_token().reveal() == "pt-1"

    @pytest.mark.parametrize("value", [None, "", "  \n"])
    def test_missing_token_error_gives_advice(self, value: str | None) -> None:
        with pytest.raises(errors.CredentialError, match=r"QODER_PAT.*`qoderdata sandbox`.*Sandbox"):
            settings.resolve_token(value)

    def test_empty_argument_does_not_fall_back_to_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The token of the environment may be that of another account."""
        monkeypatch.setenv("QODER_PAT", "pt-env")
        with pytest.raises(errors.CredentialError, match="the argument pat is empty"):
            settings.resolve_token("")

    @pytest.mark.parametrize("text", ["pt-a b", "pt-a\nb", "pt-ä", "pt-\x7f", "pt-\x00x", "令牌"])
    def test_token_with_invalid_characters_raises_credential_error(self, text: str) -> None:
        with pytest.raises(errors.CredentialError, match="QODER_PAT") as caught:
            settings.resolve_token(text)
        assert text not in str(caught.value)


class TestBaseUrl:
    def test_precedence_of_argument_environment_and_default(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert settings.resolve_base_url() == "https://api.qoder.com/api/v1/cloud"
        monkeypatch.setenv("QODER_MANAGED_BASE_URL", "https://env.example")
        assert settings.resolve_base_url() == "https://env.example"
        assert settings.resolve_base_url("https://arg.example") == "https://arg.example"

    def test_qoder_managed_base_url_takes_precedence_over_qoder_base_url(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("QODER_BASE_URL", "https://second.example")
        assert settings.resolve_base_url() == "https://second.example"
        monkeypatch.setenv("QODER_MANAGED_BASE_URL", "https://first.example")
        assert settings.resolve_base_url() == "https://first.example"

    @pytest.mark.parametrize("empty", ["", "  "])
    def test_empty_variable_is_ignored(self, empty: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("QODER_MANAGED_BASE_URL", empty)
        assert settings.resolve_base_url() == settings.DEFAULT_BASE_URL

    @pytest.mark.parametrize(
        ("text", "url"),
        [
            ("https://api.qoder.com.cn/api/v1/cloud/", "https://api.qoder.com.cn/api/v1/cloud"),
            (" https://API.Qoder.com/Path// ", "https://api.qoder.com/Path"),
            ("HTTPS://a.example:8443", "https://a.example:8443"),
            ("http://localhost:8000/x", "http://localhost:8000/x"),
            ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
            ("http://[::1]:8000", "http://[::1]:8000"),
        ],
    )
    def test_url_is_normalized(self, text: str, url: str) -> None:
        """The URL is part of the cache key."""
        assert settings.resolve_base_url(text) == url

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("http://api.qoder.com", "unencrypted"),
            ("http://127.0.0.1.evil.example", "unencrypted"),
            ("http://localhost.evil.example", "unencrypted"),
            ("http://192.168.0.1", "unencrypted"),
            ("http://0.0.0.0", "unencrypted"),
            ("api.qoder.com", "absolute"),
            ("ftp://api.qoder.com", "absolute"),
            ("file:///etc/passwd", "absolute"),
            ("https://", "absolute"),
            ("https:///path", "absolute"),
            ("https://a.example/?x=1", "a user, a query or a fragment"),
            ("https://a.example/#x", "a user, a query or a fragment"),
            ("https://me:secret@a.example", "a user, a query or a fragment"),
            ("http://me:secret@localhost", "a user, a query or a fragment"),
            ("http://localhost@evil.example", "a user, a query or a fragment"),
            ("https://[bad", "not a URL"),
            ("https://a.example:pt-secret/x", "not a URL"),
            ("https://[pt-secret]/x", "not a URL"),
            ("https://a.example:port", "not a URL"),
            ("https://a.example:99999", "not a URL"),
        ],
    )
    def test_invalid_url_raises_value_error(self, text: str, message: str) -> None:
        with pytest.raises(ValueError, match=message) as caught:
            settings.resolve_base_url(text)
        assert "secret" not in "".join(traceback.format_exception(caught.value))
        assert "the base URL in the argument base_url " in str(caught.value)

    @pytest.mark.parametrize("variable", ["QODER_MANAGED_BASE_URL", "QODER_BASE_URL"])
    def test_error_names_the_variable_and_does_not_quote_its_value(
        self, variable: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(variable, "pt-put-into-the-wrong-variable")
        with pytest.raises(ValueError, match=f"the base URL in {variable} is not an absolute http") as caught:
            settings.resolve_base_url()
        assert "pt-put" not in str(caught.value)


class TestWorkspace:
    @pytest.mark.parametrize(
        ("text", "workspace"), [(None, None), ("", None), (" ", None), ("ws_1", "ws_1"), (" ws_1\n", "ws_1")]
    )
    def test_workspace_id_is_optional(self, text: str | None, workspace: str | None) -> None:
        assert settings.resolve_workspace_id(text) == workspace

    @pytest.mark.parametrize("text", ["a b", "a\r\nX: y", "ä"])
    def test_workspace_id_with_invalid_characters_raises_value_error(self, text: str) -> None:
        with pytest.raises(ValueError, match="workspace_id="):
            settings.resolve_workspace_id(text)


class TestAccount:
    @pytest.mark.parametrize(
        ("text", "account"),
        [
            (None, None),
            ("", None),
            (" ", None),
            (" team:prod (eu)\n", "team:prod (eu)"),
            ("e\u0301quipe", "\xe9quipe"),
            ("हिन्दी", "हिन्दी"),
        ],
    )
    def test_account_is_an_optional_name(self, text: str | None, account: str | None) -> None:
        assert settings.resolve_account(text) == account

    def test_argument_comes_before_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("QODERDATA_ACCOUNT", "staging")
        assert settings.resolve_account() == "staging"
        assert settings.resolve_account("production") == "production"
        assert settings.resolve_account(" ") == "staging"
        assert settings.resolve_account(environment=False) is None

    @pytest.mark.parametrize(
        "text", ["pt-put-here", "Bearer PT-put-here", "my token-1", "a" * 41, "a\nb", "\ud800"]
    )
    def test_other_texts_are_refused_and_not_shown(self, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(ValueError, match="the argument account must be a name of your choice") as caught:
            settings.resolve_account(text, token=settings.Secret("token-1"))
        assert text not in str(caught.value)
        monkeypatch.setenv("QODERDATA_ACCOUNT", "pt-put-here-by-mistake")
        with pytest.raises(ValueError, match="QODERDATA_ACCOUNT must be a name") as caught:
            settings.resolve_account()
        assert "pt-put" not in str(caught.value)


class TestCacheFolder:
    def test_precedence_of_argument_environment_and_default(
        self, monkeypatch: pytest.MonkeyPatch, isolated_home: Path
    ) -> None:
        default = Path(settings.resolve_cache_dir())
        assert default.is_relative_to(isolated_home)
        assert "qoderdata" in default.parts
        monkeypatch.setenv("QODERDATA_CACHE_DIR", "/from/environment")
        assert settings.resolve_cache_dir() == "/from/environment"
        assert settings.resolve_cache_dir("/from/argument") == "/from/argument"
        assert settings.resolve_cache_dir(Path("/from/argument")) == "/from/argument"

    def test_folder_is_made_absolute(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, isolated_home: Path
    ) -> None:
        monkeypatch.chdir(tmp_path)
        assert settings.resolve_cache_dir("here") == str(tmp_path / "here")
        assert settings.resolve_cache_dir("~/there") == str(isolated_home / "there")

    @pytest.mark.parametrize("url", ["s3://bucket/folder", "memory://folder", "gs://bucket"])
    def test_url_is_unchanged(self, url: str) -> None:
        assert settings.resolve_cache_dir(url) == url

    @pytest.mark.parametrize("value", [5, True, False, b"cache", ["cache"]])
    def test_what_is_no_path_is_refused(self, value: Any) -> None:  # noqa: ANN401 - what no type checker accepts
        with pytest.raises(ValueError, match=re.escape(f"must be a path, a URL or None, not {value!r}")):
            settings.resolve_cache_dir(value)

    def test_home_folder_of_an_unknown_user_is_refused(self) -> None:
        with pytest.raises(ValueError, match="below the home folder of a user who is not known"):
            settings.resolve_cache_dir("~no-such-user/cache")

    def test_url_damaged_by_path_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """`pathlib.Path` removes a slash, so that the URL would become a local folder."""
        for changed in (Path("s3://bucket/x"), str(Path("abfs://bucket/x"))):
            with pytest.raises(ValueError, match="give a URL as text"):
                settings.resolve_cache_dir(changed)
        monkeypatch.setenv("QODERDATA_CACHE_DIR", "s3:/bucket")
        with pytest.raises(ValueError, match="give a URL as text"):
            settings.resolve_cache_dir()

    def test_folder_is_not_created(self, tmp_path: Path) -> None:
        settings.resolve_cache_dir(tmp_path / "new")
        settings.resolve_cache_dir()
        assert not (tmp_path / "new").exists()
        assert not Path(settings.resolve_cache_dir()).exists()

    @pytest.mark.parametrize(("mode", "warns"), [(0o700, False), (0o755, False), (0o775, True), (0o777, True)])
    def test_writable_folder_of_another_user_warns(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mode: int, *, warns: bool
    ) -> None:
        folder = tmp_path / "shared"
        folder.mkdir()
        folder.chmod(mode)
        assert settings.resolve_cache_dir(folder) == str(folder), "a folder of the same user may have any mode"
        monkeypatch.setattr(os, "geteuid", lambda: folder.stat().st_uid + 1)
        expected = pytest.warns(
            errors.CacheWarning, match=r"shared belongs to another user.*cache_dir to a folder of your own"
        )
        with expected if warns else contextlib.nullcontext():
            assert settings.resolve_cache_dir(folder) == str(folder)
