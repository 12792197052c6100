"""What a person does with the link that a gateway shows: opens it, signs in, and approves."""

from __future__ import annotations

import json
import urllib.parse
import urllib.request

from tests.hypha_server import HyphaServer

TIMEOUT_S = 20


def open_link(url: str, server: HyphaServer, user: str) -> None:
    """Open a link to sign in with, as the browser of `user` would."""
    with urllib.request.urlopen(url, timeout=TIMEOUT_S) as page:
        assert page.status == 200
    (key,) = urllib.parse.parse_qs(urllib.parse.urlsplit(url).query)["key"]
    body = json.dumps({"key": key, "token": server.token(user)}).encode()
    report = f"{server.url}/public/services/hypha-login/report"
    headers = {"Content-Type": "application/json"}
    urllib.request.urlopen(urllib.request.Request(report, body, headers), timeout=TIMEOUT_S).close()
