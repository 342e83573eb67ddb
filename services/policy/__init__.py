"""Says what every involved party's directives say of a search.

Trusted to apply the directives that it was given, and to refuse whenever it is not certain. Sees the
facts of a search, never a face, and changes nothing: it has no database and no key that signs.
"""
