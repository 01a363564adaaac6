"""The registration entry: 天生注册, T/ADEDS 02-2023 §6.2.

A resource is born registered: its entry is made by the gateway in the commit of its first record,
signed by the agent (a claim; owner and hub admin confirm in objects of their own), and named by
every segment header. It carries the four groups of §6.2 — attributes (属性信息), ownership
(权属信息), metadata (元数据信息), security (安全信息) — and the twelve dimensions of §6.5.
"""

import unicodedata
from typing import Annotated, Literal, TypeAlias

from msgspec import Meta, Struct

from protocol import limits
from protocol.envelope import Envelope, SigningKey, expect_kind, make, only_key, open_as
from protocol.errors import Code, DecodeError, RefusedError, VerifyError
from protocol.grades import Grade, Secrecy, rules
from protocol.ids import (
    WireHash,
    WireKeyId,
    WireNonce,
    WireObject,
    WirePrincipal,
    WireResource,
    WireU8,
    WireU32,
    resource_id,
)
from protocol.schema import DataKind, Pack, open_schema, schema_hash
from protocol.times import ClockReading

Name: TypeAlias = Annotated[str, Meta(min_length=1, max_length=limits.NAME_CHARS_MAX)]
Short: TypeAlias = Annotated[str, Meta(max_length=limits.NAME_CHARS_MAX)]
Text: TypeAlias = Annotated[str, Meta(max_length=limits.TEXT_CHARS_MAX)]
Longitude: TypeAlias = Annotated[float, Meta(ge=-180, le=180)]
Latitude: TypeAlias = Annotated[float, Meta(ge=-90, le=90)]

OwnerBasis: TypeAlias = Literal["local", "hub", "none"]


class Coordinates(Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True):
    """Where the data is produced: [longitude, latitude, system]."""

    longitude: Longitude  # degrees
    latitude: Latitude  # degrees
    system: Literal["CGCS2000", "WGS-84"] = "CGCS2000"


class Extent(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Spatial index of a spatial resource (地图, 影像, 地形): what area, in what, how fine."""

    west: Longitude
    south: Latitude
    east: Longitude
    north: Latitude
    system: Literal["CGCS2000", "WGS-84"]
    resolution_m: Annotated[float, Meta(gt=0)] | None  # ground size of a cell, or nil


class Encryption(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Encryption strategy (加密策略): suite, epoch length, column groups by number."""

    suite: WireU8
    epoch_s: WireU32  # length of an epoch in seconds of event time; 0 for open grades
    groups: Annotated[tuple[Name, ...], Meta(min_length=1, max_length=limits.GROUPS_MAX)]


class Classification(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The twelve dimensions of §6.5 (数据分类). The last four rights are derived, never typed."""

    structure: Literal["structured", "unstructured"]  # 结构化 / 非结构化
    relation: Literal["relational", "non-relational", "n/a"]  # 关系型 / 非关系型
    age: Literal["historical", "realtime", "n/a"]  # 历史 / 实时
    change: Literal["static", "dynamic", "n/a"]  # 静态 / 动态
    space: Literal["spatial", "non-spatial"]  # 空间 / 非空间
    origin: Literal["local", "internet", "third-party", "n/a"]  # 本地 / 互联网 / 第三方
    domain: Literal["public", "private", "n/a"]  # 公共 / 私有
    use: Literal["transaction", "service", "application", "n/a"]  # 交易 / 服务 / 应用型
    authorised: Literal["n/a"]  # 授权 / 未授权: by live grants, which no entry can know
    shareable: Literal["yes", "no"]  # 可共享 / 不可共享
    publicable: Literal["yes", "no"]  # 可公开 / 不可公开
    openable: Literal["yes", "no"]  # 可开放 / 不可开放: the major grade 开放级


class Registration(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Payload of kind `registration`, or `description` for 完全开放级 (注册条目, §6.2)."""

    # Which resource, and which version of its entry.
    resource: WireResource
    agent: WirePrincipal  # whose gateway speaks
    local_name: Name  # name in the gateway's configuration, NFC; with `agent` makes `resource`
    version: Annotated[int, Meta(ge=1, le=2**31 - 1)]
    previous: WireObject | None  # object id of version − 1
    # Attributes (属性信息).
    kind: DataKind  # structured | unstructured | spatial | realtime
    name_zh: Name  # 名称 / 数据库名称
    name_en: Short
    description: Text  # 描述, 数据内容
    pack: Name  # domain pack (数据库结构)
    pack_version: WireU32
    schema: Annotated[bytes, Meta(max_length=limits.SCHEMA_BYTES_MAX)]  # its fields, msgpack
    schema_hash: WireHash  # content schema hash
    record_index: Annotated[tuple[Name, ...], Meta(max_length=limits.FIELDS_MAX)]  # 记录项索引
    storage_address: Annotated[str, Meta(min_length=1, max_length=limits.TEXT_CHARS_MAX)]  # URI
    access_method: Annotated[str, Meta(min_length=1, max_length=limits.TEXT_CHARS_MAX)]  # 访问方法
    rhythm: Short  # update rhythm (更新周期)
    extent: Extent | None  # of spatial resources
    # Ownership (权属信息).
    owner: WirePrincipal | None  # 数据所有者; nil while the owner is unconfirmed
    owner_basis: OwnerBasis  # who named the owner: pinned at the gateway, the hub, nobody
    producer: WirePrincipal | None  # 数据生产者; one of producer and provider is there
    provider: WirePrincipal | None  # 数据提供者
    users: Annotated[tuple[WirePrincipal, ...], Meta(max_length=limits.ROLES_MAX)]  # 数据使用者
    user_policy: Text  # who may become a user, in words or a policy's name
    # Metadata (元数据信息); size and counts are computed from accepted data, never typed.
    data_type: Name  # 数据类型
    registered_at: ClockReading  # 注册时间戳: the agent's clock; the leaf adds the hub's
    region: Short  # GB/T 2260 code (数据位置)
    place: Text
    coordinates: Coordinates | None
    classification: Classification
    # Security (安全信息).
    grade: Grade  # 安全等级
    secrecy: Secrecy
    encryption: Encryption  # 加密策略
    owner_key: WireKeyId | None  # owner's sealing key: 网络人员公钥, by id
    agent_key: WireKeyId  # agent's signing key
    nonce: WireNonce


def classify(
    grade: Grade,
    kind: DataKind,
    *,
    relation: Literal["relational", "non-relational", "n/a"] = "relational",
    age: Literal["historical", "realtime", "n/a"] = "realtime",
    change: Literal["static", "dynamic", "n/a"] = "dynamic",
    origin: Literal["local", "internet", "third-party", "n/a"] = "local",
    domain: Literal["public", "private", "n/a"] = "n/a",
    use: Literal["transaction", "service", "application", "n/a"] = "service",
) -> Classification:
    """Give the twelve dimensions of a resource; those that follow from kind and grade are derived.

    数据分类, T/ADEDS 02-2023 §6.5; reading A13: rights are never typed by hand.
    """
    is_open = not rules(grade).sealed
    return Classification(
        structure="unstructured" if kind == "unstructured" else "structured",
        relation=relation,
        age=age,
        change=change,
        space="spatial" if kind == "spatial" else "non-spatial",
        origin=origin,
        domain=domain,
        use=use,
        authorised="n/a",
        shareable="yes" if rules(grade).grant or is_open else "no",
        publicable="yes" if rules(grade).publish or is_open else "no",
        openable="yes" if is_open else "no",
    )


def make_registration(entry: Registration, signer: SigningKey) -> Envelope:
    """Sign an entry: kind `registration`, or `description` for 完全开放级.

    Raises RefusedError GRADE_FORBIDDEN or SECRECY_FORBIDDEN for what must leave no trace,
    DecodeError or VerifyError for an entry that contradicts itself.
    """
    _check(entry)
    if entry.agent_key != signer.key_id:
        raise VerifyError(Code.WRONG_SIGNER, field="agent_key", value=entry.agent_key)
    return make(_kind(entry.grade), entry, signer)


def open_registration(envelope: Envelope, agent_key: bytes) -> Registration:
    """Verify an entry under the agent's public signing key and check that it fits together.

    Raises VerifyError, DecodeError, and RefusedError for grade 重点保护级 or a secrecy class above
    公开: the error echoes no content.
    """
    expect_kind(envelope, "registration", "description")
    keys = only_key(agent_key, suite=envelope.suite)
    entry = open_as(envelope, envelope.kind, Registration, keys)
    _check(entry)
    if envelope.kind != _kind(entry.grade):
        raise VerifyError(Code.BINDING_MISMATCH, field="grade", value=int(entry.grade))
    if entry.agent_key != envelope.signer:
        raise VerifyError(Code.WRONG_SIGNER, field="agent_key", value=entry.agent_key)
    return entry


def pack_of(entry: Registration) -> Pack:
    """The pack as it travelled in the entry: a reader needs no dictionary."""
    return Pack(
        id=entry.pack,
        version=entry.pack_version,
        zh=entry.name_zh,
        en=entry.name_en,
        grade=entry.grade,
        fields=open_schema(entry.schema),
        kind=entry.kind,
        record_index=entry.record_index,
        rhythm=entry.rhythm,
    )


def _kind(grade: Grade) -> str:
    return "registration" if rules(grade).registered else "description"


def _check(entry: Registration) -> None:
    """Hold what the type cannot say. The order matters: forbidden things first, without echo."""
    if entry.secrecy != Secrecy.PUBLIC:
        raise RefusedError(Code.SECRECY_FORBIDDEN, field="secrecy")
    if not rules(entry.grade).leaves:
        raise RefusedError(Code.GRADE_FORBIDDEN, field="grade")
    _check_identity(entry)
    _check_ownership(entry)
    if entry.schema_hash != schema_hash(entry.schema, suite=entry.encryption.suite):
        raise VerifyError(Code.HASH_MISMATCH, field="schema_hash", value=entry.schema_hash)
    fields = open_schema(entry.schema)
    _equal("record_index", set(entry.record_index) - {field.name for field in fields}, set())
    groups = tuple(dict.fromkeys(("data", *(field.group for field in fields))))
    _equal("encryption.groups", entry.encryption.groups, groups)
    if rules(entry.grade).sealed and entry.encryption.epoch_s == 0:
        raise VerifyError(Code.BINDING_MISMATCH, field="encryption.epoch_s", expected="1 or more")
    derived = classify(entry.grade, entry.kind)
    for name in ("structure", "space", "shareable", "publicable", "openable"):
        given = getattr(entry.classification, name)
        _equal(f"classification.{name}", given, getattr(derived, name))


def _check_identity(entry: Registration) -> None:
    if not unicodedata.is_normalized("NFC", entry.local_name):
        raise DecodeError(
            Code.MALFORMED, field="local_name", value=entry.local_name, expected="NFC"
        )
    own = resource_id(entry.agent, entry.local_name, suite=entry.encryption.suite)
    _equal("resource", entry.resource, own)
    _equal("previous", entry.previous is None, entry.version == 1)
    _equal("extent", entry.extent is not None, entry.kind == "spatial")


def _check_ownership(entry: Registration) -> None:
    _equal("owner_basis", entry.owner is None, entry.owner_basis == "none")
    _equal("owner_key", entry.owner_key is None or entry.owner is not None, True)
    _equal("producer", entry.producer is not None or entry.provider is not None, True)


def _equal(field: str, given: object, right: object) -> None:
    if given != right:
        raise VerifyError(
            Code.BINDING_MISMATCH, field=field, value=given, expected="agreement with the entry"
        )
