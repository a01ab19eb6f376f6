"""One module for each outside system; each imports what it needs and says how to install it where it is missing."""
