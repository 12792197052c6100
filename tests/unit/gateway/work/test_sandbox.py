"""The command lines and environments of sandboxes: what is shown, and above all what is not."""

from __future__ import annotations

import dataclasses

import pytest

from heliostat.gateway.work.sandbox import Ask, Folder, Node, command, environment


def folder(path: str, real: str = "", *, is_owners: bool = False) -> Folder:
    return Folder(path, real or path, is_owners)


NODE = Node(
    python="/home/ada/env/bin/python",
    folders=[
        folder("/home/ada/env", is_owners=True),
        folder("/home/ada/env/bin", is_owners=True),
        folder("/home"),
        folder("/home/ada", is_owners=True),
        folder("/export", "/gpfs"),
        folder("/usr"),
        folder("/usr/lib/python3"),
    ],
    paths=[
        folder("/apps/py"),
        folder("/apps/py/lib"),
        folder("/home/ada/plans"),
        folder("/gpfs/home/ada/plans"),
        folder("/apps/link", "/gpfs/home/ada/plans"),
        folder("/project/ada", is_owners=True),
    ],
    top={"/bin": "usr/bin", "/lib": "usr/lib", "/lib64": ""},
    devices=["/dev/nvidia0", "/dev/nvidiactl"],
    homes=["/gpfs/home/ada", "/home/ada"],
    environment={
        "PATH": "/home/ada/bin:/opt/apptainer/bin",
        "RAY_AUTH_TOKEN_PATH": "/home/ada/.ray/auth_token",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "LD_LIBRARY_PATH": "/apps/py/lib:/project/ada::relative",
        "CUDA_VISIBLE_DEVICES": "2",
        "CUDA_DEVICE_ORDER": "FASTEST_FIRST",
    },
    gpu_environment={"CUDA_VISIBLE_DEVICES": "0", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"},
    image_cache="/home/ada/.apptainer/cache",
)


def ask(kind: str, **changes: object) -> Ask:
    plain = Ask(kind=kind, base="/tmp/hel-call-1", cpus=2.0, gpus=0.0, image="/images/py.sif")
    return dataclasses.replace(plain, **changes)  # type: ignore[arg-type]


def pairs(argv: list[str], *options: str) -> dict[str, str]:
    """Return destination → source of each bind among `options`."""
    return {argv[at + 2]: argv[at + 1] for at, word in enumerate(argv) if word in options}


def test_no_sandbox_is_python_alone() -> None:
    assert command(ask("none"), NODE) == [NODE.python, "-s", "/tmp/hel-call-1/code/script_host.py"]


def test_bwrap_shows_python_and_the_system_and_no_home() -> None:
    argv = command(ask("bwrap"), NODE)
    seen = pairs(argv, "--ro-bind", "--ro-bind-try", "--bind", "--dev-bind-try")
    assert {
        "/usr",
        "/sys",
        "/lib64",
        "/home/ada/env",
        "/apps/py",
        "/scratch",
        "/tmp",
        "/heliostat",
    } <= seen.keys()
    assert not {"/", "/home", "/home/ada", "/etc", "/etc/passwd", "/dev/nvidia0", "/export"} & seen.keys()


def test_bwrap_shows_no_work_of_the_owners() -> None:
    seen = pairs(command(ask("bwrap"), NODE), "--ro-bind", "--ro-bind-try")
    assert not [path for path in seen if "plans" in path or path in {"/apps/link", "/project/ada"}]


def test_bwrap_lets_only_its_own_folders_be_written() -> None:
    argv = command(ask("bwrap"), NODE)
    written = pairs(argv, "--bind")
    assert sorted(written) == ["/dev/shm", "/scratch", "/tmp"]
    assert all(source.startswith("/tmp/hel-call-1/") for source in written.values())
    assert argv.index("/") > argv.index("/home/ada/env")
    assert [argv[at + 1] for at, word in enumerate(argv) if word == "--remount-ro"] == ["/dev", "/"]


def test_bwrap_cuts_off_the_network_and_other_processes() -> None:
    argv = command(ask("bwrap"), NODE)
    assert {"--unshare-net", "--unshare-pid", "--unshare-ipc", "--die-with-parent", "--cap-drop"} <= set(argv)


def test_bwrap_lets_no_namespace_be_made_where_it_can() -> None:
    locking = command(ask("bwrap"), dataclasses.replace(NODE, locks_namespaces=True))
    assert "--disable-userns" in locking
    assert "--unshare-user" in locking, "it wants both"
    assert "--unshare-user-try" in command(ask("bwrap"), NODE)


def test_bwrap_makes_a_link_where_the_system_has_one() -> None:
    argv = command(ask("bwrap"), NODE)
    assert pairs(argv, "--symlink") == {"/bin": "usr/bin", "/lib": "usr/lib"}


def test_parents_are_bound_before_what_is_in_them() -> None:
    argv = command(ask("bwrap"), NODE)
    assert argv.index("/home/ada/env") < argv.index("/home/ada/env/bin")
    assert argv.index("/tmp") < argv.index("/home/ada/env")


@pytest.mark.parametrize("kind", ["bwrap", "apptainer"])
def test_gpus_are_shown_to_who_asks_for_one(kind: str) -> None:
    with_gpu, without = command(ask(kind, gpus=1.0), NODE), command(ask(kind), NODE)
    shown = set(with_gpu) - set(without)
    assert shown == ({"--dev-bind-try", *NODE.devices} if kind == "bwrap" else {"--nv"})


def test_apptainer_contains_everything() -> None:
    argv = command(ask("apptainer"), NODE)
    assert argv[:5] == ["apptainer", "--silent", "exec", "--containall", "--cleanenv"]
    assert argv[-4:] == ["/images/py.sif", "python3", "-s", "/heliostat/script_host.py"]
    assert argv[argv.index("--no-mount") + 1] == "hostfs,bind-paths"
    assert argv[argv.index("--network") + 1] == "none"
    assert argv[argv.index("--home") + 1] == "/tmp/hel-call-1/scratch:/scratch"


def test_an_unknown_sandbox_is_a_defect() -> None:
    with pytest.raises(AssertionError, match="is no sandbox"):
        command(ask("docker"), NODE)


@pytest.mark.parametrize("kind", ["none", "bwrap", "apptainer"])
def test_no_secret_of_the_owner_is_in_the_environment(kind: str) -> None:
    found = environment(ask(kind), NODE)
    assert not any("ada/.ray" in text or text == "secret" for text in found.values())
    assert not [name for name in found if name.startswith(("RAY_", "AWS_"))]


def test_the_environment_is_that_of_a_stranger() -> None:
    assert environment(ask("bwrap"), NODE) == {
        "PATH": "/home/ada/env/bin:/usr/local/bin:/usr/bin:/bin",
        "LD_LIBRARY_PATH": "/apps/py/lib",
        "HOME": "/scratch",
        "TMPDIR": "/tmp",
        "LANG": "C.UTF-8",
        "USER": "script",
        "LOGNAME": "script",
        "OMP_NUM_THREADS": "2",
        "OPENBLAS_NUM_THREADS": "2",
        "MKL_NUM_THREADS": "2",
        "CUDA_VISIBLE_DEVICES": "",
    }


def test_without_a_sandbox_all_is_where_it_was() -> None:
    assert environment(ask("none"), NODE)["LD_LIBRARY_PATH"] == "/apps/py/lib:/project/ada"


@pytest.mark.parametrize(
    ("kind", "number", "order"),
    [("none", "2", "FASTEST_FIRST"), ("bwrap", "0", "PCI_BUS_ID")],
)
def test_gpus_have_the_numbers_that_they_have_there(kind: str, number: str, order: str) -> None:
    found = environment(ask(kind, gpus=1.0), NODE)
    assert (found["CUDA_VISIBLE_DEVICES"], found["CUDA_DEVICE_ORDER"]) == (number, order)


def test_an_image_that_is_fetched_is_kept() -> None:
    fetched = environment(ask("apptainer", image="docker://python:3.12"), NODE)
    assert fetched["APPTAINER_CACHEDIR"] == "/home/ada/.apptainer/cache"
    assert fetched["HOME"] == "/tmp/hel-call-1/scratch"
    assert "APPTAINER_CACHEDIR" not in environment(ask("apptainer"), NODE)


def test_an_image_gets_its_variables_by_apptainers_names() -> None:
    found = environment(ask("apptainer", gpus=1.0), NODE)
    assert found["APPTAINERENV_CUDA_VISIBLE_DEVICES"] == "2"
    assert found["PATH"] == NODE.environment["PATH"]
    assert "APPTAINERENV_HOME" not in found
