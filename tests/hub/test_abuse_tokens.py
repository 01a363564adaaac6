"""Abuse of one-time tokens and of enrolment."""

from pathlib import Path

import pytest

from hub.enrol import ANSWERED_AGAIN_US
from hub.opening import wall_us
from hub.store import agents
from protocol.enrolment import open_enrolled
from protocol.errors import Code, VerifyError
from tests.hub.shell import Gateway, Owner, serving

HOUR_US = 3600 * 1_000_000


def later(shell, us: int) -> None:
    shell.parts.clock_us = lambda: wall_us() + us


async def test_token_reused(tmp_path: Path) -> None:
    async with serving(tmp_path) as shell:
        await shell.site()
        token = await shell.token()
        first, second = Gateway(shell), Gateway(shell)
        assert (await shell.post("/v1/enrol", first.request(token).raw)).status == 200
        answer = await shell.post("/v1/enrol", second.request(token).raw)
        assert (answer.status, answer.key) == (409, "token-used")
        # The same gateway with another object is another request as well.
        again = await shell.post("/v1/enrol", first.request(token).raw)
        assert (again.status, again.key) == (409, "token-used")
        assert len(await shell.parts.store.read(agents.all_of)) == 1


async def test_owner_token_reused(tmp_path: Path) -> None:
    async with serving(tmp_path) as shell:
        token = await shell.owner_token()
        first, second = Owner("first"), Owner("second")
        key = token.signing_key()
        done = await shell.signed(key, "POST", "/v1/objects", first.principal.raw)
        assert done.json["known"] is False
        same = await shell.signed(key, "POST", "/v1/objects", first.principal.raw)
        assert same.json["known"] is True
        assert same.json["leaf"] == done.json["leaf"]
        other = await shell.signed(key, "POST", "/v1/objects", second.principal.raw)
        assert (other.status, other.key) == (409, "token-used")


async def test_token_expired(tmp_path: Path) -> None:
    async with serving(tmp_path) as shell:
        await shell.site()
        token = await shell.token()
        later(shell, 24 * HOUR_US + 1_000_000)
        gateway = Gateway(shell)
        answer = await shell.post("/v1/enrol", gateway.request(token).raw)
        assert (answer.status, answer.key) == (403, "token-expired")
        assert await shell.parts.store.read(agents.all_of) == []


async def test_token_for_other_site(tmp_path: Path) -> None:
    """A token decides the site; an owner's token or one unknown lets no gateway in."""
    async with serving(tmp_path) as shell:
        await shell.site("lake")
        await shell.site("gate")
        gateway = Gateway(shell)
        request = gateway.request(await shell.token("gate"))
        answer = await shell.post("/v1/enrol", request.raw)
        assert gateway.believe(request, answer.body).site == "gate"
        for token in (await shell.owner_token(),):
            answer = await shell.post("/v1/enrol", Gateway(shell).request(token).raw)
            assert (answer.status, answer.key) == (403, "token-unknown")
        owner = Owner()
        site_key = (await shell.token("lake")).signing_key()
        answer = await shell.signed(site_key, "POST", "/v1/objects", owner.principal.raw)
        assert (answer.status, answer.key) == (401, "unknown-key")


async def test_enrolment_for_other_hub_is_told_so(tmp_path: Path) -> None:
    async with serving(tmp_path) as shell, serving(tmp_path, name="other") as other:
        await shell.site()
        answer = await other.post("/v1/enrol", Gateway(shell).request(await shell.token()).raw)
        assert (answer.status, answer.key) == (421, "wrong-hub")


async def test_token_bruteforce_limited(tmp_path: Path, monkeypatch) -> None:
    """Attempts are counted per address before any signature is looked at."""
    async with serving(tmp_path, enrol_per_address=5, enrol_total=8) as shell:
        await shell.site()
        request = Gateway(shell).request(await shell.token()).raw
        broken = request[:-1] + bytes([request[-1] ^ 1])
        keys = [(await shell.post("/v1/enrol", broken)).key for _ in range(5)]
        assert set(keys) == {"signature-invalid"}
        looked: list[int] = []
        monkeypatch.setattr("hub.enrol.open_enrolment", lambda *_a, **_k: looked.append(1))
        answer = await shell.post("/v1/enrol", request)
        assert (answer.status, answer.key) == (429, "rate-limited")
        assert 0 < int(answer.headers["Retry-After"]) <= 600
        assert looked == []


def test_attempts_are_limited_in_all_and_come_back() -> None:
    from hub.attempts import Attempts

    attempts = Attempts(per_address=2, total=3)
    assert [attempts.admit("a", 0.0), attempts.admit("a", 1.0)] == [0.0, 0.0]
    assert attempts.admit("a", 2.0) == 598.0
    assert attempts.admit("b", 3.0) == 0.0
    assert attempts.admit("c", 4.0) == 596.0
    assert attempts.admit("c", 600.0) == 0.0
    assert attempts.admit("a", 601.0) == 0.0
    assert attempts.refused == 2


async def test_enrolment_answer_lost(tmp_path: Path) -> None:
    """The same object is answered again until expiry + 24 h, also by a restarted hub."""
    async with serving(tmp_path) as shell:
        await shell.site()
        token = await shell.token()
        gateway = Gateway(shell)
        request = gateway.request(token)
        lost = await shell.post("/v1/enrol", request.raw)
        again = await shell.post("/v1/enrol", request.raw)
        assert again.status == 200
        first, second = gateway.believe(request, lost.body), gateway.believe(request, again.body)
        assert second.index == first.index
    async with serving(tmp_path) as shell:
        gateway.shell = shell
        other = Gateway(shell)
        await other.join()  # the ledger has grown
        later(shell, 48 * HOUR_US - 5_000_000)
        found = gateway.believe(request, (await shell.post("/v1/enrol", request.raw)).body)
        assert found.index == first.index
        bays = gateway.resource()
        later(shell, 0)
        assert len((await gateway.exchange(bays.registration)).accepted) == 1
        later(shell, 24 * HOUR_US + ANSWERED_AGAIN_US + 5_000_000)
        answer = await shell.post("/v1/enrol", request.raw)
        assert (answer.status, answer.key) == (403, "token-expired")


async def test_enrolment_answer_replayed(tmp_path: Path) -> None:
    """An answer to one request proves nothing to another, whoever plays it back."""
    async with serving(tmp_path) as shell:
        await shell.site()
        first, second = Gateway(shell), Gateway(shell)
        request = first.request(await shell.token())
        answer = (await shell.post("/v1/enrol", request.raw)).body
        other = second.request(await shell.token())
        with pytest.raises(VerifyError) as caught:
            open_enrolled(answer, hub=shell.hub, request=other.object_id, agent=second.id)
        assert caught.value.code is Code.ANSWER_FOR_OTHER_REQUEST


async def test_a_known_gateway_does_not_enrol_twice(tmp_path: Path) -> None:
    async with serving(tmp_path) as shell:
        await shell.site()
        gateway = Gateway(shell)
        await gateway.join()
        answer = await shell.post("/v1/enrol", gateway.request(await shell.token()).raw)
        assert (answer.status, answer.key) == (409, "conflict")


async def test_two_gateways_race_for_one_token(tmp_path: Path) -> None:
    import asyncio

    async with serving(tmp_path) as shell:
        await shell.site()
        token = await shell.token()
        racers = [Gateway(shell).request(token).raw for _ in range(8)]
        answers = await asyncio.gather(*(shell.post("/v1/enrol", one) for one in racers))
        assert sorted(one.status for one in answers) == [200] + [409] * 7
