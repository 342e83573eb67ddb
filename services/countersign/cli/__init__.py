"""The `countersign` command: for detectives' systems, policy staff, auditors and operators."""
