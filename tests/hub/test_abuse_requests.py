"""Abuse of request signatures: each is refused before a handler sees a byte."""

import time
from pathlib import Path

from protocol import ids
from protocol.messages import MEDIA_TYPE
from tests.hub import kit
from tests.hub.shell import Gateway, Shell, serving


async def joined(shell: Shell) -> Gateway:
    await shell.site()
    gateway = Gateway(shell)
    await gateway.join()
    return gateway


async def test_signature_replayed_request(tmp_path: Path) -> None:
    async with serving(tmp_path) as shell:
        gateway = await joined(shell)
        bays = gateway.resource()
        body = gateway.body(bays.registration)
        headers = shell.sign(gateway.signing, "POST", "/v1/sync", body)
        first = await shell.call("POST", "/v1/sync", body=body, headers=headers)
        assert first.status == 200
        again = await shell.call("POST", "/v1/sync", body=body, headers=headers)
        assert (again.status, again.key) == (401, "replayed")
    async with serving(tmp_path) as shell:  # a restarted hub remembers
        again = await shell.call("POST", "/v1/sync", body=body, headers=headers)
        assert (again.status, again.key) == (401, "replayed")


async def test_signature_replayed_object(tmp_path: Path) -> None:
    from tests.hub.shell import Owner

    async with serving(tmp_path) as shell:
        owner = Owner()
        key = (await shell.owner_token()).signing_key()
        headers = shell.sign(key, "POST", "/v1/objects", owner.principal.raw)
        for status in (200, 401):
            answer = await shell.call(
                "POST", "/v1/objects", body=owner.principal.raw, headers=headers
            )
            assert answer.status == status
        assert answer.key == "replayed"


async def test_signature_without_digest(tmp_path: Path) -> None:
    async with serving(tmp_path) as shell:
        gateway = await joined(shell)
        body = gateway.body()
        bare = shell.sign(gateway.signing, "POST", "/v1/sync")  # signs no body
        bare["Content-Type"] = MEDIA_TYPE
        answer = await shell.call("POST", "/v1/sync", body=body, headers=bare)
        assert (answer.status, answer.key) == (401, "signature-missing")
        dropped = shell.sign(gateway.signing, "POST", "/v1/sync", body)
        del dropped["Content-Digest"]
        answer = await shell.call("POST", "/v1/sync", body=body, headers=dropped)
        assert (answer.status, answer.key) == (400, "digest-mismatch")


async def test_signature_from_future(tmp_path: Path) -> None:
    async with serving(tmp_path) as shell:
        gateway = await joined(shell)
        now = int(time.time())
        for wrong in (120, -120, 86_400):
            answer = await shell.signed(
                gateway.signing, "POST", "/v1/sync", gateway.body(), created_s=now + wrong
            )
            assert answer.status == 401
            assert answer.key == "clock-skew"
            # The answer says what time it is.
            assert abs(answer.json["error"]["hub_time_us"] / 1e6 - now) < 30


async def test_refusal_is_signed_for_who_reads_it(tmp_path: Path) -> None:
    """A gateway with a wrong clock learns the time from the refusal, and only from the hub."""
    from hub.opening import wall_us
    from protocol.errors import Code

    async with serving(tmp_path) as shell:
        gateway = await joined(shell)
        body = gateway.body()
        headers = shell.sign(gateway.signing, "POST", "/v1/sync", body, created_s=1000)
        headers["Accept"] = MEDIA_TYPE
        answer = await shell.call("POST", "/v1/sync", body=body, headers=headers)
        assert answer.status == 401
        outcome = gateway.sync.receive(answer.body, now_us=1_000_000_000)
        assert outcome.error is Code.CLOCK_SKEW
        assert abs(outcome.offset_us + 1_000_000_000 - wall_us()) < 30_000_000


async def test_covered_list_shortened(tmp_path: Path) -> None:
    async with serving(tmp_path) as shell:
        gateway = await joined(shell)
        body = gateway.body()
        for left_out in ('"@query" ', '"content-digest" ', ' "shanmen-hub"', '"@method" '):
            headers = shell.sign(gateway.signing, "POST", "/v1/sync", body)
            assert left_out in headers["Signature-Input"]
            headers["Signature-Input"] = headers["Signature-Input"].replace(left_out, "")
            answer = await shell.call("POST", "/v1/sync", body=body, headers=headers)
            assert answer.status == 401, left_out


async def test_request_for_other_hub(tmp_path: Path) -> None:
    async with serving(tmp_path) as shell, serving(tmp_path, name="other") as other:
        gateway = await joined(shell)
        answer = await shell.signed(
            gateway.signing, "POST", "/v1/sync", gateway.body(), hub=other.hub
        )
        assert (answer.status, answer.key) == (421, "wrong-hub")
        headers = shell.sign(gateway.signing, "POST", "/v1/sync", gateway.body(), hub=other.hub)
        headers["Shanmen-Hub"] = ids.show(shell.hub)
        answer = await shell.call("POST", "/v1/sync", body=gateway.body(), headers=headers)
        assert (answer.status, answer.key) == (401, "signature-invalid")


async def test_request_body_swapped(tmp_path: Path) -> None:
    async with serving(tmp_path) as shell:
        gateway = await joined(shell)
        mine, other = gateway.resource("mine"), gateway.resource("other")
        body, swapped = gateway.body(mine.registration), gateway.body(other.registration)
        headers = shell.sign(gateway.signing, "POST", "/v1/sync", body)
        answer = await shell.call("POST", "/v1/sync", body=swapped, headers=headers)
        assert (answer.status, answer.key) == (400, "digest-mismatch")
        moved = await shell.call("POST", "/v1/objects", body=body, headers=headers)
        assert (moved.status, moved.key) == (401, "signature-invalid")
        asked = shell.sign(gateway.signing, "GET", "/v1/inbox?generation=0&n=0")
        widened = await shell.call("GET", "/v1/inbox?generation=0&n=9", headers=asked)
        assert (widened.status, widened.key) == (401, "signature-invalid")


async def test_content_encoding_refused(tmp_path: Path) -> None:
    import gzip

    async with serving(tmp_path) as shell:
        gateway = await joined(shell)
        body = gzip.compress(gateway.body())
        for coding in ("gzip", "identity", "br"):
            headers = shell.sign(gateway.signing, "POST", "/v1/sync", body)
            headers["Content-Encoding"] = coding
            answer = await shell.call("POST", "/v1/sync", body=body, headers=headers)
            assert (answer.status, answer.key) == (415, "content-coding")
        headers = {"Content-Type": MEDIA_TYPE, "Content-Encoding": "gzip"}
        answer = await shell.call("POST", "/v1/enrol", body=body, headers=headers)
        assert (answer.status, answer.key) == (415, "content-coding")


async def test_signature_twice(tmp_path: Path) -> None:
    from multidict import CIMultiDict

    async with serving(tmp_path) as shell:
        gateway = await joined(shell)
        one = shell.sign(gateway.signing, "GET", "/v1/streams")
        headers = CIMultiDict(one)
        headers.add("Signature", one["Signature"])
        answer = await shell.call("GET", "/v1/streams", headers=headers)
        assert (answer.status, answer.key) == (400, "signature-count")


async def test_agent_speaks_for_itself_only(tmp_path: Path) -> None:
    async with serving(tmp_path) as shell:
        gateway = await joined(shell)
        other = Gateway(shell)
        await other.join()
        body = other.body()
        answer = await shell.signed(gateway.signing, "POST", "/v1/sync", body)
        assert (answer.status, answer.key) == (400, "wrong-agent")


async def test_agent_of_other_site_writes_here(tmp_path: Path) -> None:
    """A segment that another agent signed is refused, and nothing of it is kept."""
    async with serving(tmp_path) as shell:
        gateway = await joined(shell)
        await shell.site("gate")
        thief = Gateway(shell)
        request = thief.request(await shell.token("gate"))
        thief.believe(request, (await shell.post("/v1/enrol", request.raw)).body)
        bays = gateway.resource()
        await gateway.exchange(bays.registration)
        outcome = await thief.exchange(kit.item(bays.seal()))
        assert outcome.accepted == ()
        found = await shell.parts.reading.segments_of(bays.id)
        assert found == []
