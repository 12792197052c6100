"""`heliostat.launcher.NodeProvider`: the node provider that Ray's launcher loads from a cluster file.

It starts, changes and ends the very cluster that `heliostat up`, `apply` and `down` do, with the
same record and journal; workers come and go by Heliostat's controller.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping
from types import ModuleType
from typing import Any, NoReturn

import click

from heliostat.launcher import heliostat_command, rays_launcher
from heliostat.launcher.asked import Asked, NotForUs, Refused, refuse
from heliostat.launcher.cluster import Cluster, Look
from heliostat.launcher.runner import HEAD_ID, InPlaceRunner

QUEUE_WAIT = "45s"
QUEUE_WAIT_VARIABLE = "HELIOSTAT_UP_WAIT"
"""How long `ray up` waits for a head that has to queue before it leaves it; Ray has no option for it."""

REMOVE_DEADLINE = "30s"
"""`ray down --workers-only`: what work on a worker has to end or to save itself."""

_NO_LOOK = Look(False, {}, "")


class NodeProvider(rays_launcher.RaysProvider):  # type: ignore[misc]
    """What Ray's launcher asks of a cluster's nodes. Node ids are `head` and Heliostat's instance ids.

    Ray may use one object for several steps of a command, and another in each process: the tags that it
    sets are remembered for its own questions only, all else is looked up.
    """

    def __init__(self, provider_config: dict[str, Any], cluster_name: str) -> None:
        super().__init__(provider_config, cluster_name)
        rays_launcher.check_interface()
        refuse(rays_launcher.asked())
        self._cluster = Cluster(cluster_name)
        self._tags: dict[str, dict[str, str]] = {}
        self._seen = _NO_LOOK
        self._made = False
        self._removed: set[str] = set()
        self._was_there = False

    @staticmethod
    def fillout_available_node_types_resources(cluster_config: dict[str, Any]) -> dict[str, Any]:
        """Reduce the config to what Ray's launcher needs, before Ray's validator looks at it."""
        rays_launcher.be_quiet_about_versions()
        return rays_launcher.skeleton(cluster_config)

    @staticmethod
    def bootstrap_config(cluster_config: dict[str, Any]) -> dict[str, Any]:
        """Refuse what can't be honoured, before anything is cached or done."""
        if rays_launcher.NOTE:
            click.echo(f"heliostat: {rays_launcher.NOTE}", err=True)
        rays_launcher.check_interface()
        refuse(rays_launcher.asked())
        return rays_launcher.skeleton(cluster_config)

    def non_terminated_nodes(self, tag_filters: Mapping[str, str]) -> list[str]:
        """Return the head if it is there, and the workers, of those that have the tags.

        Raises Refused where a command needs a head and there is none.
        """
        # Each step of a command writes it, also those that get this very object again.
        rays_launcher.drop_cached(self.provider_config)
        asked = rays_launcher.asked()
        head = [HEAD_ID] if self._head_is_there(asked) else []
        workers = [str(one["instance_id"]) for one in self._seen.workers]
        nodes = [*head, *(workers if rays_launcher.wants_workers(tag_filters) else ())]
        return [one for one in nodes if _has(self.node_tags(one), tag_filters)]

    def nodes_for_teardown(self, tag_filters: Mapping[str, str]) -> list[str]:
        """Return what is left to take down: what was told to go once is not told again and again."""
        return [one for one in self.non_terminated_nodes(tag_filters) if one not in self._removed]

    def _head_is_there(self, asked: Asked) -> bool:
        if asked.takes_down:
            self._refuse_single_workers(asked)
            return self._is_left()
        self._seen = self._cluster.look()
        if not self._seen.is_up and not asked.brings_up:
            # Words of several lines end with those of a log.
            between = "\n" if "\n" in self._seen.words else "; "
            raise Refused(f"{self._seen.words}{between}`ray up {asked.file}` starts it")
        return self._seen.is_up

    def _refuse_single_workers(self, asked: Asked) -> None:
        """Raise NotForUs for `--workers-only` where Ray's own autoscaler says how many workers there are."""
        record = self._cluster.record()
        if asked.options.get("workers_only") and record is not None and record.autoscaler:
            raise NotForUs(
                f"--workers-only: Ray's own autoscaler decides in {record.cluster_name}, and would bring "
                "them back; lower max_workers in the file and `ray up` it, or leave this option out"
            )

    def _is_left(self) -> bool:
        """Say whether anything is written down of the cluster, crashed or queued though it may be."""
        self._seen = self._cluster.look()
        left = self._cluster.record() is not None
        if not left and not self._was_there:
            click.echo(f"{self._cluster.name} is not up: there is nothing to take down", err=True)
            raise SystemExit(0)
        self._was_there = True
        return left

    def is_running(self, node_id: str) -> bool:
        if node_id == HEAD_ID:
            return self._seen.is_up
        return self._worker(node_id).get("state") == "running"

    def is_terminated(self, node_id: str) -> bool:
        return not self._seen.is_up if node_id == HEAD_ID else not self._worker(node_id)

    def node_tags(self, node_id: str) -> dict[str, str]:
        return {**self._derived_tags(node_id), **self._tags.get(node_id, {})}

    def _derived_tags(self, node_id: str) -> dict[str, str]:
        if node_id == HEAD_ID:
            return rays_launcher.head_tags(self._cluster.name)
        worker = self._worker(node_id)
        running = worker.get("state") == "running"
        return rays_launcher.worker_tags(worker.get("node_type", ""), worker.get("name", ""), running=running)

    def set_node_tags(self, node_id: str, tags: Mapping[str, str]) -> None:
        self._tags.setdefault(node_id, {}).update(tags)

    def internal_ip(self, node_id: str) -> str:
        if node_id == HEAD_ID:
            return self._cluster.head_ip()
        host = str(self._worker(node_id).get("host") or "")
        if host in ("", socket.gethostname()):
            return self._cluster.head_ip()
        with contextlib.suppress(OSError):
            return socket.gethostbyname(host)
        return host

    def external_ip(self, node_id: str) -> str:
        return self.internal_ip(node_id)

    def create_node(self, node_config: dict[str, Any], tags: dict[str, str], count: int) -> None:
        """Start the cluster and return when its head is up; one whose head has to queue is left waiting."""
        if not rays_launcher.is_for_head(tags):
            raise Refused("workers come by Heliostat's controller, when work waits for them")
        asked = rays_launcher.asked()
        wait = os.environ.get(QUEUE_WAIT_VARIABLE) or QUEUE_WAIT
        words = ("up", asked.file, "--detach", "--wait", wait, *asked.overrides)
        _end_if_failed(heliostat_command.show(*words))
        record = self._cluster.record()
        if record is not None and not record.address:
            self._leave_waiting(asked)
        self._made = True
        self._tags[HEAD_ID] = dict(tags)

    def _leave_waiting(self, asked: Asked) -> NoReturn:
        words = f"nothing runs yet: `ray up {asked.file}` again goes on with this very job"
        if asked.command != "up":
            raise Refused(f"the head of {self._cluster.name} waits in its queue, so {words}")
        click.echo(f"{self._cluster.name} is waiting, {words}", err=True)
        raise SystemExit(0)

    def prepare_for_head_node(self, cluster_config: dict[str, Any]) -> dict[str, Any]:
        """Bring a cluster that was up before the file as it is now; nothing that runs is restarted."""
        if not self._made:
            asked = rays_launcher.asked()
            click.echo(f"{self._cluster.name} is up: it gets the file as it is now, and goes on", err=True)
            _end_if_failed(heliostat_command.show("apply", asked.file, *asked.overrides))
        return cluster_config

    def terminate_node(self, node_id: str) -> None:
        self.terminate_nodes([node_id])

    def terminate_nodes(self, node_ids: list[str]) -> None:
        """Take the cluster down with its head; without it let these workers go. Only for `ray down`."""
        if not rays_launcher.asked().takes_down:
            raise Refused("only `ray down` ends nodes; `heliostat remove` lets a worker go safely")
        if HEAD_ID in node_ids:
            _end_if_failed(heliostat_command.show("down", self._cluster.name))
            return
        for one in node_ids:
            self._removed.add(one)
            words = ("remove", one, "--deadline", REMOVE_DEADLINE, "--cluster", self._cluster.name)
            _end_if_failed(heliostat_command.show(*words))

    def get_command_runner(  # noqa: PLR0913, PLR0917 - Ray's signature
        self,
        log_prefix: str,
        node_id: str,
        auth_config: dict[str, Any],
        cluster_name: str,
        process_runner: ModuleType,
        use_internal_ip: bool,
        docker_config: dict[str, Any] | None = None,
    ) -> InPlaceRunner:
        return InPlaceRunner(self._cluster, rays_launcher.asked(), node_id)

    def _worker(self, node_id: str) -> Mapping[str, Any]:
        return next((one for one in self._seen.workers if one["instance_id"] == node_id), {})


def _has(tags: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    return all(tags.get(key) == value for key, value in wanted.items())


def _end_if_failed(code: int) -> None:
    """End Ray's command with the exit code of ours, which has said why."""
    if code:
        raise SystemExit(code)
