"""Every route by every caller: what is not allowed by the table is refused, without exception."""

import asyncio
from pathlib import Path

import pytest

from hub import admin
from hub.api.exchange import Caller
from hub.api.routes import ROUTES, Route
from hub.bells import AWAY_AFTER_S
from hub.config import ListenSection, MetricsSection
from hub.opening import wall_us
from hub.store import inbox
from protocol import ids, wire
from protocol.inbox import InboxMessage, InboxNumber, Live, make_inbox
from protocol.messages import Later
from tests.hub import kit
from tests.hub.shell import Answer, Gateway, Owner, Shell, serving

FREE = {"/v1/time", "/v1/enrol", "/healthz", "/readyz"}


def filled(route: Route) -> str:
    values = {
        "{object}": "0" * 64,
        "{resource}": ids.show(bytes(16)),
        "{segment}": "0" * 64,
        "{group}": "0",
        "{generation}": "1",
        "{tile*}": "0/000.p/1",
    }
    return "/".join(values.get(one, one) for one in route.path.split("/"))


async def as_caller(
    shell: Shell, caller: Caller, route: Route, people: dict[Caller, object]
) -> Answer:
    body = b"\x80" if route.method == "POST" else None
    target = filled(route)
    if caller is Caller.READER:
        headers = {"Authorization": f"Bearer {people[caller]}"}
        if body is not None:
            headers["Content-Type"] = "application/vnd.shanmen+msgpack"
        return await shell.call(route.method, target, body=body, headers=headers)
    if caller is Caller.ANYBODY:
        headers = {"Content-Type": "application/vnd.shanmen+msgpack"} if body else {}
        # Not on loopback, as a proxy says: else /metrics would be free.
        return await shell.call(
            route.method, target, body=body, headers=headers | {"X-Forwarded-For": "192.0.2.1"}
        )
    return await shell.signed(people[caller], route.method, target, body)


async def test_every_route_by_every_caller(tmp_path: Path) -> None:
    async with serving(tmp_path) as shell:
        await shell.site()
        gateway, owner = Gateway(shell), Owner()
        await gateway.join()
        await owner.join(shell)
        people = {
            Caller.AGENT: gateway.signing,
            Caller.OWNER: owner.signing,
            Caller.INVITED: (await shell.owner_token()).signing_key(),
            Caller.READER: await shell.read_token(),
            Caller.ANYBODY: None,
        }
        seen = 0
        for route in ROUTES:
            if route.path == "/v1/inbox":
                continue  # a poll; its own tests
            for caller in people:
                answer = await as_caller(shell, caller, route, people)
                where = f"{caller} {route.path}: {answer.status} {answer.body[:80]!r}"
                assert answer.status < 500, where
                allowed = caller in route.callers or Caller.ANYBODY in route.callers
                if not allowed:
                    assert answer.status in {401, 403}, where
                    expected = {"signature-missing", "not-allowed"}
                    assert answer.key in expected, where
                    seen += 1
                elif answer.status >= 400:
                    assert answer.key not in {"signature-missing", "not-allowed"} or (
                        route.path == "/v1/wraps"
                    ), where
        assert seen > 30


async def test_api_without_credentials(tmp_path: Path) -> None:
    """All but enrolment, time, health and the log answer 401 and say what is missing."""
    async with serving(tmp_path, metrics=MetricsSection(loopback=False)) as shell:
        for route in ROUTES:
            body = b"\x80" if route.method == "POST" else None
            headers = {"Content-Type": "application/vnd.shanmen+msgpack"} if body else None
            answer = await shell.call(route.method, filled(route), body=body, headers=headers)
            if route.path in FREE or route.path.startswith("/log/"):
                assert answer.status in {200, 400, 404}, route.path
            else:
                assert (answer.status, answer.key) == (401, "signature-missing"), route.path
                assert answer.json["error"]["zh"]
                assert answer.json["error"]["en"]


async def test_metrics_on_loopback_but_not_through_a_proxy(tmp_path: Path) -> None:
    async with serving(tmp_path) as shell:
        answer = await shell.call("GET", "/metrics")
        assert answer.status == 200
        assert b"shanmen_connections 1.0" in answer.body
        for name in ("X-Forwarded-For", "Forwarded", "Via", "X-Real-IP"):
            answer = await shell.call("GET", "/metrics", headers={name: "127.0.0.1"})
            assert answer.status == 401
        token = await shell.read_token()
        assert (await shell.bearer(token, "/metrics")).status == 200


@pytest.mark.parametrize(
    ("url", "status"),
    [
        ("https://hub.example", 401),
        ("https://192.0.2.7:8440", 401),
        ("http://127.0.0.1:8440", 200),
        ("http://localhost", 200),
        ("", 200),
    ],
)
async def test_metrics_of_a_hub_that_sites_reach_by_another_name(
    tmp_path: Path, url: str, status: int
) -> None:
    """Behind a proxy that adds no header at all, only the hub's own settings can tell."""
    async with serving(tmp_path, listen=ListenSection(port=0, url=url)) as shell:
        assert (await shell.call("GET", "/metrics")).status == status
        token = await shell.read_token()
        assert (await shell.bearer(token, "/metrics")).status == 200


async def test_read_token_revoked(tmp_path: Path) -> None:
    async with serving(tmp_path) as shell:
        made = await shell.do(admin.TokenNew(kind="read", name="statistics"))
        other = await shell.read_token()
        assert (await shell.bearer(made["token"], "/v1/entries")).status == 200
        await shell.do(admin.TokenRevoke(number=made["number"]))
        answer = await shell.bearer(made["token"], "/v1/entries")
        assert (answer.status, answer.key) == (401, "unknown-key")
        assert (await shell.bearer(other, "/v1/entries")).status == 200
        # Neither the database nor a list holds the token itself.
        listed = await shell.do(admin.TokenList())
        assert made["token"] not in str(listed)
        assert made["token"].encode() not in (shell.folder.database).read_bytes()
    async with serving(tmp_path) as shell:
        assert (await shell.bearer(made["token"], "/v1/entries")).status == 401


@pytest.mark.parametrize(
    "text", ["", "Bearer", "Bearer x", "Basic eDp5", "bearer smr1-", "Bearer smr1-" + "a" * 25]
)
async def test_crooked_bearer(tmp_path: Path, text: str) -> None:
    async with serving(tmp_path) as shell:
        answer = await shell.call("GET", "/v1/entries", headers={"Authorization": text})
        assert answer.status == 401


async def test_agent_suspended(tmp_path: Path) -> None:
    """Nothing more is taken, nothing is refused for good; resumed, all of it arrives."""
    async with serving(tmp_path) as shell:
        await shell.site()
        gateway = Gateway(shell)
        await gateway.join()
        bays = gateway.resource()
        await gateway.exchange(bays.registration)
        shown = ids.show(gateway.id)
        done = await shell.do(admin.AgentChange(agent=shown, decision="suspend", reason="stolen"))
        assert done["state"] == "suspended"
        segment = bays.seal()
        outcome = await gateway.exchange(kit.item(segment))
        assert isinstance(outcome.items[0].verdict, Later)
        assert outcome.accepted == ()
        answer = await shell.signed(gateway.signing, "GET", "/v1/streams")
        assert (answer.status, answer.key) == (403, "agent-suspended")
        await shell.do(admin.AgentChange(agent=shown, decision="resume"))
        assert len((await gateway.exchange(kit.item(segment))).accepted) == 1


async def test_agent_waits_for_approval(tmp_path: Path) -> None:
    from hub.config import HubSection

    async with serving(tmp_path, hub=HubSection(approve_agents=True)) as shell:
        await shell.site()
        gateway = Gateway(shell)
        assert (await gateway.join()).state == "waiting"
        bays = gateway.resource()
        outcome = await gateway.exchange(bays.registration)
        assert isinstance(outcome.items[0].verdict, Later)
        shown = ids.show(gateway.id)
        from protocol.errors import RefusedError

        with pytest.raises(RefusedError):  # what is not suspended is not resumed
            await shell.do(admin.AgentChange(agent=shown, decision="resume"))
        await shell.do(admin.AgentChange(agent=shown, decision="approve"))
        assert len((await gateway.exchange(bays.registration)).accepted) == 1


async def test_each_decision_stands_in_ledger_and_trail(tmp_path: Path) -> None:
    from hub.store import audit, leaves, objects
    from protocol import envelope
    from protocol.leaf import EventLeaf, parse_leaf

    async with serving(tmp_path) as shell:
        await shell.site()
        gateway = Gateway(shell)
        await gateway.join()
        shown = ids.show(gateway.id)
        for decision in ("suspend", "resume"):
            done = await shell.do(
                admin.AgentChange(agent=shown, decision=decision, reason="because")
            )
            data = await shell.parts.store.read(leaves.data, done["generation"], [done["leaf"]])
            leaf = parse_leaf(data[done["leaf"]])
            assert isinstance(leaf, EventLeaf)
            assert leaf.kind == "review"
            row = await shell.parts.store.read(objects.get, leaf.object_id)
            review = envelope.open_as(
                envelope.parse(row.raw),
                "review",
                admin.Review,
                envelope.only_key(shell.parts.keys.signing.public),
            )
            assert (review.action, review.subject) == (f"agent.{decision}", shown)
            assert review.by == "operator:test"
        trail = await shell.parts.store.read(audit.page)
        assert [one.action for one in trail if one.subject == shown] == [
            "agent.add", "agent.suspended", "agent.active",
        ]  # fmt: skip
        assert await shell.parts.store.read(audit.verify) is None


async def test_a_message_ends_the_poll_at_once(tmp_path: Path) -> None:
    async with serving(tmp_path) as shell:
        await shell.site()
        gateway = Gateway(shell)
        enrolled = await gateway.join()
        poll = asyncio.create_task(
            shell.signed(gateway.signing, "GET", "/v1/inbox?generation=0&n=0")
        )
        async with asyncio.timeout(5):
            while not shell.parts.bells.standing:
                await asyncio.sleep(0.01)
            now = wall_us()
            message = make_inbox(
                InboxMessage(
                    agent=gateway.id,
                    number=InboxNumber(enrolled.generation, 1),
                    expires=now + 60_000_000,
                    message=Live(resources=(), until=now + 60_000_000),
                    nonce=bytes(16),
                ),
                shell.parts.keys.signing,
            )
            row = inbox.InboxRow(
                agent=gateway.id,
                generation=enrolled.generation,
                n=1,
                expires_us=now + 60_000_000,
                raw=message.raw,
            )
            await shell.parts.store.write("inbox", inbox.put, row)
            shell.parts.bells.ring(gateway.id)
            body = (await poll).body
        assert wire.decode_any(body.lstrip(b"\x00"), limit=10**6) == [message.raw]
        # Acknowledged, it does not come again.
        poll = asyncio.create_task(
            shell.signed(gateway.signing, "GET", f"/v1/inbox?generation={enrolled.generation}&n=1")
        )
        async with asyncio.timeout(5):
            while not shell.parts.bells.standing:
                await asyncio.sleep(0.01)
            shell.parts.bells.ring(gateway.id)
            assert (await poll).body.endswith(b"\x90")


async def test_live_reaches_the_agent_at_once(tmp_path: Path) -> None:
    """An operator's wish ends the poll that stands, and is believed under the hub's key."""
    from protocol import envelope
    from protocol.inbox import open_inbox

    async with serving(tmp_path) as shell:
        await shell.site()
        gateway = Gateway(shell)
        enrolled = await gateway.join()
        shown = ids.show(gateway.id)
        assert (await shell.do(admin.AgentShow(agent=shown)))["away"] is False, (
            "a hub waits at first"
        )
        shell.parts.bells._began_s -= AWAY_AFTER_S + 1
        assert (await shell.do(admin.AgentShow(agent=shown)))["away"] is True
        target = f"/v1/inbox?generation={enrolled.generation}&n=0"
        poll = asyncio.create_task(shell.signed(gateway.signing, "GET", target))
        async with asyncio.timeout(5):
            while not shell.parts.bells.standing:
                await asyncio.sleep(0.01)
            assert (await shell.do(admin.AgentShow(agent=shown)))["away"] is False
            done = await shell.do(admin.AgentLive(agent=shown, minutes=5))
            body = (await poll).body.lstrip(b"\x00")
        (raw,) = wire.decode_any(body, limit=10**6)
        message = open_inbox(
            envelope.parse(raw),
            envelope.only_key(enrolled.hub_keys.signing),
            agent=gateway.id,
            applied=(enrolled.generation, enrolled.inbox.n),
            now_us=wall_us(),
        )
        assert message.message == Live(resources=(), until=done["until_us"])
        # A sync brings it too, until it is acknowledged.
        bays = gateway.resource()
        assert (await gateway.exchange(bays.registration)).inbox == (raw,)


async def test_a_full_disk_is_not_ready(tmp_path: Path, monkeypatch) -> None:
    async with serving(tmp_path) as shell:
        monkeypatch.setattr("hub.api.health._free", lambda _folder: 1000)
        answer = await shell.call("GET", "/readyz")
        assert (answer.status, answer.json["reasons"]) == (503, ["disk-full"])


async def test_refusals_carry_what_http_asks_for(tmp_path: Path) -> None:
    async with serving(tmp_path) as shell:
        answer = await shell.call("DELETE", "/v1/sync")
        assert (answer.status, answer.headers["Allow"]) == (405, "POST")
        answer = await shell.call("GET", "/v1/entries")
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
        assert answer.headers["X-Request-Id"] == answer.json["error"]["request_id"]
        head = await shell.call("HEAD", "/healthz")
        assert (head.status, head.body) == (405, b"")
