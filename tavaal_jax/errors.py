"""What ends a study early; `main` turns each into one line and an exit code."""


class UserError(ValueError):
    """A fault that the user can mend: one line with the value, its limit and the mend."""

    told = False
    """Whether another process has met it, and reports it."""


class TrialError(UserError):
    """A UserError that concerns one trial only: the study's other trials go on."""


class TrialCannotContinue(TrialError):
    """A trial cannot go on with this config: `what` has happened, `mend` names what to change."""

    def __init__(self, what: str, mend: str):
        super().__init__(what, mend)
        self.what, self.mend = what, mend

    def __str__(self) -> str:
        return ": ".join(self.args)


class Diverged(TrialCannotContinue):
    """A loss, or another metric of a training, is not finite."""


class OutOfMemory(TrialCannotContinue):
    """The memory of a device is full."""


class WaitingForLabels(Exception):
    """The labels of a request are missing; the same command continues when people gave them."""


class Interrupted(Exception):
    """The study was asked to stop by a signal; everything is saved."""

    def __init__(self, number: int):
        super().__init__(f"stopped by signal {number}")
        self.number = number
        """Number of the signal, or what `stop` returned."""
