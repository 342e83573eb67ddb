"""The steps by which the ledger's tables came to be what they are; README.md says how to add one."""
