"""A directive as a page for a lawyer: each rule beside its citation, and a block to sign.

`sheet` says what is on the page; `html` and `pdf` set it. Needs `countersign[render]`.
"""
