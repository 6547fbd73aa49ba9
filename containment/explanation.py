"""A plan's decision for one table, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from .plan import Plan

__all__ = ["explanation", "kept_reason"]

_SHOWN: Final = 10


def explanation(plan: Plan, table: int) -> str:
    """Lines for people: the decision, what keeping costs, and what each candidate parent would."""
    known = plan.candidates
    name, parent = known.names[table], plan.parent_of(table)
    kept = plan.kept_cost(table)
    reads = known.reads.get(table)
    lines = []
    if parent >= 0:
        number = known.number[table, parent]
        lines.append(f"{name}: retire, and rebuild it from {known.names[parent]}.")
        lines.append(f"It saves {kept - plan.pair_cost(number):.6f} USD a month.")
    else:
        lines.append(f"{name}: keep.")
        reason = kept_reason(plan, table)
        lines.append(f"{reason[:1].upper()}{reason[1:]}.")
    size = known.num_bytes[table]
    rate = "unknown" if reads is None else f"{reads:g} a month"
    lines.append(f"Kept, its {size:,} bytes cost {kept:.6f} USD a month; reads: {rate}.")
    served = plan.serves[table]
    if served:
        others = "1 other table is" if served == 1 else f"{served:,} other tables are"
        lines.append(f"{others} to be rebuilt from it.")
    pairs = sorted(known.of_child.get(table, ()), key=plan.pair_cost)
    lines += [f"  {_candidate(plan, number, kept)}" for number in pairs[:_SHOWN]]
    if len(pairs) > _SHOWN:
        lines.append(f"  and {len(pairs) - _SHOWN} more")
    return "\n".join(lines)


def kept_reason(plan: Plan, table: int) -> str:
    """Why a table that is kept is."""
    known = plan.candidates
    if table in known.kept_because:
        return known.kept_because[table]
    if table in known.refused and table not in known.of_child:
        return f"of the tables that contain it none may be relied on: {known.refused[table]}"
    if table not in known.of_child:
        return "no other table contains all its rows"
    if not any(known.pairs[n].within(plan.limits, plan.throughput) for n in known.of_child[table]):
        return "every table that contains it is beyond a limit"
    return "others are rebuilt from it" if plan.serves[table] else "it costs least this way"


def _candidate(plan: Plan, number: int, kept: float) -> str:
    pair, limits = plan.candidates.pairs[number], plan.limits
    seconds = pair.restore_seconds(plan.throughput)
    text = (
        f"from {plan.candidates.names[pair.parent]}: saves {kept - plan.pair_cost(number):.6f} USD a month, "
        f"restored in {seconds:.2f} s, reads {pair.amplification:.1f} x its own bytes, "
        f"recipe about {int(pair.reading.recipe_bytes):,} bytes"
    )
    if pair.amplification > limits.max_read_amplification:
        return f"{text}; beyond max_read_amplification={limits.max_read_amplification:g}"
    if seconds > limits.max_restore_seconds:
        return f"{text}; beyond max_restore_seconds={limits.max_restore_seconds:g}"
    if plan.parent_of(pair.parent) >= 0:
        return f"{text}; but that table is retired itself"
    return text
