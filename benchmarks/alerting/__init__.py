"""What the alerts find, and how often they are wrong: many runs with known faults, replayed through the rules."""
