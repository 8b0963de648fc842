"""The part of a corpus that a run takes: a shard, a sample, the first few."""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from app.bulk.corpus.digests import digest
from app.bulk.entries import Entry

_SHARD = re.compile(r"([0-9]{1,9})/([0-9]{1,9})")


@dataclass(frozen=True, slots=True)
class Shard:
    """One of `count` parts, numbered from 1. A video's name decides its part, whatever else is listed."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read `i/n`.

        Raises:
            ValueError: it is no shard.
        """
        found = _SHARD.fullmatch(text)
        if found is None or not 1 <= int(found[1]) <= int(found[2]):
            raise ValueError("a shard is i/n with i from 1 to n, such as 3/8")
        return cls(int(found[1]), int(found[2]))

    def holds(self, entry: Entry) -> bool:
        return digest(entry.name) % self.count == self.number - 1


@dataclass(frozen=True, slots=True)
class Choice:
    """Entries of a corpus: first `sample` of all, then the shard, then the first `limit` of that.

    A sample is random and always the same: videos that are added later change few of it.
    """

    shard: Shard | None = None
    sample: int | None = None
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class Chosen:
    """The chosen entries of a corpus; every iteration chooses the same."""

    corpus: Iterable[Entry]
    choice: Choice

    def __iter__(self) -> Iterator[Entry]:
        chosen, choice = self.corpus, self.choice
        if choice.sample is not None:
            chosen = heapq.nsmallest(choice.sample, chosen, key=lambda entry: digest(f"sample {entry.name}"))
        if choice.shard is not None:
            chosen = filter(choice.shard.holds, chosen)
        return islice(chosen, choice.limit)
