"""What each number of a reading is, and where it stands at the ideal and at collapse: for tables and pages."""

from __future__ import annotations

from typing import NamedTuple


class Entry(NamedTuple):
    """A number's row in a table; a text is empty where there is no such value.

    Attributes:
        what: it is.
        ideal: its value for uniform outputs.
        one_point: at constant collapse.
        few_dimensions: at dimensional collapse.
    """

    what: str
    ideal: str = ""
    one_point: str = ""
    few_dimensions: str = ""


GLOSSARY: dict[str, Entry] = {
    "w2": Entry("Wasserstein distance to N(0, I/d), all views together", "0", "1.41", "1.2 for 10 of 128"),
    "w2_corrected": Entry("the same of the population, each view by itself", "0", "1.41", "1.2 for 10 of 128"),
    "effective_dims": Entry("dimensions in use, corrected likewise", "d", "undefined", "few"),
    "mean_resultant": Entry("length of the mean output", "0", "1", "blind"),
    "std_ratio": Entry("the usual check: mean std times sqrt(d)", "1", "0", "blind"),
    "lu": Entry("Wang and Isola's uniformity", "-4", "0", "nearly blind"),
    "alignment": Entry("squared distance between the views of an image", "0", "0", "blind"),
    "rankme": Entry("RankMe, not corrected", "min(n, d)", "1", "few"),
    "norm_mean": Entry("mean length before normalising"),
    "effective_rank": Entry("exponential of the eigenvalues' entropy", "min(n - 1, d)", "undefined", "few"),
    "participation_ratio": Entry("(tr S)^2 / tr S^2", "min(n - 1, d)", "undefined", "few"),
    "stable_rank": Entry("tr S over the largest eigenvalue", "min(n - 1, d)", "undefined", "few"),
    "alpha": Entry("exponent of the spectrum's power law", "0", "undefined", "large"),
    "norm_cv": Entry("spread of the lengths over their mean"),
    "floor": Entry("the w2 that an ideal sample of this size reads"),
    "samples": Entry("rows read"),
    "nonfinite": Entry("rows left out: NaN or infinite"),
    "aux_loss": Entry("the term added to the loss"),
    "aux_weight": Entry("its weight"),
}
"""Name in the metric keys -> its row, in the order of a table. The README's table has the same values."""
