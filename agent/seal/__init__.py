"""agent/seal/ — from rows to segments that may leave, kept until a verified receipt (原生加密).

sealer       the only writer of chains; due: when a segment closes; building: how
epochs       epoch keys by event time (周期密钥), and their wraps to the owner
spool        what waits for a receipt; batch: what goes next; resend: what goes again
vault        key-protected data (重点保护级), which never leaves
"""
