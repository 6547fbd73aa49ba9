"""Groups, their expansion and reduction, and what may be inferred, against plain set logic."""

import random

from lakelet.containment.relation import Edge, relation
from lakelet.containment.transitivity import Transitivity

WHOLE = Edge(1, 1, compared=True)


def expanded(found):
    return {(child, p) for child, _, parents, _ in found.rows() for p in parents.tolist()}


def test_mutual_groups_become_one_and_expand_both_ways():
    found = relation([[0], [1, 2], [3]], [1, 1, 2], {(0, 1): WHOLE, (1, 0): WHOLE, (0, 2): WHOLE, (1, 2): WHOLE})
    assert found.groups == ((0, 1, 2), (3,))
    assert expanded(found) == {(a, b) for a in (0, 1, 2) for b in (0, 1, 2, 3) if a != b}
    assert found.num_edges == 9


def test_opaque_groups_stay_apart_and_unreduced():
    edges = {(0, 1): WHOLE, (1, 0): WHOLE, (1, 2): WHOLE, (0, 2): WHOLE}
    found = relation([[0], [1], [2]], [1, 1, 2], edges, opaque=[0, 1, 2])
    assert found.groups == ((0,), (1,), (2,))
    assert found.mutual(0, 1)
    assert set(found.reduced()) == set(edges)


def test_the_reduction_is_the_least_that_implies_all():
    rng = random.Random(4)
    for _ in range(50):
        sets = [frozenset(rng.sample(range(6), rng.randint(1, 5))) for _ in range(8)]
        sets = sorted(set(sets), key=sorted)
        edges = {(a, b): WHOLE for a, x in enumerate(sets) for b, y in enumerate(sets) if x < y}
        found = relation([[n] for n in range(len(sets))], [len(s) for s in sets], edges)
        names = [group[0] for group in found.groups]
        reduced = {(names[c], names[p]) for c, p in found.reduced()}
        between = {(a, b) for a, b in edges if not any((a, m) in edges and (m, b) in edges for m in range(len(sets)))}
        assert reduced == between
        assert expanded(found) == set(edges)


def test_inference_is_sound_on_random_sets():
    rng = random.Random(7)
    for _ in range(100):
        sets = [frozenset(rng.sample(range(5), rng.randint(1, 4))) for _ in range(7)]
        known = Transitivity(lambda group: False)
        everything = [(a, b) for a in range(7) for b in range(7) if a != b]
        known.start(everything, [], [])
        for a, b in rng.sample(everything, 25):
            if known.implied((a, b)):
                assert sets[a] <= sets[b]
            if known.excluded((a, b)):
                assert not sets[a] <= sets[b]
            (known.holds if sets[a] <= sets[b] else known.refuted)((a, b))


def test_opaque_groups_infer_nothing():
    known = Transitivity(lambda group: group == 1)
    known.start([(0, 2)], [(0, 1), (1, 2)], [])
    assert not known.implied((0, 2))
    assert not known.waits((0, 2))
