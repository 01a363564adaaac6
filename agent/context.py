"""What the agent lends to a driver: its memory, its clock, its secrets, its health."""

from dataclasses import dataclass

from agent.host.clock import Clock
from agent.host.health import Health
from agent.host.keyring import Keyring
from agent.pipeline import Pipeline
from agent.store.rest import RootKey
from devices.driver import DriverError, Promise, Reading, Watermark
from protocol.errors import Code, ConfigError, ShanmenError


@dataclass(frozen=True, slots=True)
class Context:
    """Implements `devices.driver.DriverContext` for one driver."""

    driver: str
    health: Health
    pipeline: Pipeline
    clock: Clock
    keyring: Keyring
    root: RootKey

    def watermark(self, source: str) -> bytes | None:
        """The last committed watermark of one of this driver's sources."""
        return self.pipeline.watermark(self.driver, source)

    async def note(self, watermark: Watermark) -> None:
        """Commit a watermark by itself. Raises DriverError: the driver tries again later."""
        reading = Reading(watermarks=[watermark], promise=Promise.B)
        try:
            await self.pipeline.submit(reading, driver=self.driver)
        except ShanmenError as error:
            raise DriverError(error.code, field="watermark", value=watermark.source) from error

    def clock_us(self) -> int:
        """The gateway's clock, corrected by the hub's where that is known."""
        return self.clock.best_us()

    def secret(self, name: str) -> str:
        """A secret of the keyring. Raises ConfigError if there is none."""
        found = self.keyring.secret(name, self.root)
        if found is None:
            raise ConfigError(
                Code.CONFIG_INVALID,
                field=f"secret:{name}",
                expected=f"a systemd credential shanmen-{name} or the file keys/secrets/{name}",
            )
        return found
