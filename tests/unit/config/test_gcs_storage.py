"""`provider.gcs_storage`: what reaches the spec, and what is refused, with its line and without a secret."""

from __future__ import annotations

import os

import pytest

from heliostat.model.gcs_storage import GcsStorage
from tests.unit.config.files import GOOD, Load, Problems

SECRET = "hunter2"


def with_storage(section: str) -> str:
    return GOOD.replace(
        "  backends: {local: {}}\n", f"  backends: {{local: {{}}}}\n  gcs_storage: {section}\n"
    )


def test_there_is_none_unless_it_is_asked_for(load: Load) -> None:
    assert load(GOOD).gcs_storage is None


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ("{address: 'redis://10.1.2.3:6379'}", GcsStorage("10.1.2.3", 6379)),
        (
            "{address: 'redis://h:1', password_env: A_B, username: ray}",
            GcsStorage("h", 1, username="ray", password_env="A_B"),
        ),
        (
            "{address: 'rediss://v.example.org:7000', password_file: ~/p, ca_cert: /etc/ca.pem}",
            GcsStorage(
                "v.example.org",
                7000,
                tls=True,
                password_file=os.path.expanduser("~/p"),
                ca_cert="/etc/ca.pem",
            ),
        ),
    ],
)
def test_it_reaches_the_spec(load: Load, section: str, expected: GcsStorage) -> None:
    found = load(with_storage(section)).gcs_storage
    assert found == expected
    assert found is not None
    assert found.address in section


@pytest.mark.parametrize(
    ("section", "key", "said"),
    [
        ("", "", "nothing (null); allowed is a mapping with at least address"),
        ("{}", ".address", "is missing; write redis://<host>:<port>"),
        ("{address: 6379}", ".address", "6379; allowed is redis://<host>:<port>, or rediss://"),
        ("{address: 'h:6379'}", ".address", '"h:6379"; allowed is redis://<host>:<port>, or rediss://'),
        ("{address: 'redis://h'}", ".address", '"redis://h"; allowed is redis://<host>:<port>'),
        ("{address: 'redis://h:70000'}", ".address", "allowed is redis://<host>:<port>"),
        ("{address: 'redis://h:1/0'}", ".address", "allowed is redis://<host>:<port>"),
        (f"{{address: 'redis://:{SECRET}@h:1'}}", ".address", "a user or a password in the address; name"),
        ("{address: 'rediss://h:1'}", ".address", "TLS needs ca_cert"),
        ("{address: 'redis://h:1', ca_cert: /c}", ".ca_cert", "it is for TLS only; write rediss://"),
        ("{address: 'rediss://h:1', ca_cert: c.pem}", ".ca_cert", '"c.pem"; allowed is a file that begins'),
        ("{address: 'redis://h:1', password_file: p}", ".password_file", '"p"; allowed is a file that'),
        (
            f"{{address: 'redis://h:1', password: {SECRET}}}",
            ".password",
            "is not allowed here: a secret has no place",
        ),
        (
            "{address: 'redis://h:1', password_file: /p, password_env: P}",
            ".password_env",
            "the password is in password_file already",
        ),
        (
            f"{{address: 'redis://h:1', password_env: '{SECRET}!'}}",
            ".password_env",
            "no name of a variable",
        ),
        ("{address: 'redis://h:1', username: ray}", ".username", "a user without a password"),
        (
            "{address: 'redis://h:1', passwrd_file: /p}",
            ".passwrd_file",
            "unknown key (did you mean password_file?); allowed are address, username, ",
        ),
    ],
)
def test_what_is_wrong_is_said_with_its_line(problems: Problems, section: str, key: str, said: str) -> None:
    (found,) = problems(with_storage(section))
    assert found.startswith(f"cluster.yaml:5: provider.gcs_storage{key}: ")
    assert said in found
    assert SECRET not in found


def test_it_belongs_under_provider(problems: Problems) -> None:
    (found,) = problems("gcs_storage: {}\n" + GOOD)
    assert found == "cluster.yaml:1: gcs_storage: is not allowed here: it belongs under provider"


def test_rays_own_variables_for_it_are_refused(problems: Problems) -> None:
    environment = "  environment: {RAY_REDIS_ADDRESS: a, RAY_external_storage_namespace: b}\n"
    text = GOOD.replace("  backends: {local: {}}\n", f"  backends: {{local: {{}}}}\n{environment}")
    assert [one.rpartition("not allowed: ")[2] for one in problems(text)] == [
        "write provider.gcs_storage.address",
        "each cluster has its own",
    ]
