"""Jobs of the server: rebuilds and verifications that go on after the answer.

Knows: jobs (facts, board), their routes. Does not know: how rows are rebuilt, how something is proved.
"""
