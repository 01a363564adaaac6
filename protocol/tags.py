"""Domain tags: the first bytes of every input of ours to a signature, hash or seed.

A tag ends in 0x00 and nothing variable stands before that byte, so that no two uses can be given
the same bytes. Signed notes, cosignatures and RFC 9421 bases contain no 0x00 and have own keys.
"""

from typing import Final

ENVELOPE: Final = b"shanmen/env/1\0"  # suite ‖ len(kind) ‖ kind ‖ payload: what signers sign
OBJECT: Final = b"shanmen/object/1\0"  # the same bytes: the object's id
RECORD: Final = b"shanmen/record/1\0"  # the whole envelope: its hash in leaves
SEGMENT: Final = b"shanmen/segment/1\0"  # prelude ‖ header: what the agent signs
HEADER: Final = b"shanmen/header/1\0"  # prelude ‖ header: segment id, `prev`
PART: Final = b"shanmen/part/1\0"  # fixed fields: associated data of a part
STORED: Final = b"shanmen/stored/1\0"  # a part as stored: its hash in the header
KEY: Final = b"shanmen/key/1\0"  # suite ‖ use ‖ public key: key id
RESOURCE: Final = b"shanmen/resource/1\0"  # agent ‖ local name: resource id
TOKEN: Final = b"shanmen/token/1\0"  # token id ‖ secret: seed of the token key
CHECK: Final = b"shanmen/check/1\0"  # id: two check characters
SCHEMA: Final = b"shanmen/schema/1\0"  # a pack's fields as in the entry: content schema hash
