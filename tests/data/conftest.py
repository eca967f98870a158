"""A server of archives on this machine, asked directly and without pauses."""

import time

import pytest

from serving import serving


@pytest.fixture
def shelf(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with serving() as shelf:
        yield shelf
