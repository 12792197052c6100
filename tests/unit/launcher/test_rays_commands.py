"""Ray's commands, run by Ray's own code: what each asks of Heliostat, and that it asks nothing else."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from heliostat.launcher import copies
from tests.unit.launcher.conftest import FILE, FakeHeliostat, Ray, worker

ELSEWHERE = "n17"


@pytest.fixture(autouse=True)
def nothing_in_the_home_folder(file: Path, tmp_path: Path) -> object:
    yield
    home = tmp_path / "home"
    assert not home.exists() or not list(home.rglob("ray_bootstrap*"))
    assert not list(tmp_path.glob("ray-config-*")), "a config that may go stale"


def up_words(file: Path, *more: str) -> tuple[str, ...]:
    return ("up", str(file), "--detach", "--wait", "45s", *more)


def test_up_starts_the_cluster_of_the_users_file(ray: Ray, heliostat: FakeHeliostat, file: Path) -> None:
    result = ray("up", str(file), "--yes")
    assert result.exit_code == 0, result.output
    assert heliostat.asked == [up_words(file)]


def test_what_ray_lays_over_the_file_is_passed_on(ray: Ray, heliostat: FakeHeliostat, file: Path) -> None:
    heliostat.record = replace(heliostat.record, cluster_name="other")
    result = ray("up", str(file), "--yes", "--max-workers", "0", "-n", "other", "--no-config-cache")
    assert result.exit_code == 0, result.output
    assert heliostat.asked == [up_words(file, "--name", "other", "--max-workers", "0")]


@pytest.mark.parametrize("option", [(), ("--no-restart",), ("--no-config-cache",)])
def test_up_again_brings_the_file_and_starts_nothing_anew(
    ray: Ray, heliostat: FakeHeliostat, file: Path, option: tuple[str, ...]
) -> None:
    heliostat.is_up()
    # Another head to Ray's eyes: other options, another type.
    file.write_text(FILE.replace("CPU: 0}, node_config: {backend: local", "CPU: 0}, node_config: {a: b"))
    result = ray("up", str(file), "--yes", "--max-workers", "3", *option)
    assert result.exit_code == 0, result.output
    assert heliostat.asked == [("apply", str(file), "--max-workers", "3")]


@pytest.mark.parametrize(("command", "code"), [("up", 1), ("up", 2), ("up", 130), ("apply", 1), ("apply", 2)])
def test_a_failure_is_rays_exit_code(
    ray: Ray, heliostat: FakeHeliostat, file: Path, command: str, code: int
) -> None:
    heliostat.codes = {command: code}
    if command == "apply":
        heliostat.is_up()
    result = ray("up", str(file), "--yes")
    assert result.exit_code == code
    assert "Traceback" not in result.output


def test_a_head_that_queues_is_left_waiting_and_taken_up_again(
    ray: Ray, heliostat: FakeHeliostat, file: Path
) -> None:
    heliostat.queued = True
    for _ in range(2):
        result = ray("up", str(file), "--yes")
        assert result.exit_code == 0
        assert f"demo is waiting, nothing runs yet: `ray up {file}` again goes on" in result.stderr
    assert heliostat.asked == [up_words(file)] * 2
    result = ray("exec", str(file), "date")
    assert result.exit_code == 1
    assert "demo waits for its head: Slurm job 17 (Priority)" in result.stderr
    assert ray("exec", "--start", str(file), "date").exit_code == 1
    assert ray("down", str(file), "--yes").exit_code == 0
    assert heliostat.asked[-1] == ("down", "demo")


def test_down_takes_all_and_stops_no_other_ray(ray: Ray, heliostat: FakeHeliostat, file: Path) -> None:
    heliostat.is_up()
    heliostat.workers = [worker("w1"), worker("w2")]
    result = ray("down", str(file), "--yes")
    assert result.exit_code == 0, result.output
    assert heliostat.asked == [("down", "demo")]
    assert "No nodes remaining" in result.output


def test_down_of_one_that_does_not_answer(ray: Ray, heliostat: FakeHeliostat, file: Path) -> None:
    heliostat.is_up()
    heliostat.silent = "demo does not run here"
    assert ray("down", str(file), "--yes").exit_code == 0
    assert heliostat.asked == [("down", "demo")]


def test_a_way_down_that_fails_is_told(ray: Ray, heliostat: FakeHeliostat, file: Path) -> None:
    heliostat.is_up()
    heliostat.codes = {"down": 1}
    assert ray("down", str(file), "--yes").exit_code == 1


def test_down_of_one_that_is_not_up_says_so(ray: Ray, heliostat: FakeHeliostat, file: Path) -> None:
    result = ray("down", str(file), "--yes")
    assert result.exit_code == 0
    assert "demo is not up: there is nothing to take down" in result.stderr
    assert heliostat.asked == []


def test_down_of_a_file_that_has_become_wrong(ray: Ray, heliostat: FakeHeliostat, file: Path) -> None:
    heliostat.is_up()
    file.write_text(FILE.replace("max_workers: 2", "max_workers: 2\nno_such_key: {}"))
    assert ray("down", str(file), "--yes").exit_code == 0
    assert heliostat.asked == [("down", "demo")]


def test_only_the_workers_go_and_each_is_told_once(ray: Ray, heliostat: FakeHeliostat, file: Path) -> None:
    heliostat.is_up()
    # They still end when Ray looks again.
    heliostat.workers = [worker("w1"), worker("w2", state="starting")]
    result = ray("down", str(file), "--yes", "--workers-only")
    assert result.exit_code == 0, result.output
    assert heliostat.asked == [
        ("remove", f"l1.{name}", "--deadline", "30s", "--cluster", "demo") for name in ("w1", "w2")
    ]


@pytest.mark.parametrize("autoscaler", ["v1", "v2"])
def test_workers_that_rays_autoscaler_would_bring_back_do_not_go_alone(
    ray: Ray, heliostat: FakeHeliostat, file: Path, autoscaler: str
) -> None:
    heliostat.record = replace(heliostat.record, autoscaler=autoscaler)
    heliostat.is_up()
    heliostat.workers = [worker("w1")]
    result = ray("down", str(file), "--yes", "--workers-only")
    assert result.exit_code == 2, result.output
    assert "--workers-only: Ray's own autoscaler decides in demo" in result.stderr
    assert heliostat.asked == []
    assert ray("down", str(file), "--yes").exit_code == 0
    assert heliostat.asked == [("down", "demo")]


def test_exec_runs_beside_the_head_with_its_python_first(
    ray: Ray, heliostat: FakeHeliostat, file: Path
) -> None:
    heliostat.is_up()
    heliostat.codes = {"shell": 7}
    result = ray("exec", str(file), "python x.py 'a b'")
    assert result.exit_code == 7
    assert heliostat.asked == [("shell", "demo", "--command", "python x.py 'a b'")]
    assert heliostat.paths[0].startswith(f"/opt/venv/bin{os.pathsep}")


def test_exec_can_start_the_cluster_and_stop_it(ray: Ray, heliostat: FakeHeliostat, file: Path) -> None:
    heliostat.codes = {"shell": 3}
    result = ray("exec", "--start", "--stop", str(file), "date")
    assert result.exit_code == 3, result.output
    assert heliostat.asked == [up_words(file), ("shell", "demo", "--command", "date"), ("down", "demo")]


def test_submit_runs_the_script_where_it_lies(
    ray: Ray, heliostat: FakeHeliostat, file: Path, tmp_path: Path
) -> None:
    heliostat.is_up()
    script = tmp_path / "my work.py"
    script.touch()
    result = ray("submit", str(file), str(script), "--", "--fast", "1")
    assert result.exit_code == 0, result.output
    assert heliostat.asked == [("shell", "demo", "--command", f"python '{script}' --fast 1")]
    assert not list((tmp_path / "home").iterdir())


def test_submit_start_and_stop(ray: Ray, heliostat: FakeHeliostat, file: Path, tmp_path: Path) -> None:
    (tmp_path / "x.py").touch()
    result = ray("submit", "--start", "--stop", str(file), str(tmp_path / "x.py"))
    assert result.exit_code == 0, result.output
    run = ("shell", "demo", "--command", f"python {tmp_path / 'x.py'}")
    assert heliostat.asked == [up_words(file), run, ("down", "demo")]


def test_a_script_that_is_not_there(ray: Ray, heliostat: FakeHeliostat, file: Path) -> None:
    heliostat.is_up()
    result = ray("submit", str(file), "no.py")
    assert result.exit_code == 1
    assert "heliostat: no.py: no such file" in result.stderr
    assert heliostat.asked == []


def test_attach_is_a_shell_beside_the_head(ray: Ray, heliostat: FakeHeliostat, file: Path) -> None:
    heliostat.is_up()
    assert ray("attach", str(file)).exit_code == 0
    assert heliostat.asked == [("shell", "demo")]


def test_attach_by_address(ray: Ray, heliostat: FakeHeliostat, file: Path) -> None:
    heliostat.is_up()
    heliostat.workers = [worker("w1", host="10.1.4.9")]
    assert ray("attach", str(file), "--node-ip", "10.1.4.2").exit_code == 0
    assert heliostat.asked == [("shell", "demo")]
    result = ray("attach", str(file), "--node-ip", "10.1.4.9")
    assert result.exit_code == 1
    assert "commands run beside the head; l1.w1 is a worker" in result.stderr


def test_monitor_shows_this_clusters_log(ray: Ray, heliostat: FakeHeliostat, file: Path) -> None:
    heliostat.is_up()
    assert ray("monitor", str(file), "--lines", "7").exit_code == 0
    line = "tail -n 7 -f /tmp/hel-1/session_1/logs/monitor*"
    assert heliostat.asked == [("shell", "demo", "--command", line)]


def test_the_dashboard_is_told(ray: Ray, heliostat: FakeHeliostat, file: Path) -> None:
    heliostat.is_up()
    result = ray("dashboard", str(file))
    assert result.exit_code == 0
    assert "the dashboard of demo is on this machine: http://127.0.0.1:8266" in result.stderr
    heliostat.record = replace(heliostat.record, host=ELSEWHERE)
    heliostat.is_up()
    result = ray("dashboard", str(file))
    assert result.exit_code == 1
    assert "ssh -N -L 8266:127.0.0.1:8266 n17" in result.stderr


def test_ports_of_this_machine_need_no_tunnel_and_others_get_none(
    ray: Ray, heliostat: FakeHeliostat, file: Path
) -> None:
    heliostat.is_up()
    assert ray("exec", str(file), "date", "-p", "8265").exit_code == 0
    heliostat.record = replace(heliostat.record, host=ELSEWHERE)
    heliostat.is_up()
    result = ray("exec", str(file), "date", "-p", "8265")
    assert result.exit_code == 1
    assert "the head is on n17; `ssh -N -L 8265:127.0.0.1:8265 n17` forwards it" in result.stderr
    assert len(heliostat.asked) == 1


def test_addresses(ray: Ray, heliostat: FakeHeliostat, file: Path) -> None:
    heliostat.is_up()
    heliostat.workers = [worker("w1"), worker("w2", host="10.1.4.9"), worker("w3", host="no.such.invalid")]
    assert ray("get-head-ip", str(file)).stdout == "10.1.4.2\n"
    assert ray("get-worker-ips", str(file)).stdout == "10.1.4.2\n10.1.4.9\nno.such.invalid\n"


def test_copies_are_in_place(ray: Ray, heliostat: FakeHeliostat, file: Path, tmp_path: Path) -> None:
    heliostat.is_up()
    (tmp_path / "a.txt").write_text("a")
    for command in ("rsync-up", "rsync-down"):
        copy = tmp_path / f"{command}.txt"
        result = ray(command, str(file), str(tmp_path / "a.txt"), str(copy))
        assert result.exit_code == 0, result.output
        assert copy.read_text() == "a"
    itself = ray("rsync-up", str(file), str(tmp_path / "a.txt"), str(tmp_path))
    assert itself.exit_code == 0
    assert "is there already: nothing to copy" in itself.stderr
    assert heliostat.asked == []


def test_a_copy_for_a_head_elsewhere_goes_where_that_sees_it(
    ray: Ray, heliostat: FakeHeliostat, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, project = tmp_path / "own", tmp_path / "project"
    for folder in (own, project):
        folder.mkdir()
        (folder / "a.txt").write_text("a")
    heliostat.record = replace(heliostat.record, host=ELSEWHERE, source=str(project / "cluster.yaml"))
    heliostat.is_up()
    for words in (
        ("rsync-up", str(file), f"{own}/a.txt", f"{own}/b.txt"),
        ("rsync-down", str(file), f"{own}/a.txt", f"{project}/b.txt"),
    ):
        result = ray(*words)
        assert result.exit_code == 1
        assert "the head is on n17, which need not see this host's files there" in result.stderr
    monkeypatch.setattr(copies, "OWN_FOLDERS", (str(tmp_path),))
    # What all hosts have for themselves is none that they share, also if the cluster file lies there.
    assert ray("rsync-up", str(file), f"{own}/a.txt", f"{project}/b.txt").exit_code == 1
    assert ray("rsync-up", str(file), f"{own}/a.txt", "~/b.txt").exit_code == 0
    monkeypatch.setattr(copies, "OWN_FOLDERS", ())
    result = ray("rsync-up", str(file), f"{own}/a.txt", f"{project}/b.txt")
    assert f"which shares {project}/b.txt with n17, the head's host" in result.stderr
    assert ray("rsync-down", str(file), f"{project}/a.txt", f"{own}/c.txt").exit_code == 0
    for path in (tmp_path / "home" / "b.txt", project / "b.txt", own / "c.txt"):
        assert path.read_text() == "a"
    assert not (own / "b.txt").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("up", "FILE", "--yes", "--min-workers", "0"), "set min_workers of a node type"),
        (("up", "FILE", "--yes", "--restart-only"), "nothing that runs is restarted"),
        (("down", "FILE", "--yes", "--keep-min-workers"), "workers end with their head"),
        (("exec", "FILE", "date", "--tmux"), "start screen or tmux yourself"),
        (("submit", "FILE", "x.py", "--screen"), "start screen or tmux yourself"),
        (("attach", "FILE", "--tmux"), "start screen or tmux yourself"),
        (("exec", "FILE", "date", "--run-env", "docker"), "starts no containers"),
        (("rsync-up", "FILE"), "name a source and a target"),
        (("rsync-down", "FILE"), "name a source and a target"),
        (("rsync-up", "--all-nodes", "FILE", "a", "b"), "Heliostat logs in to no worker"),
        (("kill-random-node", "FILE", "--yes"), "`heliostat remove` lets a worker go safely"),
        (("cluster-dump", "FILE"), "logs in to each node by ssh"),
    ],
)
def test_what_is_refused(
    ray: Ray, heliostat: FakeHeliostat, file: Path, words: tuple[str, ...], said: str
) -> None:
    heliostat.is_up()
    result = ray(*(str(file) if word == "FILE" else word for word in words))
    assert result.exit_code == 2, result.output
    assert said in result.stderr
    assert "Traceback" not in result.output
    assert heliostat.asked == []


@pytest.mark.parametrize(
    "command",
    [
        "ray stop",
        "  ray stop --force",
        "true; ray stop",
        "cd x && ray stop --force",
        "false || ray stop",
        "(ray stop)",
        "date\nray stop",
        "for a in 1; do ray stop; done",
        'A="b c" /opt/venv/bin/ray stop',
        "echo it\\'s over; ray stop",
        "sudo shutdown -h now",
        "sudo -n shutdown",
        "sudo -u root /sbin/shutdown now",
        "date; sudo systemctl poweroff",
        "reboot",
    ],
)
def test_what_would_harm_others_is_not_run(
    ray: Ray, heliostat: FakeHeliostat, file: Path, command: str
) -> None:
    heliostat.is_up()
    result = ray("exec", str(file), command)
    assert result.exit_code == 1
    assert "`ray down` takes" in result.stderr
    assert heliostat.asked == []


@pytest.mark.parametrize(
    "command",
    [
        'echo "ray stop"',
        "echo 'a; ray stop'",
        "echo ray stop",
        "ray job stop x",
        "ray stop-watch",
        "./shutdown.py",
        "python -c 'print(1); reboot'",
        "cd reboot; ls",
        "reboot/run.sh",
    ],
)
def test_what_only_looks_like_it_is_run(ray: Ray, heliostat: FakeHeliostat, file: Path, command: str) -> None:
    heliostat.is_up()
    assert ray("exec", str(file), command).exit_code == 0
    assert heliostat.asked == [("shell", "demo", "--command", command)]


@pytest.mark.parametrize(
    "command", ["exec", "attach", "monitor", "rsync-up", "get-head-ip", "submit", "dashboard"]
)
def test_without_a_cluster_it_says_how_to_get_one(
    ray: Ray, heliostat: FakeHeliostat, file: Path, command: str
) -> None:
    more = {"exec": ["date"], "rsync-up": ["a", "b"], "submit": [str(file)]}.get(command, [])
    result = ray(command, str(file), *more)
    assert result.exit_code == 1
    assert f"demo is not up; `ray up {file}` starts it" in result.output
    assert "Traceback" not in result.output


def test_a_head_that_never_came_up_is_told_with_its_log_and_asked_for_anew(
    ray: Ray, heliostat: FakeHeliostat, file: Path
) -> None:
    heliostat.is_up()
    heliostat.silent = "the head of demo never came up: its job is over\n/log:\n  no such module"
    result = ray("exec", str(file), "date")
    assert result.exit_code == 1
    assert result.stderr.endswith(f"heliostat:   no such module\nheliostat: `ray up {file}` starts it\n")
    heliostat.codes = {"up": 1}
    assert ray("up", str(file), "--yes").exit_code == 1
    assert heliostat.asked == [up_words(file)]


def test_the_wait_for_a_queue_is_the_persons(
    ray: Ray, heliostat: FakeHeliostat, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HELIOSTAT_UP_WAIT", "10m")
    assert ray("up", str(file), "--yes").exit_code == 0
    assert heliostat.asked == [("up", str(file), "--detach", "--wait", "10m")]
