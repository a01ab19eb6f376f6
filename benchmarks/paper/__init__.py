"""The paper's own experiments, and ours beside them: docs/paper."""
