"""The pages of the hub (控制台): who → form → validate → use case → redirect.

    request ─▶ api.middleware.Gate ─▶ front: page, session, permission, forgery ─▶ pages/*
                                                                                    │
                      HTML ◀─ templates/ ◀─ parts.Console.render ◀──────────────────┘

A page is a row of `routes.PAGES` and a handler of its own file in `pages/`, which takes
(`parts.Console`, `visit.Visit`) and returns a `Reply`: `console.render(visit, "name.html", …)` or
`parts.redirect("/…")`. Texts stand in `messages/{zh,en}.toml`, scripts and styles in `static/`.

    routes, front        the table of pages; the way to them
    visit, parts         what a handler gets
    forms, cookies       reading them strictly; forged ones are refused
    entry_rows, formats  an entry of the catalog as rows; times and sizes in words
    texts, assets        Chinese and English; static files under a name made of their content

No inline script or style (the policy would refuse it), no other origin, no framework, no build.
"""
