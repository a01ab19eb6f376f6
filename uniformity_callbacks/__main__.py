"""``python -m uniformity_callbacks``: the command line."""

from uniformity_callbacks.integrations.command import main

if __name__ == "__main__":
    main(prog_name="uniformity")
