"""mqtt/ — messages of a broker become readings; PUBACK goes out after the journal's commit.

    config.py   [[mqtt]] and [[device]] tables as structs
    topics.py   topic filters: which device a topic belongs to
    source.py   a [[device]] entry checked and compiled
    plan.py     a connection and everything on it, before any library is imported
    decoder.py  pure: a JSON message of one device -> its readings
    settings.py what a connection needs
    sieve.py    pure: packets above the bound are cut down before anybody reads them
    faults.py   errors of aiomqtt as ours
    client.py   the one place that wraps aiomqtt and paho
    connection.py one connection: open, greet, subscribe, iterate, acknowledge
    driver.py   the shell: connect, receive, dispatch, acknowledge

LoRaWAN uplinks arrive over the same connection; their meaning is in `devices.lorawan`.
"""
