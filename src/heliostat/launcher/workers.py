"""The node provider of Ray's own autoscaler on the head: it asks the controller over the control socket.

The controller launches, journals and releases; here is nothing that must outlive this process. Where the
controller can't be asked an error is raised, never an empty list: unknown is not gone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ray.autoscaler.node_launch_exception import NodeLaunchException
from ray.autoscaler.node_provider import NodeProvider
from ray.autoscaler.tags import (
    NODE_KIND_HEAD,
    NODE_KIND_WORKER,
    STATUS_UNINITIALIZED,
    STATUS_UP_TO_DATE,
    TAG_RAY_LAUNCH_CONFIG,
    TAG_RAY_LAUNCH_REQUEST,
    TAG_RAY_NODE_KIND,
    TAG_RAY_NODE_NAME,
    TAG_RAY_NODE_STATUS,
    TAG_RAY_USER_NODE_TYPE,
)

from heliostat.api.client import ControllerClient
from heliostat.model.instance import HEAD_INSTANCE_ID

Row = Mapping[str, Any]

KEPT_TAGS = (TAG_RAY_LAUNCH_REQUEST, TAG_RAY_LAUNCH_CONFIG, TAG_RAY_NODE_NAME)
"""What Ray writes at a launch and reads again; without them it does as well."""


class WorkerProvider(NodeProvider):  # type: ignore[misc]  # Ray's class is Any to mypy
    """Instances by their ids, which are the node ids of this interface; the head is one of them.

    Ray calls it from several threads: what is kept is replaced whole, or one key at a time.
    """

    def __init__(self, provider_config: dict[str, Any], cluster_name: str) -> None:
        super().__init__(provider_config, cluster_name)
        self._controller = ControllerClient(Path(provider_config["control_socket"]), cluster=cluster_name)
        self._rows: dict[str, Row] = {}
        self._tags: dict[str, dict[str, str]] = {}

    def non_terminated_nodes(self, tag_filters: Mapping[str, str]) -> list[str]:
        """Return the head and all that is wanted and has not failed. Raises HeliostatError."""
        # What `create_node` stores while the answer is on its way is not in that answer yet.
        known = tuple(self._tags)
        found = self._controller.provided()
        rows = [found["head"], *found["instances"]]
        self._rows = {row["instance_id"]: row for row in rows}
        for gone in set(known) - self._rows.keys():
            self._tags.pop(gone, None)
        return [one for one in self._rows if tag_filters.items() <= self.node_tags(one).items()]

    def is_running(self, node_id: str) -> bool:
        return bool(self._row(node_id).get("running"))

    def is_terminated(self, node_id: str) -> bool:
        return node_id not in self._rows

    def node_tags(self, node_id: str) -> dict[str, str]:
        row = self._row(node_id)
        return {
            **self._tags.get(node_id, {}),
            TAG_RAY_NODE_KIND: NODE_KIND_HEAD if node_id == HEAD_INSTANCE_ID else NODE_KIND_WORKER,
            TAG_RAY_USER_NODE_TYPE: row.get("node_type", ""),
            TAG_RAY_NODE_STATUS: STATUS_UP_TO_DATE if row.get("running") else STATUS_UNINITIALIZED,
        }

    def set_node_tags(self, node_id: str, tags: Mapping[str, str]) -> None:
        """Do nothing: a node's kind, type and status are what the controller says."""

    def internal_ip(self, node_id: str) -> str:
        """Return Ray's id of the node: it tells it from others at its address (`use_node_id_as_ip`)."""
        return str(self._row(node_id).get("node_id", ""))

    def external_ip(self, node_id: str) -> str:
        return self.internal_ip(node_id)

    def create_node(self, node_config: dict[str, Any], tags: dict[str, str], count: int) -> dict[str, Any]:
        """Ask for `count` of the type in `tags`; return the ids, which are listed from now on.

        Raises NodeLaunchException, with the controller's words, where some are refused: the others come.
        """
        node_type = tags[TAG_RAY_USER_NODE_TYPE]
        answer = self._controller.provide(node_type, count)
        ids: Sequence[str] = answer["instance_ids"]
        kept = {key: tags[key] for key in KEPT_TAGS if key in tags}
        self._tags.update(dict.fromkeys(ids, kept))
        if answer["refused"]:
            raise NodeLaunchException("refused", f"{answer['refused']} of {count}: {answer['why']}", None)
        return {one: {} for one in ids}

    def create_node_with_resources_and_labels(  # noqa: PLR0917 - Ray's signature
        self,
        node_config: dict[str, Any],
        tags: dict[str, str],
        count: int,
        resources: Mapping[str, float],
        labels: Mapping[str, str],
    ) -> dict[str, Any]:
        # What a node of the type has the controller knows.
        return self.create_node(node_config, tags, count)

    def terminate_node(self, node_id: str) -> None:
        self.terminate_nodes([node_id])

    def terminate_nodes(self, node_ids: Sequence[str]) -> None:
        """Give instances back; the head is not Ray's to end. Raises HeliostatError."""
        workers = [one for one in node_ids if one != HEAD_INSTANCE_ID]
        if workers:
            self._controller.take_back(workers)

    def _row(self, node_id: str) -> Row:
        return self._rows.get(node_id, {})
