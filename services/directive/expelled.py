"""What becomes of rules that rest on the word of an owner whom the registrars expelled.

Nearly all that a rule can name of it makes the owner itself a party, or an officer unknown, and that refuses.
Offences are named by anybody, though: a party whose rules ask whether an offence is in such a set cannot
tell.
"""

from cedarpy import pst

from directive.book import Slice
from directive.rules import walk
from shared.registry import Registry


def rest_on_expelled(rules: Slice, registry: Registry) -> bool:
    """Whether rules name offences that an expelled owner registered."""
    if not registry.expelled:
        return False
    sets = registry.offence_sets
    theirs = {name for name, one in sets.items() if one.owner in registry.expelled}
    return bool(theirs) and any(
        isinstance(node, pst.EntityLit)
        and (node.value.type.basename, node.value.id in theirs) == ("OffenceSet", True)
        for rule in rules.rules.values()
        for node in walk(rule.template.clauses)
    )
