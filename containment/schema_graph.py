"""Which tables may be contained in which by their columns alone: normalised names to posting lists.

A child may be contained in a parent when every child column has a parent column of its own with the same normalised
name and a type whose values can be equal. Names are normalised by stripping white space and folding case. Where two
columns of one table collide after that, those columns keep their exact spelling: other tables match them by the exact
name or not at all.

Tables with the same columns form one class, so a thousand copies of a table cost as much as one. Posting lists are
Python integers used as bit sets over the classes; the rarest column comes first, which ends most searches at once.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa

from .canonical import Family, compatible, family

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

__all__ = ["SchemaClass", "SchemaGraph", "normalised", "schema_graph"]

_EXACT = "\0e"
_SPELLED = "\0s"
_PLAIN = "\0n"
_NEAR_TESTS: Final = 200_000
"""Up to so many comparisons of two tables' names, tables far from the touched ones are left out beforehand."""


@dataclass(frozen=True, slots=True)
class SchemaClass:
    """Tables whose columns match one to one.

    ``tables``: int64 positions in the list given to :func:`schema_graph`, ascending. ``columns[i]`` holds table
    ``tables[i]``'s own spelling of the class's columns, in the class's order, which is the same for every member.
    ``tokens`` are the names that salt the columns' hashes.
    ``exact`` is True when names of this class had to keep their spelling; then nothing is inferred by transitivity.
    """

    tables: NDArray[np.int64]
    columns: tuple[tuple[str, ...], ...]
    tokens: tuple[str, ...]
    families: tuple[Family, ...]
    exact: bool


@dataclass(frozen=True, slots=True)
class SchemaGraph:
    """Classes, and the pairs of classes in which a child's columns are found in a parent.

    ``maps[(child, parent)]`` (class numbers) gives, for every child column, the parent's column position as int64. A
    class with two tables or more has the pair with itself. ``num_pairs`` counts ordered pairs of tables.
    """

    classes: tuple[SchemaClass, ...]
    maps: dict[tuple[int, int], NDArray[np.int64]]

    @property
    def num_pairs(self) -> int:
        """Ordered pairs of different tables that survive."""
        return sum(
            len(self.classes[c].tables) * (len(self.classes[p].tables) - (1 if c == p else 0)) for c, p in self.maps
        )


def normalised(name: str) -> str:
    """The name under which columns of different tables match: without white space around it, case folded."""
    name = name.casefold().strip()
    return _PLAIN + name if name.startswith("\0") else name


@dataclass(frozen=True, slots=True)
class _Tokens:
    """Normalised names: ``tables[t]`` of table t's columns in order, where colliding ones keep their spelling.

    ``contested`` holds the names that collide in any table, ``colliding`` the tables that they collide in.
    """

    tables: list[list[str]]
    contested: set[str]
    colliding: set[int]


def _tokens(names: Sequence[Sequence[str]]) -> _Tokens:
    tables: list[list[str]] = []
    contested: set[str] = set()
    colliding: set[int] = set()
    for table, own in enumerate(names):
        # All names of a table in one go, unless one holds the separator or needs the prefix.
        joined = "\x1f".join(own)
        tokens = list(map(str.strip, joined.casefold().split("\x1f"))) if own else []
        if len(tokens) != len(own) or "\0" in joined:
            tokens = [normalised(name) for name in own]
        if len(set(tokens)) < len(tokens):
            count = Counter(tokens)
            contested.update(token for token, times in count.items() if times > 1)
            colliding.add(table)
            tokens = [_EXACT + name if count[token] > 1 else token for name, token in zip(own, tokens, strict=True)]
        tables.append(tokens)
    return _Tokens(tables, contested, colliding)


class _NameClass:
    """Tables with the same tokens: ``members`` holds their positions, each with the tokens of its columns in order."""

    __slots__ = ("_positions", "found", "members", "tokens", "wanted")

    def __init__(self, tokens: tuple[str, ...], contested: set[str]) -> None:
        self.tokens = tokens
        self.members: list[tuple[int, Sequence[str]]] = []
        self._positions: dict[str, int] = {}
        # As a parent a column is found under one token; as a child it asks for one or two.
        self.found: tuple[str, ...] = tokens
        self.wanted: list[tuple[str, ...]] | None = None
        if contested and any(t.startswith((_SPELLED, _EXACT)) for t in tokens):
            self.found = tuple(normalised(t[2:]) if t.startswith(_SPELLED) else t for t in tokens)
            self.wanted = [(normalised(t[2:]), _EXACT + t[2:]) if t.startswith(_SPELLED) else (t,) for t in tokens]

    def position_map(self, parent: _NameClass) -> NDArray[np.int64] | None:
        if self is parent:
            return np.arange(len(self.tokens), dtype=np.int64)
        at = parent._positions = parent._positions or {token: i for i, token in enumerate(parent.found)}
        try:
            if self.wanted is None:
                return np.array([at[t] for t in self.tokens], dtype=np.int64)
            found = [next(at[t] for t in wanted if t in at) for wanted in self.wanted]
        except (KeyError, StopIteration):
            return None
        return np.array(found, dtype=np.int64) if len(set(found)) == len(found) else None


def _near(found: _Tokens, touching: set[int]) -> list[int]:
    """The tables given by ``touching`` and those whose names are all in one of them, or hold all of one of theirs."""
    plain = [frozenset(tokens) for tokens in found.tables]
    for table in found.colliding:
        plain[table] = frozenset(normalised(t[2:]) if t.startswith(_EXACT) else t for t in plain[table])
    touched = {plain[table] for table in touching}
    return [at for at, own in enumerate(plain) if any(own <= other or own >= other for other in touched)]


def _name_classes(names: Sequence[Sequence[str]], touching: set[int] | None) -> list[_NameClass]:
    found = _tokens(names)
    contested = found.contested
    classes: dict[tuple[str, ...], _NameClass] = {}
    few = touching is not None and len(touching) * len(names) <= _NEAR_TESTS
    for index in _near(found, touching) if touching is not None and few else range(len(names)):
        tokens = found.tables[index]
        if not tokens:
            continue
        if contested:
            tokens = [
                _SPELLED + name if token in contested else token
                for name, token in zip(names[index], tokens, strict=True)
            ]
        key = tuple(sorted(tokens))
        if key not in classes:
            classes[key] = _NameClass(key, contested)
        classes[key].members.append((index, tokens))
    return list(classes.values())


def _name_pairs(classes: list[_NameClass], touched: set[int] | None) -> Iterator[tuple[int, int]]:
    """Ordered pairs of name classes, with (i, i) for classes of several tables."""
    postings: defaultdict[str, list[int]] = defaultdict(list)
    for number, own in enumerate(classes):
        for token in own.found:
            postings[token].append(number)
    bits: dict[str, int] = {}

    def bit_set(token: str) -> int:
        if token not in bits:
            total = 0
            for number in postings.get(token, ()):
                total |= 1 << number
            bits[token] = total
        return bits[token]

    touched_bits = -1 if touched is None else sum(1 << number for number in touched)
    for number, own in enumerate(classes):
        if len(own.members) > 1 and (touched is None or number in touched):
            yield number, number
        if own.wanted is None:
            sizes = [len(postings[token]) for token in own.tokens]
        else:
            sizes = [sum(len(postings.get(t, ())) for t in tokens) for tokens in own.wanted]
        if min(sizes) < 2 and own.wanted is None:
            continue
        wanted = own.wanted or [(token,) for token in own.tokens]
        parents = ~(1 << number)
        if touched is not None and number not in touched:
            parents &= touched_bits
        for at in sorted(range(len(sizes)), key=sizes.__getitem__):
            one = 0
            for token in wanted[at]:
                one |= bit_set(token)
            parents &= one
            if not parents:
                break
        while parents:
            low = parents & -parents
            yield number, low.bit_length() - 1
            parents ^= low


def schema_graph(schemas: Sequence[pa.Schema], touching: set[int] | None = None) -> SchemaGraph:
    """Candidate pairs by names and types.

    ``touching``: positions of tables; pairs of classes in which neither class holds one of them are left out. None
    means all pairs. Tables without columns are in no class.
    """
    names = [schema.names for schema in schemas]
    by_name = _name_classes(names, touching)
    touched = None
    if touching is not None:
        touched = {n for n, own in enumerate(by_name) if any(table in touching for table, _ in own.members)}
    split: dict[int, list[int]] = {}
    classes: list[SchemaClass] = []

    def typed(number: int) -> list[int]:
        """The name class split by types, as class numbers."""
        if number not in split:
            split[number] = []
            for members in _by_type(by_name[number], schemas, names):
                classes.append(members)
                split[number].append(len(classes) - 1)
        return split[number]

    maps: dict[tuple[int, int], NDArray[np.int64]] = {}
    for child_names, parent_names in _name_pairs(by_name, touched):
        at = by_name[child_names].position_map(by_name[parent_names])
        if at is None:
            continue
        for child in typed(child_names):
            for parent in typed(parent_names):
                if child == parent and len(classes[child].tables) < 2:
                    continue
                own, theirs = classes[child].families, classes[parent].families
                if own is theirs or all(
                    f is theirs[p] or compatible(f, theirs[p]) for f, p in zip(own, at.tolist(), strict=True)
                ):
                    maps[child, parent] = at
    return SchemaGraph(tuple(classes), maps)


def _by_type(own: _NameClass, schemas: Sequence[pa.Schema], names: Sequence[Sequence[str]]) -> Iterator[SchemaClass]:
    """Members of one name class, split by the families of their columns."""
    split: defaultdict[tuple[Family | str, ...], list[tuple[int, tuple[str, ...]]]] = defaultdict(list)
    families_of: dict[tuple[Family | str, ...], tuple[Family, ...]] = {}
    for table, tokens in own.members:
        order = sorted(range(len(tokens)), key=tokens.__getitem__)
        types, spelled = schemas[table].types, names[table]
        families = tuple(_family(types[i]) for i in order)
        key = tuple(f if f.children else f.kind for f in families)  # texts know their hash
        families_of.setdefault(key, families)
        split[key].append((table, tuple(spelled[i] for i in order)))
    exact = any(token.startswith("\0") for token in own.tokens)
    for key, members in split.items():
        yield SchemaClass(
            tables=np.array([m[0] for m in members], dtype=np.int64),
            columns=tuple(m[1] for m in members),
            tokens=own.tokens,
            families=families_of[key],
            exact=exact,
        )


_FAMILY_BY_ID: Final[dict[int, Family]] = {
    t.id: family(t)
    for t in (
        pa.bool_(),
        pa.int32(),
        pa.int64(),
        pa.float32(),
        pa.float64(),
        pa.string(),
        pa.large_string(),
        pa.date32(),
    )
}
"""Types that their number tells apart: hashing an Arrow type prints it first, which 50,000 columns would notice."""


def _family(t: pa.DataType) -> Family:
    return _FAMILY_BY_ID.get(t.id) or family(t)
