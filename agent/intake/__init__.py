"""agent/intake/ — from a hand-over to a durable row, and what follows the commit.

routes       which file a reading goes to; watermarks: where each source stands
journal      commit groups; groups: what one will write; commits: what one wrote
acknowledge  what follows a commit, in the order of the hand-overs
register     the first record makes entry and stream (天生注册)
outbox       objects of the gateway on their way: entries, wraps, notes of what was lost
rows         journal rows, opened and written; memory: back into memory at a start
seen         class A once; quarantine: what was refused at the door, with its reason
losses       what a file could not take: counted, declared in gap notes
resume, regain  watermarks that travel with records, and what they give back after an image
covered      what the hub's evidence says of a resource, folded page by page
tap          what was just committed, for who watches at the gateway
"""
