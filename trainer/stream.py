"""An endless stream over a fixed set: epoch after epoch, each a new seeded permutation.

Position `p` always holds the same item, so a resumed run needs no cursor but its step.
"""

from vertigym.core.seeds import Key, generator


class Shuffled:
    """Indices `0 … size-1`, shuffled anew each epoch with the seed path `path`."""

    def __init__(self, size: int, *path: Key) -> None:
        self._size = size
        self._path = path
        self._epoch = -1
        self._order: list[int] = []

    def __getitem__(self, position: int) -> int:
        epoch, place = divmod(position, self._size)
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = generator(*self._path, epoch).permutation(self._size).tolist()
        return self._order[place]
