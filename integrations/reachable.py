"""Whether a server answers, seen within seconds."""

from __future__ import annotations

import requests

_PATIENCE_S = 10.0
"""For an answer: a server that takes longer is not waited for."""

_AWAY = (429, 502, 503, 504)
"""What is said instead of a server that is not there or not ready; all else is an answer of its own."""


def ask(uri: str) -> None:
    """Ask a server of MLflow's whether it is well; MLflow itself asks one that does not answer for minutes.

    Args:
        uri: of the store; of one that is no HTTP server nothing is asked.

    Raises:
        ConnectionError: there is no answer, or not from the server itself.
    """
    if not uri.startswith(("http://", "https://")):
        return
    try:
        with requests.get(
            f"{uri.rstrip('/')}/health", timeout=_PATIENCE_S, allow_redirects=False, stream=True
        ) as answer:
            status = answer.status_code
    except requests.exceptions.SSLError:  # which certificates are taken is MLflow's to say
        return
    except (requests.ConnectionError, requests.Timeout) as error:
        why = getattr(error.args[0], "reason", error) if error.args else error
        raise ConnectionError(f"no answer from {uri}: {str(why).rpartition(': ')[2]}") from error
    except requests.RequestException:  # so is what it thinks of the address
        return
    if status in _AWAY:
        raise ConnectionError(f"{uri} answers {status}")
