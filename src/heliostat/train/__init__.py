"""Training and serving groups that grow when nodes come and shrink before they go.

Works on any Ray cluster, and imports Ray and the standard library only: it may be installed in a training
image alone (`pip install --no-deps heliostat`).
"""

from heliostat.train.errors import GroupClosed, GroupError, MemberLost, TooFewMembers, TooManyRestarts
from heliostat.train.group import ElasticGroup
from heliostat.train.options import Options
from heliostat.train.roles import Roles
from heliostat.train.target import Throughput
from heliostat.train.types import Change, Dropped, Failure, Left, Member, Reason, World

__all__ = [
    "Change",
    "Dropped",
    "ElasticGroup",
    "Failure",
    "GroupClosed",
    "GroupError",
    "Left",
    "Member",
    "MemberLost",
    "Options",
    "Reason",
    "Roles",
    "Throughput",
    "TooFewMembers",
    "TooManyRestarts",
    "World",
]
