"""The Trainer's own advice, which small runs on a CPU do not follow, as filters of warnings."""

ADVICE = (
    "ignore:.*does not have many workers",
    "ignore:.*exists and is not empty",
    "ignore:.*resuming from a checkpoint that ended before the epoch ended",
    "ignore:The number of training batches",
)
