"""What takes seconds to compute for the live page, once for each key."""

import threading
from collections.abc import Callable, Mapping
from typing import Any

Compute = Callable[[], Mapping[str, Any]]


class Background:
    """Computes in threads of their own; the newest result of each name is kept."""

    def __init__(self, on_ready: Callable[[], None]):
        """`on_ready` is called when there is a new result."""
        self._on_ready = on_ready
        self._lock = threading.Lock()
        self._keys: dict[str, object] = {}
        self._results: dict[str, tuple[object, Mapping[str, Any]]] = {}

    def peek(self, name: str) -> Mapping[str, Any] | None:
        """The newest result of a name, also of an older key."""
        found = self._results.get(name)
        return None if found is None else found[1]

    def get(self, name: str, key: object, compute: Compute) -> Mapping[str, Any] | None:
        """The result for a key; None, and it is begun, where there is none yet.

        The result of what has failed is `{"failed": line}`.
        """
        with self._lock:
            found = self._results.get(name)
            if found is not None and found[0] == key:
                return found[1]
            if self._keys.get(name) != key:
                self._keys[name] = key
                # A daemon: nobody has to wait for it at the end.
                threading.Thread(target=self._run, args=(name, key, compute), daemon=True).start()
            return None

    def _run(self, name: str, key: object, compute: Compute) -> None:
        result: Mapping[str, Any]
        try:
            result = compute()
        except Exception as error:  # The page shows it, and the loop goes on.
            result = {"failed": f"it cannot be computed ({type(error).__name__}: {error})"}
        with self._lock:
            if self._keys.get(name) == key:  # No newer one has been asked for.
                self._results[name] = key, result
        self._on_ready()
