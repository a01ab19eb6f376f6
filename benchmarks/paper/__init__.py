"""The paper, reproduced by one command."""
