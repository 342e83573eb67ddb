"""What each owner registers and signs: systems, galleries, lists, officers, offences, oversight.

Trusted to let nobody speak for another, and no officer be known to the public. A library: it reads folders,
makes the entries that publish them, and folds entries into the registry that decisions are made by.
"""
