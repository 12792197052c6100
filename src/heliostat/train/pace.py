"""How fast a group gets through its items between two `sync`. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Pace:
    items: int = 0
    seconds: float = 0.0
    spoiled: bool = False
    """It does not tell what the size is worth: a member was lost, or has only just come."""

    def mapped(self, items: int, seconds: float, *, clean: bool) -> Pace:
        """Return the same with one more `map`."""
        return replace(
            self,
            items=self.items + items,
            seconds=self.seconds + seconds,
            spoiled=self.spoiled or not clean,
        )

    @property
    def items_per_s(self) -> float | None:
        """Return the throughput, or None where nothing useful was measured."""
        if self.spoiled or not self.items or self.seconds <= 0:
            return None
        return self.items / self.seconds
