"""Campaigns of faults and kills: random operations, things that go wrong, and a model that knows the truth.

A campaign has *workers*, processes that use the client, and a *referee*, who runs the embedded dCache, arms
faults for one worker's requests and looks at the name space behind the client's back. After each step the
worker compares what it was told with what the referee sees (`.world`).
"""
