"""The names that MLflow gets for keys."""

from malformed import check_key

LENGTH = 600
SEEDS = [
    b"uniformity/projector.0/w2",
    b"heads[0]/w2",
    b"a//b/../c",
    b"/",
    b"..",
    b"a" * 260,
    "é/\udc80".encode("utf-8", "surrogatepass"),
]


def check(data):
    check_key(data.decode("utf-8", "surrogateescape"))
