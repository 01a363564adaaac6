"""What handlers may use, put together in `hub/app.py` and nowhere else."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hub.config import HubConfig
from protocol.program.messages import Language

if TYPE_CHECKING:
    from hub.attempts import Attempts
    from hub.bells import Bells
    from hub.enrol import Enrolments
    from hub.ingest import Ingest
    from hub.keys import HubKeys
    from hub.ledger import Ledger
    from hub.metrics import Metrics
    from hub.pool import Pool
    from hub.reading import Reading
    from hub.record import Recorder
    from hub.reports import Reports
    from hub.store.engine import Store


@dataclass(slots=True, kw_only=True)
class Parts:
    """The hub's working parts, as the api sees them."""

    config: HubConfig
    language: Language
    keys: "HubKeys"
    store: "Store"
    reading: "Reading"
    recorder: "Recorder"
    ledger: "Ledger"
    ingest: "Ingest"
    pool: "Pool"
    enrolments: "Enrolments"
    attempts: "Attempts"
    bells: "Bells"
    reports: "Reports"
    metrics: "Metrics"
    clock_us: Callable[[], int]  #: wall time, µs UTC
    stopping: bool = False  #: set when SIGTERM came: polls end, `/readyz` says no
