from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from heliostat.cli import start
from heliostat.cli.launch_file import LaunchFile
from heliostat.cli.main import COMMANDS
from heliostat.config.record import ClusterRecord, read_record, write_record
from heliostat.model.gcs_storage import GcsStorage
from heliostat.model.report import FailureReport
from heliostat.ports.errors import Refused
from tests.unit.api.fakes import NOW_S, FakeOperations, instance, report
from tests.unit.cli.conftest import Invoke, record_cluster
from tests.valkey import valkey

NAMES = [name for section in COMMANDS.values() for name in section]
pytestmark = pytest.mark.usefixtures("state")


@pytest.mark.parametrize("name", NAMES)
def test_every_command_has_help_with_an_example(invoke: Invoke, name: str) -> None:
    result = invoke(name, "--help")
    assert result.exit_code == 0
    assert "Example" in result.output
    assert f"heliostat {name}" in result.output


def test_help_lists_every_command_with_its_own_words(invoke: Invoke) -> None:
    from heliostat.cli.main import Commands, cli

    assert isinstance(cli, Commands)
    output = invoke("--help").output
    for section in COMMANDS.values():
        for name, words in section.items():
            assert words in output
            command = cli.get_command(None, name)  # type: ignore[arg-type]
            assert command is not None
            assert command.short_help == words


def test_an_unknown_command_is_bad_input(invoke: Invoke) -> None:
    result = invoke("fly")
    assert result.exit_code == 2
    assert "No such command 'fly'" in result.output


def test_status_is_plain_in_a_pipe(invoke: Invoke, cluster: ClusterRecord) -> None:
    result = invoke("status")
    assert result.exit_code == 0
    assert "demo: running, up for 62 min" in result.output
    assert "\x1b" not in result.output


def test_status_as_json_is_the_report(invoke: Invoke, cluster: ClusterRecord) -> None:
    facts = json.loads(invoke("status", "demo", "--json").output)
    assert facts["instances"][0]["name"] == "w1"
    assert facts["at_s"] == NOW_S


def test_a_cluster_may_be_named_by_its_file(invoke: Invoke, cluster: ClusterRecord, tmp_path: Path) -> None:
    path = tmp_path / "any.yaml"
    path.write_text("cluster_name: demo\n")
    assert invoke("status", str(path)).exit_code == 0
    path.write_text("cluster_name: [1]\n")
    result = invoke("status", str(path))
    assert result.exit_code == 2
    assert f"{path}: cluster_name is missing or no plain name" in result.output
    path.write_text("a: [\n")
    assert invoke("status", str(path)).exit_code == 2
    assert invoke("status", str(tmp_path / "missing.yaml")).exit_code == 1


def test_nothing_runs(invoke: Invoke) -> None:
    result = invoke("status")
    assert result.exit_code == 1
    assert result.stderr.startswith("heliostat: no cluster runs here")
    assert "heliostat up FILE" in result.stderr


def test_an_unknown_cluster_lists_those_that_run(invoke: Invoke, cluster: ClusterRecord) -> None:
    result = invoke("status", "other")
    assert result.exit_code == 1
    assert "other does not run here: running are demo" in result.stderr


def test_several_clusters_want_a_name(invoke: Invoke, cluster: ClusterRecord, state: Path) -> None:
    record_cluster(state, "second", Path(cluster.runtime_dir))
    result = invoke("status")
    assert result.exit_code == 2
    assert "say which: demo, second" in result.stderr
    assert invoke("pause", "--cluster", "demo").exit_code == 0


def test_a_record_whose_process_is_gone_does_not_count(
    invoke: Invoke, cluster: ClusterRecord, state: Path
) -> None:
    assert cluster.wrapper is not None
    later = replace(cluster.wrapper, start_ticks=cluster.wrapper.start_ticks + 1)
    write_record(state / "demo" / "cluster.json", replace(cluster, wrapper=later))
    assert invoke("status").exit_code == 1
    assert "no cluster runs here" in invoke("list").output


def test_a_controller_that_does_not_answer_is_told(
    invoke: Invoke, cluster: ClusterRecord, state: Path, tmp_path: Path
) -> None:
    silent = replace(cluster, runtime_dir=str(tmp_path))
    write_record(state / "demo" / "cluster.json", silent)
    result = invoke("status")
    assert result.exit_code == 1
    assert f"demo is starting, and nobody answers yet; its logs are in {state}/demo/logs" in result.stderr
    write_record(state / "demo" / "cluster.json", replace(silent, session_name="session_1"))
    assert "no controller of demo answers here" in invoke("status").stderr
    assert "no answer" in invoke("list").output


def test_a_head_whose_host_is_being_set_up_is_said_and_listed(
    invoke: Invoke, cluster: ClusterRecord, state: Path, tmp_path: Path
) -> None:
    silent = replace(cluster, runtime_dir=str(tmp_path))
    folder = state / "demo"
    write_record(folder / "cluster.json", silent)
    setup: dict[str, object] = {"commands": [["setup_commands.0", "sleep 200"]]}
    LaunchFile([], {}, "", "", "u123", str(tmp_path), str(tmp_path), head_setup=setup).write(folder)
    log = folder / "logs" / "head.log"
    assert f"demo is starting: the head's host is being set up; the log is {log}" in invoke("status").stderr
    assert "starting" in invoke("list").output
    assert cluster.wrapper is not None
    write_record(folder / "cluster.json", replace(silent, head=cluster.wrapper))
    assert "and nobody answers yet" in invoke("status").stderr


def test_list_shows_facts(invoke: Invoke, cluster: ClusterRecord) -> None:
    assert "demo" in invoke("list").output
    facts = json.loads(invoke("list", "--json").output)
    assert [(one["cluster_name"], one["phase"], one["workers"]) for one in facts] == [("demo", "running", 2)]


def test_a_damaged_record_is_said_and_the_rest_listed(
    invoke: Invoke, cluster: ClusterRecord, state: Path
) -> None:
    (state / "broken").mkdir()
    (state / "broken" / "cluster.json").write_text("{")
    result = invoke("list")
    assert "demo" in result.stdout
    assert "broken" in result.stderr


def test_add_waits_until_the_worker_runs(
    invoke: Invoke, cluster: ClusterRecord, operations: FakeOperations
) -> None:
    starting = instance("w3", instance_id="lw3aaaa.0", state="starting", detail="Ray starts")
    operations.reports = [
        report(instances=[starting]),
        report(instances=[replace(starting, state="running")]),
    ]
    result = invoke("add", "gpu")
    assert result.exit_code == 0
    assert result.stdout == "w3 is up\n"
    assert "w3 (gpu) starting: Ray starts" in result.stderr
    assert operations.asked == [("add", "gpu", 1)]


def test_add_says_why_a_worker_did_not_start(
    invoke: Invoke, cluster: ClusterRecord, operations: FakeOperations
) -> None:
    failure = FailureReport("lw3aaaa.0", "gpu", NOW_S, "exit status 1", ["no module named ray"])
    operations.reports = [report(instances=[], failures=[failure])]
    result = invoke("add")
    assert result.exit_code == 1
    assert "heliostat: lw3aaaa.0 did not start: exit status 1" in result.stderr
    assert "no module named ray" in result.stderr


def test_add_without_a_machine_left_is_one_clear_line(
    invoke: Invoke, cluster: ClusterRecord, operations: FakeOperations
) -> None:
    operations.refusal = Refused("conflict", "no GPU is left: 0–3 are taken by head, w1, w2, w3")
    result = invoke("add")
    assert result.exit_code == 1
    assert result.stderr == "heliostat: no GPU is left: 0–3 are taken by head, w1, w2, w3\n"


def test_add_gives_up_after_its_timeout(
    invoke: Invoke, cluster: ClusterRecord, operations: FakeOperations
) -> None:
    operations.reports = [report(instances=[instance("w3", instance_id="lw3aaaa.0", state="queued")])]
    result = invoke("add", "--timeout", "0s")
    assert result.exit_code == 1
    assert "not up after 0 s, but still on the way" in result.stderr


def test_add_can_return_at_once_and_says_what_is_missing(
    invoke: Invoke, cluster: ClusterRecord, operations: FakeOperations
) -> None:
    result = invoke("add", "-n", "2", "--no-wait", "--json")
    assert json.loads(result.stdout)["instance_ids"] == ["lw3aaaa.0"]
    assert result.exit_code == 1
    assert "1 of 2 could not be had" in result.stderr


@pytest.mark.parametrize("arguments", [("-n", "0"), ("-n", "x"), ("--timeout", "soon")])
def test_bad_options_are_bad_input(
    invoke: Invoke, cluster: ClusterRecord, arguments: tuple[str, ...]
) -> None:
    assert invoke("add", *arguments).exit_code == 2


def test_remove_with_a_deadline(invoke: Invoke, cluster: ClusterRecord, operations: FakeOperations) -> None:
    result = invoke("remove", "w1", "--deadline", "10m")
    assert result.output == "w1 goes within 10 min\n"
    assert operations.asked == [("remove", "w1", 600.0)]


def test_remove_waits_until_it_is_gone(
    invoke: Invoke, cluster: ClusterRecord, operations: FakeOperations
) -> None:
    operations.reports = [report(), report(instances=[])]
    result = invoke("remove", "w1", "--wait")
    assert result.stdout == "w1 is gone\n"
    assert "w1 is running" in result.stderr


def test_remove_of_a_stranger(invoke: Invoke, cluster: ClusterRecord, operations: FakeOperations) -> None:
    operations.refusal = Refused("not_found", "no instance is called «w9»: instances are w1")
    result = invoke("remove", "w9")
    assert result.exit_code == 1
    assert "«w9»" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "asked", "words"),
    [
        (("protect", "w1"), ("protect", "w1", True), "w1 stays"),
        (("protect", "w1", "--off"), ("protect", "w1", False), "may go again"),
        (("pause",), ("pause", True), "paused"),
        (("pause", "--off"), ("pause", False), "go on"),
    ],
)
def test_steering(
    invoke: Invoke,
    cluster: ClusterRecord,
    operations: FakeOperations,
    arguments: tuple[str, ...],
    asked: tuple[object, ...],
    words: str,
) -> None:
    result = invoke(*arguments)
    assert words in result.output
    assert operations.asked == [asked]


def test_explain(invoke: Invoke, cluster: ClusterRecord) -> None:
    assert invoke("explain", "w1").output == "instance w1\n  it came because\n"
    assert json.loads(invoke("explain", "--json").output)["kind"] == "cluster"


def test_cost_has_a_total(invoke: Invoke, cluster: ClusterRecord) -> None:
    lines = invoke("cost").output.splitlines()
    assert lines[1].split() == ["2025-10-09", "gpu", "2.00", "4.00", "2.00", "25%", "5.00"]
    assert lines[2].split() == ["total", "2.00", "4.00", "2.00", "25%", "5.00"]


def test_events_are_limited_and_filtered(invoke: Invoke, cluster: ClusterRecord) -> None:
    assert len(invoke("events").output.splitlines()) == 3
    assert len(invoke("events", "--limit", "1").output.splitlines()) == 1
    lines = invoke("events", "--instance", "lw2aaaa.0", "--json").output.splitlines()
    assert [json.loads(line)["seq"] for line in lines] == [3]


def test_what_the_backends_were_asked(invoke: Invoke, cluster: ClusterRecord) -> None:
    lines = invoke("events", "--calls").output.splitlines()
    assert lines[1].split()[2:] == ["local", "launch", "2", "×", "gpu", "under", "way"]
    assert lines[2].split()[2:] == ["local", "terminate", "1", "error", "0.25", "s", "full"]
    (found,) = invoke("events", "--calls", "--limit", "1", "--json").output.splitlines()
    assert json.loads(found)["ended"] == "error"


def test_when_workers_came_and_went(invoke: Invoke, cluster: ClusterRecord) -> None:
    lines = invoke("events", "--times").output.splitlines()
    assert lines[1].split()[:2] == ["w1", "gpu"]
    assert "10 s" in lines[1]
    assert "15 s" in lines[1]
    assert lines[1].endswith("idle")
    assert lines[2].split()[:2] == ["lw2aaaa.0", "gpu"]
    assert invoke("events", "--times", "--follow").exit_code == 2


def test_env_is_for_a_shell_to_read(invoke: Invoke, cluster: ClusterRecord, state: Path) -> None:
    write_record(state / "demo" / "cluster.json", replace(cluster, token_path="/home/ada/a b/token"))
    lines = invoke("env").output.splitlines()
    assert "export RAY_ADDRESS=127.0.0.1:6379" in lines
    assert "export RAY_AUTH_MODE=token" in lines
    assert "export RAY_AUTH_TOKEN_PATH='/home/ada/a b/token'" in lines
    assert "export HELIOSTAT_CLUSTER=demo" in lines
    assert json.loads(invoke("env", "--json").output)["RAY_ADDRESS"] == "127.0.0.1:6379"


@pytest.fixture
def crashed(cluster: ClusterRecord, state: Path) -> ClusterRecord:
    """A cluster whose wrapper is gone and whose head had kept its state."""
    assert cluster.wrapper is not None
    gone = replace(cluster.wrapper, start_ticks=cluster.wrapper.start_ticks + 1)
    storage = GcsStorage("127.0.0.1", 1)
    record = replace(cluster, wrapper=gone, gcs_storage=storage, session_name="session_1")
    write_record(state / "demo" / "cluster.json", record)
    return record


def test_a_crash_says_how_the_cluster_goes_on(invoke: Invoke, crashed: ClusterRecord) -> None:
    result = invoke("status", "demo")
    assert result.exit_code == 1
    assert "it crashed, and its state is kept: `heliostat up" in result.stderr
    assert "`heliostat down demo` ends it" in result.stderr


def test_what_a_crash_left_can_be_taken_down(
    invoke: Invoke, crashed: ClusterRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[ClusterRecord] = []
    monkeypatch.setattr(start, "stop_cluster", lambda record, **_: ended.append(record))
    assert invoke("down", "demo").exit_code == 0
    assert ended == [crashed]
    assert invoke("down", "other").exit_code == 1
    assert invoke("down").exit_code == 1


def test_down_after_a_crash_deletes_what_the_cluster_had_stored(
    invoke: Invoke, crashed: ClusterRecord, state: Path, tmp_path: Path
) -> None:
    mine, other = (f"RAYheliostat-{uid}@KV" for uid in ("u-of-nobody", "u-of-another"))
    with valkey(tmp_path / "valkey", password="sesame") as server:
        with server.link() as link:
            for key in (mine, other):
                link.call("HSET", key, "field", "value")
        path = state / "demo" / "cluster.json"
        record = replace(crashed, cluster_uid="u-of-nobody", runtime_dir=str(state / "none"))
        write_record(path, replace(record, gcs_storage=server.storage))
        assert invoke("down", "demo").exit_code == 0
        assert server.names() == [other]
    assert read_record(path) is None


def test_a_state_that_can_not_be_deleted_keeps_its_record(
    invoke: Invoke, crashed: ClusterRecord, state: Path
) -> None:
    path = state / "demo" / "cluster.json"
    write_record(path, replace(crashed, cluster_uid="u-of-nobody", runtime_dir=str(state / "none")))
    result = invoke("down", "demo")
    assert result.exit_code == 1
    assert "keys RAYheliostat-u-of-nobody@* of demo may be left in redis://127.0.0.1:1: " in result.stderr
    left = read_record(path)
    assert left is not None
    assert left.phase == "down"
