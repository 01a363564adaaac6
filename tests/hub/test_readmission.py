"""A gateway that was enrolled after the backup: the hub's own word lets it wait again."""

from pathlib import Path

import msgspec

from hub import admin
from hub.api.routes import _ENROL_BYTES_MAX
from hub.folder import read_config
from hub.restoring import restore
from protocol import ids, wire
from protocol.enrolment import make_enrolled
from protocol.envelope import SigningKey
from protocol.messages import Later
from tests.hub import kit
from tests.hub.shell import BY, Gateway, Shell, serving


async def enrolled_after_the_backup(tmp_path: Path, gateway: list[Gateway]) -> tuple[bytes, bytes]:
    """Back up, enrol a gateway, lose the hub, restore; gives its enrolment and `enrolled`."""
    saved = tmp_path / "saved"
    async with serving(tmp_path) as shell:
        await shell.do(admin.BackupMake(folder=str(saved)))
        await shell.site()
        one = Gateway(shell)
        request = one.request(await shell.token())
        answer = await shell.post("/v1/enrol", request.raw)
        one.believe(request, answer.body)
        gateway.append(one)
        bays = one.resource()
        assert (await one.exchange(bays.registration)).items[0].accepted
    _, folder = read_config(tmp_path / "hub" / "hub.toml")
    await restore(folder, saved, by=BY)
    return request.raw, answer.body


async def show(shell: Shell, first: bytes, second: bytes):
    return await shell.post("/v1/enrol", wire.encode([first, second]))


async def test_restored_hub_unknown_agent(tmp_path: Path) -> None:
    """Unknown, re-admitted as waiting, approved, and everything is taken again."""
    kept: list[Gateway] = []
    request, answer = await enrolled_after_the_backup(tmp_path, kept)
    (gateway,) = kept
    async with serving(tmp_path) as shell:
        gateway.shell = shell
        refused = await shell.signed(gateway.signing, "GET", "/v1/streams")
        assert (refused.status, refused.key) == (403, "unknown-agent")
        told = await show(shell, request, answer)
        assert told.status == 200, told.body
        assert (await show(shell, request, answer)).status == 200, "a lost answer is asked again"
        (row,) = (await shell.do(admin.AgentList()))["agents"]
        assert row["state"] == "waiting"
        assert row["site"] == "lake"
        bays = gateway.resource()
        outcome = await gateway.exchange(bays.registration)
        assert isinstance(outcome.items[0].verdict, Later)
        assert outcome.new_generation
        waits = await shell.signed(gateway.signing, "GET", "/v1/streams")
        assert (waits.status, waits.key) == (403, "agent-waiting")
        await shell.do(admin.AgentChange(agent=ids.show(gateway.id), decision="approve"))
        outcome = await gateway.exchange(bays.registration, kit.item(bays.seal()))
        assert [one.accepted for one in outcome.items] == [True, True]


async def test_never_synced_and_unknown(tmp_path: Path) -> None:
    """One that has no checkpoint yet follows the statements from its enrolment's generation."""
    kept: list[Gateway] = []
    request, answer = await enrolled_after_the_backup(tmp_path, kept)
    (gateway,) = kept
    async with serving(tmp_path) as shell:
        gateway.shell = shell
        gateway.sync = gateway._conversation()
        assert (await show(shell, request, answer)).status == 200
        await shell.do(admin.AgentChange(agent=ids.show(gateway.id), decision="approve"))
        outcome = await gateway.exchange(gateway.resource().registration)
        assert outcome.new_generation
        assert outcome.items[0].accepted


async def test_forged_or_foreign_enrolled_lets_nobody_in(tmp_path: Path) -> None:
    kept: list[Gateway] = []
    request, answer = await enrolled_after_the_backup(tmp_path, kept)
    (gateway,) = kept
    assert gateway.enrolled is not None
    thief = SigningKey(b"\x66" * 32)
    async with serving(tmp_path) as shell:
        forged = [
            make_enrolled(gateway.enrolled, thief).raw,
            make_enrolled(
                msgspec.structs.replace(gateway.enrolled, path=(bytes(32),)),
                shell.parts.keys.signing,
            ).raw,
            make_enrolled(
                msgspec.structs.replace(gateway.enrolled, log_key=thief_key(gateway, thief)),
                shell.parts.keys.signing,
            ).raw,
            answer[:-1],
            request,
        ]
        for one in forged:
            refused = await show(shell, request, one)
            assert 400 <= refused.status < 500, refused.body
        other = Gateway(shell)
        await shell.site()
        made = other.request(await shell.token())
        assert (await show(shell, made.raw, answer)).status in {400, 401}
        assert (await shell.do(admin.AgentList()))["agents"] == []
    async with serving(tmp_path, name="other") as stranger:
        refused = await show(stranger, request, answer)
        assert refused.status == 421
        assert refused.key == "wrong-hub"


def thief_key(gateway: Gateway, thief: SigningKey) -> str:
    from protocol.checkpoint import LogKey

    assert gateway.enrolled is not None
    return LogKey(LogKey.parse(gateway.enrolled.log_key).name, thief.public).text


async def test_without_a_restore_nobody_is_readmitted(tmp_path: Path) -> None:
    """The present generation's own `enrolled` of an agent that is gone opens nothing."""
    async with serving(tmp_path) as shell:
        await shell.site()
        gateway = Gateway(shell)
        request = gateway.request(await shell.token())
        answer = await shell.post("/v1/enrol", request.raw)
        stranger = await shell.signed(SigningKey(b"\x67" * 32), "GET", "/v1/streams")
        assert (stranger.status, stranger.key) == (401, "unknown-key")
        await shell.parts.store.write(
            "test",
            lambda tx: [
                tx.exec_driver_sql("DELETE FROM key WHERE kind = 'agent'"),
                tx.exec_driver_sql("DELETE FROM agent"),
            ],
        )
        refused = await show(shell, request.raw, answer.body)
        assert (refused.status, refused.key) == (403, "unknown-agent")


async def test_the_proof_fits_the_body_that_enrol_takes(tmp_path: Path) -> None:
    """With a path of a thousand million leaves."""
    async with serving(tmp_path) as shell:
        await shell.site()
        gateway = Gateway(shell, "门" * 60)
        request = gateway.request(await shell.token())
        enrolled = gateway.believe(request, (await shell.post("/v1/enrol", request.raw)).body)
        long = msgspec.structs.replace(enrolled, path=(bytes(32),) * 30)
        raw = make_enrolled(long, shell.parts.keys.signing).raw
        assert len(wire.encode([request.raw, raw])) <= _ENROL_BYTES_MAX
