"""lorawan/ — uplinks of a LoRaWAN network server (ChirpStack v4, JSON) on top of mqtt.

    envelope.py  the network server's JSON event -> uplink or join; absent fields mean defaults
    session.py   which frame of which join session: the identity of an uplink (class A)
    profile.py   ../profiles/*.toml: payload codecs as tables
    source.py    a [[device]] entry, checked and compiled
    codec.py     payload bytes -> named values; what is not understood keeps its offset
    rows.py      what one uplink means to the resources that its sensor feeds
    decoder.py   pure: one event -> one reading
    config.py    [[device]] tables with profile `lorawan/<codec>`

The connection is `devices.mqtt.driver`'s: one broker, one session, plain topics and uplinks alike.
"""
