"""One part of a segment between plain and stored bytes: its key, its nonce, what it is bound to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from protocol import tags
from protocol.errors import Code, DecodeError, VerifyError
from protocol.grades import Grade, rules
from protocol.header import Part
from protocol.ids import ObjectId, PrincipalId, ResourceId, StreamId
from protocol.keys import EpochKey, segment_key
from protocol.suites import suite as suite_of


@dataclass(frozen=True, slots=True)
class Binding:
    """What a part is bound to: it cannot be moved to another place and still open (原生加密)."""

    suite: int
    agent: PrincipalId
    resource: ResourceId
    stream: StreamId
    seq: int
    epoch: int
    grade: Grade
    entry: ObjectId

    def _aad(self, group: int) -> bytes:
        """Domain tag ‖ suite ‖ agent ‖ resource ‖ stream ‖ seq ‖ epoch ‖ group ‖ grade ‖ entry."""
        place = self.seq.to_bytes(8, "big") + self.epoch.to_bytes(4, "big")
        return b"".join(
            (
                tags.PART,
                bytes([self.suite]),
                self.agent,
                self.resource,
                self.stream,
                place,
                bytes([group, self.grade]),
                self.entry,
            )
        )

    def _key(self, key: EpochKey | None, group: int) -> tuple[bytes, bytes]:
        """Segment key and commitment. Raises VerifyError if it is another place's key."""
        if key is None or (key.resource, key.epoch, key.group) != (
            self.resource,
            self.epoch,
            group,
        ):
            raise VerifyError(Code.UNKNOWN_KEY, field="epoch key", value=group)
        part_key = segment_key(
            key.key,
            self.suite,
            self.agent,
            self.resource,
            self.stream,
            self.seq,
            self.epoch,
            group,
        )
        return part_key, key.commitment(self.suite)

    def close(
        self,
        group: int,
        plain: bytes,
        keys: Mapping[int, EpochKey] | None,
        nonces: Sequence[bytes],
    ) -> tuple[Part, bytes]:
        """The part's line in the header, and its bytes."""
        nonce = commitment = b""
        stored = plain
        if rules(self.grade).sealed:
            key, commitment = self._key((keys or {}).get(group), group)
            if group >= len(nonces):
                raise DecodeError(Code.MISSING_FIELD, field="nonces", expected="one a group")
            nonce = nonces[group]
            stored = suite_of(self.suite).aead_seal(key, nonce, self._aad(group), plain)
        digest = suite_of(self.suite).hash(tags.STORED, stored)
        return Part(group, len(stored), nonce, commitment, digest), stored

    def open(
        self, part: Part, data: bytes | memoryview, key: EpochKey | None
    ) -> bytes | memoryview:
        """The plain bytes of a part."""
        if not rules(self.grade).sealed:
            return data
        part_key, commitment = self._key(key, part.group)
        if commitment != part.commitment:
            raise VerifyError(Code.COMMITMENT_MISMATCH, field="commitment", value=part.group)
        return suite_of(self.suite).aead_open(part_key, part.nonce, self._aad(part.group), data)
