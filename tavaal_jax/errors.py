"""What ends a study early; `main` turns each into one line and an exit code."""


class UserError(Exception):
    """A fault that the user can mend: one line with the value, its limit and the mend."""

    told = False
    """Whether another process has met it, which says it."""


class TrialError(UserError):
    """The same, where it concerns one trial only: the study's others go on."""


class TrialCannotContinue(TrialError):
    """A trial cannot go on with this config: `what` has happened, `mend` is to be changed."""

    def __init__(self, what: str, mend: str):
        super().__init__(what, mend)
        self.what, self.mend = what, mend

    def __str__(self) -> str:
        return ": ".join(self.args)


class Diverged(TrialCannotContinue):
    """A figure of a training is not finite."""


class OutOfMemory(TrialCannotContinue):
    """The memory of a device is full."""


class WorkdirLocked(TrialError):
    """Another process has it."""


class WaitingForLabels(Exception):
    """People have been asked; the same command continues when they have answered."""


class Interrupted(Exception):
    """Somebody asked the study to stop; everything is saved."""

    def __init__(self, number: int):
        super().__init__(f"stopped by signal {number}")
        self.number = number
        """Of the signal, where it was one."""
