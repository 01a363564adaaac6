"""What is progress: where nothing moved, the same batch would at once bring the same answer."""

from agent.seal.resend import queue_header
from agent.store.segments import head_bytes
from tests.agent.kit import Site


async def test_ending_a_stream_says_whether_anything_moved(tmp_path):
    site = Site(tmp_path)
    async with site.running():
        await site.give(1)
        await site.drain()
        bound, forks = site.core.bounds["gate"], site.core.forks
        old = bound.stream.id
        assert await forks.succeed(bound, reason="test"), "nothing waited, but a stream began"
        live = bound.stream.id
        assert live != old
        assert not await forks.succeed(bound, reason="test", stream=old)

        def owe_header(connection):
            head = head_bytes(connection, old, 0)
            queue_header(connection, old, 0, head, body=0, reason="evicted")

        await site.core.main.database.write("test", owe_header)
        assert await forks.succeed(bound, reason="test", stream=old), "its header went"
        assert not await forks.succeed(bound, reason="test", stream=old)
        assert bound.stream.id == live
