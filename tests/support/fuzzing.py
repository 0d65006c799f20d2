"""How much is tried: some hundreds of fixed requests, or as many random ones as REQUESTS says.

A random run stores what failed in `.hypothesis/` and starts with it the next time.
"""

import os

from hypothesis import HealthCheck, Phase, settings

REQUESTS = int(os.environ.get("REQUESTS", "500"))  # over both engines


EXPLORES = "REQUESTS" in os.environ


ENGINES = 2


def trying(examples: int, **more: object) -> settings:
    """Return how hypothesis is to try so many examples."""
    repeatable = {} if EXPLORES else {"derandomize": True, "database": None}
    return settings(
        max_examples=examples,
        deadline=None,
        print_blob=True,
        report_multiple_bugs=False,
        phases=[phase for phase in Phase if phase is not Phase.explain],  # it takes as long as all the rest
        suppress_health_check=list(HealthCheck),
        **repeatable,
        **more,
    )
