"""A witness: cosigns checkpoints of logs that only ever grow (C2SP tlog-witness).

Trusted to remember, on disk and before it answers, the largest tree that it has cosigned of each
log, and never to cosign another that does not extend it. It keeps no entries, knows no log but those
in its configuration, and believes nobody: whoever asks brings the proof. Anyone can run one, and each
that runs makes it harder for a log to show two histories.
"""
