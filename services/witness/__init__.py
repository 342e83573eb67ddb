"""A witness: cosigns checkpoints of logs that only ever grow (C2SP tlog-witness).

Anyone can run one, and each that runs makes it harder for a log to show two histories.
"""
