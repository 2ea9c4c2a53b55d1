"""How long work is watched: by a callable, or by a tqdm bar."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias, runtime_checkable


@runtime_checkable
class Bar(Protocol):
    """A progress bar, as tqdm makes them."""

    total: Any

    def update(self, n: float) -> Any: ...

    def set_description(self, desc: str) -> Any: ...


#: ``(task, done, total)`` in bytes; whatever it returns but ``False``, the work goes on.
Watcher: TypeAlias = Callable[[str, int, int], object]
Progress: TypeAlias = Watcher | Bar | None


def watcher(progress: Progress) -> Watcher | None:
    """The callable that stands for what the user gave.

    >>> watcher(tqdm.tqdm(unit="B", unit_scale=True))("encrypt", 10, 100)
    """
    if progress is None or not isinstance(progress, Bar):
        if progress is not None and not callable(progress):
            raise TypeError("progress takes a callable or a tqdm bar")
        return progress
    return _on(progress)


def _on(bar: Bar) -> Watcher:
    current, seen = "", 0

    def tell(task: str, done: int, total: int) -> None:
        nonlocal current, seen
        if task != current or done < seen:
            current, seen = task, 0
            reset = getattr(bar, "reset", None)
            if reset is not None:
                reset(total=total)
            bar.total = total
            bar.set_description(task)
        bar.update(done - seen)
        seen = done

    return tell
