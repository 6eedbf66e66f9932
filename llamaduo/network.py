"""Whether the Hub can be reached, found out once and within seconds, before its clients try for half a minute.

    settle_hub()        without an answer from the Hub its clients read the cache alone, as with HF_HUB_OFFLINE=1

Any answer is one, an error too; a proxy in the environment is used. Names that can't be looked up, and addresses that
swallow everything, end at the same time limit.
"""

from __future__ import annotations

import os
import sys
import threading
from functools import cache

_PATIENCE_S = 4.0


def settle_hub() -> None:
    """Put the Hub's clients offline, in this process and in those that it starts, if the Hub does not answer."""
    from huggingface_hub import constants

    if not constants.HF_HUB_OFFLINE and not answers(constants.ENDPOINT):
        os.environ["HF_HUB_OFFLINE"] = "1"
        constants.HF_HUB_OFFLINE = True
        if "datasets" in sys.modules:
            sys.modules["datasets"].config.HF_HUB_OFFLINE = True


@cache
def answers(address: str) -> bool:
    """Tell whether a server answers at all; asked once in a process."""
    heard = threading.Event()
    asking = threading.Thread(target=_ask, args=(address, heard), daemon=True)
    asking.start()
    asking.join(_PATIENCE_S)
    return heard.is_set()


def _ask(address: str, heard: threading.Event) -> None:
    import httpx

    try:
        httpx.head(address, timeout=_PATIENCE_S)
    except httpx.HTTPError as error:
        if "CERTIFICATE" not in str(error).upper():  # a certificate that is refused comes from somebody, too
            return
    heard.set()
