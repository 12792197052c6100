"""`provider.gateway`: what reaches the settings, and what is refused, with its line and without a secret."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from heliostat.config.cluster_file import absolute_paths
from heliostat.model.gateway import Allowance, CallLimits, GatewaySettings, Right, Sandbox, SandboxKind
from tests.unit.config.files import GOOD, Load, Problems

SECRET = "hunter2"
URL = "server_url: 'https://hypha.example.org'"
WHO = "people: [ada@example.org]"


def with_gateway(section: str) -> str:
    return GOOD.replace("  backends: {local: {}}\n", f"  backends: {{local: {{}}}}\n  gateway: {section}\n")


def test_there_is_none_unless_it_is_asked_for(load: Load) -> None:
    assert load(GOOD).gateway is None


def test_the_least_lets_nobody_in_and_runs_nothing(load: Load) -> None:
    found = load(with_gateway(f"{{{URL}}}")).gateway
    assert found == GatewaySettings(server_url="https://hypha.example.org")
    assert found.allow == ()
    assert found.sandbox is None


def test_all_of_it_reaches_the_settings(load: Load, tmp_path: Path) -> None:
    text = """
    server_url: http://127.0.0.1:9527/
    workspace: lab
    service_id: our-cluster
    token_env: LAB_TOKEN
    token_file: ~/token
    functions: analysis.py
    sandbox: {kind: apptainer, image: ~/python.sif, memory_bytes: 1073741824}
    runtime_env: true
    keep_scripts: true
    drain_timeout_s: 5
    allow:
      - people: [Ada@Example.org]
        rights: [run, admin]
        tokens: true
        limits: {calls_at_a_time: unlimited, gpu_s_per_day: 7200, timeout_s: 60, payload_bytes: 4096}
      - {roles: [staff], workspaces: [ws-user-google-oauth2|1], rights: [call], functions: [count]}"""
    assert load(with_gateway(text)).gateway == GatewaySettings(
        server_url="http://127.0.0.1:9527",
        workspace="lab",
        service_id="our-cluster",
        token_env="LAB_TOKEN",
        token_file=os.path.expanduser("~/token"),
        functions=str(tmp_path / "analysis.py"),
        sandbox=Sandbox(SandboxKind.APPTAINER, os.path.expanduser("~/python.sif"), 2**30),
        runtime_env=True,
        keep_scripts=True,
        drain_timeout_s=5.0,
        allow=(
            Allowance(
                people=frozenset({"ada@example.org"}),
                rights=frozenset({Right.RUN, Right.ADMIN}),
                tokens=True,
                limits=CallLimits(None, 7200.0, 60.0, 4096),
            ),
            Allowance(
                roles=frozenset({"staff"}),
                workspaces=frozenset({"ws-user-google-oauth2|1"}),
                rights=frozenset({Right.CALL}),
                functions=frozenset({"count"}),
            ),
        ),
    )


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("bwrap", Sandbox(SandboxKind.BWRAP)),
        ("{kind: none, accepted: Scripts may read my files.}", Sandbox(SandboxKind.NONE)),
        (
            "{kind: apptainer, image: 'docker://python:3.12'}",
            Sandbox(SandboxKind.APPTAINER, "docker://python:3.12"),
        ),
    ],
)
def test_sandboxes(load: Load, written: str, expected: Sandbox) -> None:
    found = load(with_gateway(f"{{{URL}, sandbox: {written}}}")).gateway
    assert found is not None
    assert found.sandbox == expected


WRONG = [
    ("", "", "nothing (null); allowed is a mapping with at least server_url"),
    ("{}", ".server_url", "is missing; write the Hypha server: https://<host>"),
    ("{server_url: hypha.example.org}", ".server_url", '"hypha.example.org"; allowed is the Hypha server'),
    ("{server_url: 'http://hypha.example.org'}", ".server_url", "over http everyone on the way could read"),
    (f"{{server_url: 'https://{SECRET}@h.org'}}", ".server_url", "a user or a password in the address"),
    (f"{{{URL}, token: {SECRET}}}", ".token", "is not allowed here: a secret has no place in a file"),
    (f"{{{URL}, token_env: '{SECRET}.x'}}", ".token_env", "no name of a variable"),
    (f"{{{URL}, token_file: {SECRET}}}", ".token_file", "allowed is a file that begins with / or ~"),
    (f"{{{URL}, workspace: 'a b'}}", ".workspace", '"a b"; allowed is text: the name of a workspace'),
    (f"{{{URL}, workspace: }}", ".workspace", "nothing (null); allowed is text: the name of a workspace"),
    (f"{{{URL}, service_id: 'a:b'}}", ".service_id", '"a:b"; allowed is letters, digits, - and _'),
    (f"{{{URL}, functions: my functions}}", ".functions", '"my functions"; allowed is text: a module'),
    (f"{{{URL}, functons: a}}", ".functons", "unknown key (did you mean functions?); allowed are server_url"),
    (f"{{{URL}, sandbox: docker}}", ".sandbox.kind", '"docker"; allowed is apptainer, bwrap or none'),
    (
        f"{{{URL}, sandbox: }}",
        ".sandbox",
        "nothing (null); allowed is apptainer, bwrap or none, or a mapping",
    ),
    (f"{{{URL}, sandbox: none}}", ".sandbox", "none: a script could read, change and delete all that"),
    (f"{{{URL}, sandbox: {{kind: none, accepted: ok}}}}", ".sandbox.accepted", '"ok"; allowed is a sentence'),
    (
        f"{{{URL}, sandbox: {{kind: none, accepted: yes}}}}",
        ".sandbox.accepted",
        "true; allowed is a sentence",
    ),
    (
        f"{{{URL}, sandbox: {{kind: bwrap, accepted: I take all the risk}}}}",
        ".sandbox.accepted",
        "kind: none only",
    ),
    (f"{{{URL}, sandbox: apptainer}}", ".sandbox", "apptainer needs an image"),
    (f"{{{URL}, sandbox: {{kind: apptainer, image: a.sif}}}}", ".sandbox.image", '"a.sif"; allowed is text'),
    (f"{{{URL}, sandbox: {{kind: bwrap, image: /a}}}}", ".sandbox.image", "it is for kind: apptainer only"),
    (f"{{{URL}, sandbox: {{kind: bwrap, memory_bytes: 5}}}}", ".sandbox.memory_bytes", "(64 MiB) or more"),
    (f"{{{URL}, drain_timeout_s: 0}}", ".drain_timeout_s", "0; allowed is a number of seconds above 0"),
    (f"{{{URL}, limits: {{}}}}", ".limits", "limits belong to an entry of allow"),
    (f"{{{URL}, allow: ada@example.org}}", ".allow", "allowed is a list such as [{people"),
    (f"{{{URL}, allow: [ada]}}", ".allow.0", '"ada"; allowed is a mapping such as {people'),
    (f"{{{URL}, allow: [{{{WHO}}}]}}", ".allow.0.rights", "is missing; write a list of call, run or admin"),
    (f"{{{URL}, allow: [{{{WHO}, rights: []}}]}}", ".allow.0.rights", "an empty list; allowed is a list of"),
    (
        f"{{{URL}, allow: [{{{WHO}, rights: [root]}}]}}",
        ".allow.0.rights.0",
        '"root"; allowed is call, run or',
    ),
    (f"{{{URL}, allow: [{{rights: [admin]}}]}}", ".allow.0", "it lets nobody in; write people, roles or"),
    (
        f"{{{URL}, allow: [{{people: [ada], rights: [admin]}}]}}",
        ".allow.0.people.0",
        '"ada"; allowed is an e-mail address such as',
    ),
    (
        f"{{{URL}, allow: [{{people: ['*@x.org'], rights: [admin]}}]}}",
        ".allow.0.people.0",
        "an e-mail address",
    ),
    (f"{{{URL}, allow: [{{roles: [anonymous], rights: [admin]}}]}}", ".allow.0.roles.0", "has not signed in"),
    (
        f"{{{URL}, allow: [{{workspaces: [public], rights: [admin]}}]}}",
        ".allow.0.workspaces.0",
        "everybody is",
    ),
    (
        f"{{{URL}, allow: [{{workspaces: ['*'], rights: [admin]}}]}}",
        ".allow.0.workspaces.0",
        "without patterns",
    ),
    (
        f"{{{URL}, allow: [{{{WHO}, rights: [run]}}]}}",
        ".allow.0.rights",
        "run needs provider.gateway.sandbox",
    ),
    (
        f"{{{URL}, allow: [{{{WHO}, rights: [call]}}]}}",
        ".allow.0.rights",
        "call needs provider.gateway.functio",
    ),
    (
        f"{{{URL}, functions: m, allow: [{{{WHO}, rights: [admin], functions: [f]}}]}}",
        ".allow.0.functions",
        "functions are for the right call",
    ),
    (
        f"{{{URL}, functions: m, allow: [{{{WHO}, rights: [call], functions: []}}]}}",
        ".allow.0.functions",
        "an empty list; write the functions' names",
    ),
    (
        f"{{{URL}, functions: m, allow: [{{{WHO}, rights: [call], functions: ['f*']}}]}}",
        ".allow.0.functions.0",
        '"f*"; allowed is the name of a published function',
    ),
    (
        f"{{{URL}, allow: [{{{WHO}, rights: [admin], limits: {{calls_at_a_time: }}}}]}}",
        ".allow.0.limits.calls_at_a_time",
        "nothing (null); allowed is a whole number, 1 or more, or unlimited",
    ),
    (
        f"{{{URL}, allow: [{{{WHO}, rights: [admin], limits: {{gpu_s_per_day: -1}}}}]}}",
        ".allow.0.limits.gpu_s_per_day",
        "-1; allowed is a number of GPU seconds, 0 or more, or unlimited",
    ),
    (
        f"{{{URL}, allow: [{{{WHO}, rights: [admin], limits: {{gpu_per_day: 1}}}}]}}",
        ".allow.0.limits.gpu_per_day",
        "unknown key (did you mean gpu_s_per_day?); allowed are calls_at_a_time",
    ),
]


@pytest.mark.parametrize(("section", "key", "said"), WRONG)
def test_what_is_wrong_is_said_with_its_line(problems: Problems, section: str, key: str, said: str) -> None:
    (found,) = problems(with_gateway(section))
    assert found.startswith(f"cluster.yaml:5: provider.gateway{key}: ")
    assert said in found
    assert SECRET not in found


def test_all_is_said_at_once(problems: Problems) -> None:
    text = f"{{{URL}, sandbox: none, service_id: '', allow: [{{people: [x], rights: [run, call]}}, {{}}]}}"
    assert [line.split(": ")[1] for line in problems(with_gateway(text))] == [
        "provider.gateway.allow.0.people.0",
        "provider.gateway.allow.0.rights",
        "provider.gateway.allow.1",
        "provider.gateway.allow.1.rights",
        "provider.gateway.sandbox",
        "provider.gateway.service_id",
    ]


def test_it_belongs_under_provider(problems: Problems) -> None:
    (found,) = problems("gateway: {}\n" + GOOD)
    assert found == "cluster.yaml:1: gateway: is not allowed here: it belongs under provider"


def test_a_file_of_functions_must_be_there(problems: Problems, load: Load, tmp_path: Path) -> None:
    text = with_gateway(f"{{{URL}, functions: lab/f.py}}")
    (found,) = problems(text, on_disk=True)
    assert 'provider.gateway.functions: "lab/f.py": there is no' in found
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "f.py").touch()
    assert load(text, on_disk=True).gateway is not None


def test_a_copy_elsewhere_finds_the_functions(load: Load, tmp_path: Path) -> None:
    spec = load(with_gateway(f"{{{URL}, functions: f.py, workspace: lab}}"))
    provider = absolute_paths(tmp_path / "cluster.yaml", spec)["provider"]
    assert provider["gateway"]["functions"] == str(tmp_path / "f.py")
    assert provider["gateway"]["workspace"] == "lab"
    spec = load(with_gateway(f"{{{URL}, functions: lab.f}}"))
    assert absolute_paths(tmp_path / "cluster.yaml", spec) == {}
