"""HTTP in and out, nothing else: who may ask, how much, and what the answer looks like.

    aiohttp ─▶ door (connections) ─▶ http ─▶ middleware (route, length, credentials, body, digest)
                                                  │
                     handlers: time enrol sync inbox objects segments notes catalog history log
                               health openapi

`routes` is the one table; `exchange` is what passes between the two halves, free of aiohttp, so
that tests and the fuzzer call the same path in process. `errors` turns the tree of errors into
answers, `access` decides who may read what, `views` are the structs of the JSON answers.
"""
