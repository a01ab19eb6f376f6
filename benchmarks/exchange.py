"""What two ranks exchange for the loss: bytes that a rank sends, and time, with gloo on one machine."""
