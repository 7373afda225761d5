"""What is told of a call to the devices."""

import dataclasses
from typing import Any

import jax
import numpy as np


@dataclasses.dataclass(frozen=True)
class Report:
    """What the yielded state has just come from."""

    cycle: int
    stage: str
    step: int
    """Finished steps of the stage."""
    metrics: dict[str, Any]
    """A number per metric; for a training call a buffer on the devices, see :meth:`values`."""
    count: int = 0
    """Steps that a training call ran."""
    stage_ended: bool = False
    agree: jax.Array | bool = True
    """Whether all devices hold the same state, for `devices.check_agreement`."""
    labelled: int = 0
    """Size of L."""
    waited: float = 0.0
    """Seconds for which reading examples has held up the call."""
    details: dict[str, np.ndarray] | None = None
    """Arrays behind the metrics of a diagnosis, for a file of their own."""

    def is_ready(self) -> bool:
        """Whether the call it came from is done."""
        arrays = (x for x in jax.tree.leaves(self.metrics) if isinstance(x, jax.Array))
        return all(x.is_ready() for x in arrays)  # type: ignore[attr-defined]

    def values(self) -> dict[str, np.ndarray]:
        """The metrics in host memory, `[]` or one entry per step run `[count]`; waits for them."""
        metrics = {k: np.asarray(v) for k, v in jax.device_get(self.metrics).items()}
        return {k: v[: self.count] for k, v in metrics.items()} if self.count else metrics
