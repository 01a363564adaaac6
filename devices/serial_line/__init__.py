"""serial_line/ — QR, barcode, RFID and identity-card readers and ticket gates on serial lines.

    config.py    the [[device]] table as structs; profiles/*.toml fill in what a model always says
    source.py    a table checked and compiled
    message.py   pure: the body of a frame -> a document of named fields
    recent.py    pure: what was heard last: repeated scans, frames that were sent again
    decoder.py   pure: a frame, or what is none, -> a reading and its answer
    poll.py      pure: readers that must be asked
    port.py      one open line, and every way in which there is none
    driver.py    the shell: open, read, decode, answer after the commit
    probe.py     what `doctor` tries
    plan.py      tables -> drivers, before any library of serial lines is imported

How bytes become frames is in `devices.frames`, how fields become records in `devices.document`.
"""
