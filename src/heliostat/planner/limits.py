"""The planner's named limits: seconds and counts that bound what it waits for and what it tries."""

from __future__ import annotations

JOIN_SETTLE_S = 3.0
"""So long after a node joined, Ray may still report demand that already runs on it (ray#36926)."""

VANISHED_S = 2.0
"""Room on its way must have been needless so long before it is given back."""

IDLE_REPORTS = 2
"""Ray counts idle time from the last report, so a fresh node looks idle for one. Want two."""

SHARE_REPORTS = 2
"""A share of a GPU that fits a node's sum is believed to fit until it outlived so many more reports."""

RAY_GAP_S = 10.0
"""After so long without Ray's reports, our own count of idle time is void, unless Ray's is longer still."""

LOST_AFTER_S = 30.0
"""An instance that fresh listings lack so long, though it was asked for, is lost."""

OUTLIVED_S = 30.0
"""Listings must call an instance over for so long while Ray shows its node alive. Ray needs half of it to see
that a node is dead; one that stays alive was listed wrongly, or by the row of another try for its id."""

BACKEND_PATIENCE_S = 30.0
"""Demand waits so long for a silent backend before it goes to another one."""

START_TIMEOUT_S = 300.0
"""How long an instance may start whose type is no longer in the file."""

LEASE_NEAR_S = 120.0
"""A node whose lease ends within this time is no supply, or earlier where its type is slow to start."""

LEASE_MARGIN_S = 30.0
"""A replacement is asked for so much earlier than the slowest start that was observed."""

LEASE_NOTICE_S = 120.0
"""Work is told so long before its node's lease ends: time for a checkpoint."""

LEASE_GRACE_S = 10.0
"""The deadline that work is told is so long before the lease's end: the backend knows no mercy."""

DRAIN_COUNTS_S = 60.0
"""What was drained counts against `max_draining` until it has gone, so long after its release at most."""

AILING_PERCENT = 45
AILING_COUNT = 3
"""Nothing else of a type ends while so many percent of those that should be up, and so many, are not."""

DOWN_KEPT_S = 300.0
"""What went down counts until as many have joined, so long after the last of them at most."""

RETRY_S = 10.0
"""So long after a lease's deadline the work that was on the node may still come back as demand."""

LEASE_SHARE = 0.5
"""None of these spans is longer than this share of the lease itself."""

NAMES_SHOWN = 3
"""How many nodes a reason names before it counts the others."""

FIRST_TRY = 3
"""A node type that never came up is tried with so many at once."""

SPEED_FLOOR = 5
"""`upscaling_speed` never allows less than this many on their way, as in Ray."""

BACKOFF_FIRST_S = 5.0
BACKOFF_MOST_S = 600.0

PERMANENT_FIRST_S = 600.0
PERMANENT_MOST_S = 3600.0
"""The same for what a backend will never accept: only a person can mend it, and `apply` ends the wait."""

JITTER = 0.5
"""A wait is made longer by up to this share of it, so that clusters do not come again together."""

RETRY_AFTER_MOST_S = 3600.0
"""A backend that wants to be left alone for longer is asked after this time."""

HELD_FOR_GANG_S = 600.0
"""A node stays so long for others of a gang that are not launched just now; again when it had no need to for
as long."""

PROBATION_S = 30.0
"""After a wait for a refusal few are asked for, for so long: a larger gang has to wait that much more."""

BREAKER_FAILURES = 3
"""A backend's breaker opens after so many calls in a row of which nothing was accepted."""

BREAKER_FIRST_S = 10.0
BREAKER_MOST_S = 120.0
"""How long it stays open, doubled each time. Not long: one launch that is tried costs little."""

PASSES = 6
"""How often the packing is repeated until it agrees with itself; two is the rule."""

WAITING_KEPT = 1000
"""How many demands' waiting times are remembered."""

SELECTORS_MERGED = 16
"""How many combinations of fallbacks are tried for a gang that must share one node."""

SCARCE = frozenset({"GPU", "TPU", "NPU", "HPU", "neuron_cores"})
"""What a bundle without need of it should leave alone."""

ENDLESS = 2**31
"""More than can ever be counted."""

NODE_GROUP_LABEL = "ray.io/node-group"
"""Ray's own label for the node type's name; a planned node has it too."""


SIZE_WEIGHT = 1e-3
"""What a node of the largest size is weighed with beside its price, as a part of the lowest price."""

NODE_WEIGHT = 0.05
"""What one more node is weighed with, as a part of one of the largest size."""

DEVICE_WEIGHT = 8.0
"""How much more a GPU or the like weighs than the node's CPUs or memory."""
