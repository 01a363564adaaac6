"""What both ends must agree on: from a record's birth to its proof. Pure: no IO, no clock, no log.

Words first, then the path that data takes, then what travels beside it:

| file | subject |
|---|---|
| `limits` | every bound of the wire, with unit and reason |
| `errors` | the tree of errors by who must act, and the table of codes |
| `tags` | the domain tag of every hash, signature and derivation |
| `ids` | principals, resources, streams, keys, segments: parse, print, derive |
| `times` | event, gateway and hub time; marks of quality and of clocks |
| `grades` | table 7-2 and the secrecy classes (数据分级, T/ADEDS 02-2023 §7.1) |
| `schema`, `packs`, `checks` | domain packs (领域数据字典) and the check of columns |
| `records` | observations, row by row and as columns |
| `columns`, `planes`, `frame`, `padding` | columns to bytes and back: integers, zstd, Padmé |
| `segment`, `header`, `part` | seal, open, verify a run of records |
| `chain`, `evidence` | next, duplicate, gap, fork; the headers that prove a fork |
| `wire` | strict msgpack |
| `suites`, `suite_nacl` | crypto suites behind one interface; suite 1 |
| `envelope` | every signed object but segments |
| `keys`, `wraps` | epoch keys and what hands them to a reader (原生加密, §6.2) |
| `principal`, `token`, `enrolment` | who speaks, and how a gateway is let in |
| `registration` | the registration entry (天生注册, §6.2) |
| `report` | what a gateway says of what waits with it |
| `notes`, `inbox` | declared loss, clock corrections; what the hub tells an agent |
| `merkle`, `tiles`, `checkpoint`, `leaf` | the ledger (存证账本) |
| `receipt`, `generation` | its proofs (回执); what a restored ledger says of the one before |
| `messages`, `sync` | a batch and its answer; one conversation as a state machine, both roles |
| `signatures` | request signatures (RFC 9421 profile) |

Beside all of it `program/`: the pure half of what our programs do alike; no part of the wire.

Time and randomness are arguments. Laws that hold everywhere: verify the bytes that arrived, then
decode; never sign or verify a re-encoding; every input of ours to a signature, hash or derivation
starts with a domain tag; every length is bounded before it is read.
"""
