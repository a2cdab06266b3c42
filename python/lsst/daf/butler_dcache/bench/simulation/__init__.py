"""What a number of clients asks of doors and pools, by discrete-event simulation.

Theory of operation
-------------------
A `~.scenarios.Scenario` says who asks what of which site. `~.run.simulate` plays it: each core of a batch
farm is a process of simpy that computes, reads and writes by the requests of a `~.patterns.Pattern` and
repeats them by a `~.policies.Policy`; `~.site` has the doors with their limiter, threads and processors, and
the pools with their mover slots and their network. How long a request keeps a server busy is not simulated
but measured (`~.times`). `~.validation` compares predictions with what the embedded dCache really does.
"""
