"""Prints the table of docs/solo_learn.md: what is read of each method, and what it reads there in a short run."""

import contextlib
import io
import logging
import tempfile

from learners import BATCH, EPOCHS, METHODS, build
from oracle import Oracle
from watching import fit, journal
from which import described

LENGTH = 30


def row(method):
    seen, learner = Oracle(method), build(method, steps=LENGTH // EPOCHS)
    with tempfile.TemporaryDirectory() as place, contextlib.redirect_stdout(io.StringIO()):
        trainer = fit(learner, [seen], keys={"every_n_steps": LENGTH - 1}, default_root_dir=place)
        first, last = (r for r in journal(trainer).readings if r.stage == "train")
    (calls,) = {len(step) for step in seen.steps}
    values = (f"{value:.2f}" for value in (first.values["w2"], last.values["w2"], last.values["w2_corrected"]))
    return [method, f"`{last.layer}`", str(calls), f"{last.values['samples'] / BATCH:.0f}", *values]


def main():
    logging.disable(logging.WARNING)
    print(f"<!-- {described()} -->")
    end = f"step {LENGTH - 1}"
    head = ["method", "capture point", "calls", "read", "`w2`, step 0", end, f"`w2_corrected`, {end}"]
    for cells in (head, ["---"] * len(head), *map(row, METHODS)):
        print("|", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    main()
