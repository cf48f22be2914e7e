"""The Merkle tree over the lines of a log. Source: RFC 6962, section 2.1."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

HASH_BYTES = 32


def leaf_hash(data: bytes) -> bytes:
    """Return the hash of a leaf."""
    return hashlib.sha256(b"\0" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of what stands above two hashes."""
    return hashlib.sha256(b"\1" + left + right).digest()


class Tree:
    """A tree that only grows, kept as the roots of its full subtrees: one for each bit of its size.

    Args:
        size: How many leaves there are.
        frontier: The roots of its full subtrees, the largest first.

    Raises:
        ValueError: That many leaves have another number of them.
    """

    def __init__(self, size: int = 0, frontier: Sequence[bytes] = ()) -> None:
        if size.bit_count() != len(frontier) or {len(each) for each in frontier} - {HASH_BYTES}:
            raise ValueError(f"these are not the full subtrees of {size} leaves")
        self.size = size
        self._frontier = list(frontier)

    @property
    def frontier(self) -> tuple[bytes, ...]:
        """The roots of its full subtrees, the largest first."""
        return tuple(self._frontier)

    @property
    def root(self) -> bytes:
        """The hash over all leaves in their order."""
        if not self._frontier:
            return hashlib.sha256().digest()
        above = self._frontier[-1]
        for left in reversed(self._frontier[:-1]):
            above = node_hash(left, above)
        return above

    def append(self, data: bytes) -> None:
        """Add a leaf."""
        above = leaf_hash(data)
        # Each full subtree as large as what is to be added joins it, as a carry does.
        rest = self.size
        while rest & 1:
            above = node_hash(self._frontier.pop(), above)
            rest >>= 1
        self._frontier.append(above)
        self.size += 1

    def copy(self) -> Tree:
        """Return the same tree, to grow apart from this one."""
        return Tree(self.size, self._frontier)
