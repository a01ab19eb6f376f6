"""What watching and the loss cost, measured: ``make bench`` writes docs/speed.md and docs/speed.png."""
