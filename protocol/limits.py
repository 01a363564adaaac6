"""Every bound of the wire, with unit and reason: a length is compared before it is read."""

from typing import Final

# --- msgpack -------------------------------------------------------------------------------------
DEPTH_MAX: Final = 8  # nested containers; the deepest object of ours has 6
ARRAY_ITEMS_MAX: Final = 4096  # a decoder reserves memory for a claimed length: 4,096 x 8 bytes
MAP_ITEMS_MAX: Final = 256  # the widest map is a registration entry with some 40 keys

# --- signed objects, bytes -----------------------------------------------------------------------
OBJECT_BYTES_MAX: Final = 64 * 1024  # any envelope that is stored: an entry with its schema
ENROLMENT_BYTES_MAX: Final = 4 * 1024  # read from strangers
ANSWER_BYTES_MAX: Final = 8 * 1024 * 1024  # proofs of 1,024 items, or a page of fork evidence
INBOX_BYTES_MAX: Final = 256 * 1024  # owner-signed objects ride inside
SCHEMA_BYTES_MAX: Final = 32 * 1024  # the pack's fields inside an entry
NONCE_BYTES: Final = 16

# --- texts, characters ---------------------------------------------------------------------------
NAME_CHARS_MAX: Final = 128  # names of resources, devices, gateways
TEXT_CHARS_MAX: Final = 1024  # descriptions, addresses
REASON_CHARS_MAX: Final = 256
STRING_CHARS_MAX: Final = 4096  # a string value of a record, unless the pack says less
TOKEN_VALUE_BYTES_MAX: Final = 32  # a pseudonym in a record

# --- packs ---------------------------------------------------------------------------------------
FIELDS_MAX: Final = 128
CODES_MAX: Final = 512  # values of one code list
GROUPS_MAX: Final = 8  # column groups of a pack, parts of a segment
ROLES_MAX: Final = 32  # principals named as users in an entry

# --- segments ------------------------------------------------------------------------------------
PRELUDE_BYTES: Final = 28
SIGNATURE_BYTES: Final = 64
HEADER_BYTES_MAX: Final = 4 * 1024
BODY_BYTES_MAX: Final = 4 * 1024 * 1024
RECORDS_PER_SEGMENT_MAX: Final = 100_000
RAW_BYTES_MAX: Final = 64 * 1024 * 1024  # columns before compression
DECODED_BYTES_MAX: Final = 64 * 1024 * 1024  # raw, rows and texts of one segment while it is read
COLUMNS_MAX: Final = 256  # of one part: fields and the fixed columns
COLUMN_NAME_CHARS_MAX: Final = 128
DIRECTORY_BYTES_MAX: Final = 64 * 1024  # names and lengths of the columns of one part
ROW_RANGES_MAX: Final = 32
RESUME_BYTES_MAX: Final = 512
PADDING_BYTES_MIN: Final = 256
ZSTD_WINDOW_BYTES_MAX: Final = 8 * 1024 * 1024

# --- records of one hand-over --------------------------------------------------------------------
INT_MIN: Final = -(2**63)
INT_MAX: Final = 2**63 - 1

# --- sync ----------------------------------------------------------------------------------------
SYNC_BYTES_MAX: Final = 8 * 1024 * 1024
SYNC_ITEMS_MAX: Final = 1024
EVIDENCE_PAGE_MAX: Final = 256  # headers of one page of fork evidence
REQUEST_VALID_S: Final = 60  # expires - created, and |created - hub time|
NONCE_KEPT_S: Final = 120  # twice the validity: a nonce cannot come back while it would be valid
SEGMENT_AGE_S_MAX: Final = 3600

# --- ledger --------------------------------------------------------------------------------------
LEAF_BYTES_MAX: Final = 65_535  # entry bundles carry a 16-bit length
PATH_HASHES_MAX: Final = 63  # a tree of 2^63 leaves
NOTE_BYTES_MAX: Final = 4 * 1024
