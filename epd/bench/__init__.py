"""The load test: asks any OpenAI-compatible server at a rate, and says how it answered.

`options` is what can be asked for, `datasets` what is sent (pure, seeded) and `items` the media in
it, `arrivals` when (pure), `http` and `asking` send it and keep every moment, `metrics` makes
numbers of that (pure), and `table`, `result` and `plots` show them. Nothing here knows the rest of
`epd`: what the server is, is what its HTTP says.
"""
