"""What the core is given by the shell: identity, clock, settings. Values only, no behaviour."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, Protocol

from protocol.envelope import SealingKey, SigningKey
from protocol.grades import Grade, Secrecy
from protocol.ids import PrincipalId
from protocol.packs import Pack
from protocol.principal import Principal
from protocol.sync import HubIdentity
from protocol.times import ClockMark

#: n random bytes. The vault has one of its own, so that its existence changes nothing outside.
Randomness = Callable[[int], bytes]

HOUR_US: Final = 3_600_000_000
DAY_US: Final = 24 * HOUR_US
MIB: Final = 1 << 20


class Clock(Protocol):
    """The gateway's times. Wall time may be wrong by years; monotonic time never goes back."""

    @property
    def floor_us(self) -> int:
        """A time that has surely passed, µs UTC; kept, for a start at which nobody knows it."""
        ...

    def now_us(self) -> int:
        """Wall time as this machine believes it, µs UTC."""
        ...

    def monotonic_us(self) -> int:
        """µs since this machine's start; comparable within one boot only."""
        ...

    def mark(self) -> ClockMark:
        """How far wall time is off and who says so; source NONE when nobody does."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who this gateway is, whom it talks to, who owns its data (pinned here, not by the hub)."""

    agent: PrincipalId
    signing: SigningKey
    sealing: SealingKey
    site: str
    region: str  # 12-digit code of the administrative division
    hub: HubIdentity
    owner: Principal | None = None  # verified under the pin; None: not seen yet
    owner_basis: Literal["local", "hub"] = "local"
    owner_confirmed: bool = False  # False: no wrap and no segment of a sealed grade leaves


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceSettings:
    """One data resource (数据资源) as the configuration declares it."""

    local: str  # local name; with the agent's id it makes the resource id
    pack: Pack
    grade: Grade | None = None  # only as protective as the pack's default, or more
    secrecy: Secrecy = Secrecy.PUBLIC
    name_zh: str = ""
    name_en: str = ""
    description: str = ""
    place: str = ""
    coordinates: tuple[float, float] | None = None  # longitude, latitude, WGS 84
    region: str = ""  # empty: the site's
    producer: str = ""
    provider: str = ""
    user_policy: str = ""
    data_type: str = ""
    classification: dict[str, str] = field(default_factory=dict)
    segment_age_s: float | None = None  # instead of CoreSettings.seal_age_s


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreSettings:
    """Budgets and rhythms; sizes in bytes, ages in seconds unless the name says µs."""

    resources: tuple[ResourceSettings, ...] = ()
    feeds: Mapping[str, Collection[str]] = field(default_factory=dict)  # driver -> resources
    budget_bytes: int = 2048 * MIB  # database + WAL + reserve
    vault_budget_bytes: int = 256 * MIB
    commit_delay_s: float = 5.0  # only for sources that keep their data (D, E)
    seal_records: int = 1_000  # a segment closes at this many records
    seal_age_s: float = 60.0
    live_age_s: float = 2.0
    epoch_us: int = DAY_US
    lateness_us: int = DAY_US
    grace_s: float = 86_400.0  # bodies stay at least this long after their receipt
    seen_age_s: float = 7 * 86_400.0  # identities of messages are remembered this long
    seen_max: int = 500_000  # and at most this many
    software: str = "shanmen-agent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Paths:
    """Where the core's files stand. The folder is 0700, the files 0600."""

    folder: Path

    @property
    def spool(self) -> Path:
        """The one file of everything that may leave."""
        return self.folder / "spool.db"

    @property
    def vault(self) -> Path:
        """The file of what never leaves; absent where no resource is key-protected."""
        return self.folder / "vault.db"
