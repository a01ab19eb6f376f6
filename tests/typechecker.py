"""What checks annotations at run time under pytest: beartype, which takes an int for a float, as mypy does."""

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
