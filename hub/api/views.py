"""Structs of the JSON answers; the OpenAPI document is made from them.

Ids are shown as people read them (`protocol.ids.show`), 32-byte ids as 64 hexadecimal digits,
times as µs UTC where the name ends in `_us`.
"""

from msgspec import Struct

from hub.domain.differences import Change


class Health(Struct, frozen=True, kw_only=True):
    """The process answers."""

    status: str


class Readiness(Struct, frozen=True, kw_only=True):
    """Whether the hub can accept data now, and why not."""

    status: str  #: ok or not-ready
    reasons: list[str]
    warnings: list[str] = []  #: what an operator must look at although data is taken


class Accepted(Struct, frozen=True, kw_only=True):
    """An object was recorded."""

    object: str  #: its id
    kind: str
    known: bool  #: it had been recorded before
    generation: int  #: of the ledger
    leaf: int  #: index of the leaf that records it
    sites: list[str]  #: sites that named this principal as their owner


class StreamView(Struct, frozen=True, kw_only=True):
    """Head of one stream as the hub has it."""

    resource: str
    stream: str
    seq: int  #: of the last accepted segment
    head: str  #: id of the last accepted segment


class StreamList(Struct, frozen=True, kw_only=True):
    """An agent's own streams."""

    items: list[StreamView]


class ResourceView(Struct, frozen=True, kw_only=True):
    """One resource in a list: enough to find and to address it."""

    resource: str
    code: str  #: catalog code (目录编码), given by the hub
    name_zh: str
    name_en: str
    kind: str  #: structured, unstructured, spatial, realtime
    pack: str  #: domain pack (领域数据字典)
    grade: int
    grade_zh: str
    grade_en: str
    region: str  #: GB/T 2260
    site: str
    agent: str
    owner: str | None
    version: int  #: of the entry in force
    entry: str  #: object id of the entry in force
    state: str  #: catalogued; unowned where no owner is known (not catalogued)
    registered_us: int  #: hub's time of the first entry
    changed_us: int
    readable: bool  #: whether the caller may have its segments now


class ResourceList(Struct, frozen=True, kw_only=True):
    """Resources that the caller may read."""

    items: list[ResourceView]
    next: str | None  #: cursor of the following page


class EntryPage(Struct, frozen=True, kw_only=True):
    """One page of the catalog (数据目录)."""

    items: list[ResourceView]
    total: int  #: entries that the filter lets through
    exact: bool  #: false: there are more than `total`, and nobody counted them
    next: str | None  #: cursor of the following page


class FacetValue(Struct, frozen=True, kw_only=True):
    """One value of a facet under the present filter."""

    value: str  #: as the filter takes it
    zh: str  #: its name for people
    en: str
    count: int


class Facets(Struct, frozen=True, kw_only=True):
    """How the hits spread over each dimension (分类, 视图); at most 30 values each."""

    site: list[FacetValue]
    grade: list[FacetValue]
    pack: list[FacetValue]
    kind: list[FacetValue]
    owner: list[FacetValue]
    region: list[FacetValue]  #: beginnings of the region code, one level below the filter's
    state: list[FacetValue]
    exact: bool  #: false: only the first 10,000 hits were counted


class FieldView(Struct, frozen=True, kw_only=True):
    """One declared field (信息项) of the content schema."""

    name: str
    zh: str
    en: str
    type: str
    unit: str
    codes: list[str]
    personal: str  #: none, personal, sensitive
    group: str  #: column group
    index: bool


class PointView(Struct, frozen=True, kw_only=True):
    """A place on the map."""

    longitude: float
    latitude: float
    system: str


class ExtentView(Struct, frozen=True, kw_only=True):
    """Spatial index of a spatial resource."""

    west: float
    south: float
    east: float
    north: float
    system: str
    resolution_m: float | None


class Attributes(Struct, frozen=True, kw_only=True):
    """属性信息: what it is, how it is built, where it lies."""

    name_zh: str  #: 名称 / 数据库名称
    name_en: str
    local_name: str
    description: str  #: 描述, 数据内容
    kind: str
    pack: str  #: 数据库结构
    pack_version: int
    schema_hash: str
    fields: list[FieldView]
    record_index: list[str]  #: 记录项索引
    storage_address: str  #: 数据存储地址
    access_method: str  #: 访问方法
    link: str  #: 链接地址 at this hub
    rhythm: str  #: 更新周期
    extent: ExtentView | None


class Ownership(Struct, frozen=True, kw_only=True):
    """权属信息: who has which power over it."""

    owner: str | None  #: 数据所有者
    owner_basis: str  #: local: pinned at the gateway; hub: on the hub's word; none
    producer: str | None  #: 数据生产者
    provider: str | None  #: 数据提供者
    users: list[str]  #: 数据使用者
    user_policy: str
    status: str  #: claimed, or unowned (权属绑定, T/ADEDS 02-2023 §7.2)


class Metadata(Struct, frozen=True, kw_only=True):
    """元数据信息; sizes, counts and times of data are computed from what was accepted."""

    data_type: str  #: 数据类型
    registered_agent_us: int  #: 注册时间戳, the gateway's clock as it stood
    registered_offset_us: int
    registered_error_us: int
    clock_source: str
    registered_hub_us: int  #: when the hub accepted this version
    region: str  #: 数据位置
    place: str
    coordinates: PointView | None
    size_bytes: int  #: 数据大小, of accepted bodies
    segments: int
    records: int
    first_us: int | None  #: event time of the earliest record
    last_us: int | None
    accepted_us: int | None  #: when the newest segment was accepted


class EncryptionView(Struct, frozen=True, kw_only=True):
    """加密策略."""

    suite: int
    epoch_s: int
    groups: list[str]


class Security(Struct, frozen=True, kw_only=True):
    """安全信息."""

    grade: int  #: 安全等级, table 7-2
    grade_zh: str
    grade_en: str
    sealed: bool
    secrecy: str
    encryption: EncryptionView
    owner_key: str | None  #: 网络人员公钥: id of the owner's sealing key
    agent_key: str  #: id of the agent's signing key


class Proof(Struct, frozen=True, kw_only=True):
    """Where the ledger records this version of the entry."""

    object: str
    generation: int
    leaf: int


class EntryView(Struct, frozen=True, kw_only=True):
    """One registration entry (注册条目) with every field of T/ADEDS 02-2023 §6.2."""

    resource: str
    code: str  #: 目录编码
    state: str
    version: int
    previous: str | None
    site: str
    agent: str
    attributes: Attributes
    ownership: Ownership
    metadata: Metadata
    security: Security
    classification: dict[str, str]  #: the twelve dimensions of §6.5
    proof: Proof
    readable: bool
    how_to_read: str  #: what the caller may do, for people


class VersionView(Struct, frozen=True, kw_only=True):
    """One version of an entry: who said it, when, and what it changed."""

    version: int
    object: str
    previous: str | None  #: object id of the version that it follows
    previous_known: bool  #: whether this hub has that one; without it there is nothing to compare
    in_force: bool
    agent: str  #: whose statement it is
    registered_agent_us: int
    registered_hub_us: int
    generation: int
    leaf: int
    changes: list[Change]


class VersionPage(Struct, frozen=True, kw_only=True):
    """Versions of an entry, the newest first."""

    items: list[VersionView]
    next: str | None  #: cursor of the following page


class LedgerProof(Struct, frozen=True, kw_only=True):
    """Proof that a version of an entry stands in the ledger; bytes are base64."""

    object: str  #: id of the entry's envelope, which the leaf names
    entry: bytes  #: the envelope as the gateway signed it
    generation: int
    leaf: bytes
    index: int
    path: list[bytes]  #: audit path, RFC 9162 §2.1.3
    checkpoint: str  #: signed note (C2SP tlog-checkpoint)
    log_key: str  #: verifier key of the checkpoint, for comparison with one that is known
