"""What waits at a gateway, counted from the real core."""

from tests.agent.kit import *  # noqa: F403
