"""The generation engine: turn an order into stored pictures, bought at most once.

``submission`` accepts an order, ``claims`` claims it, ``watching`` reports its progress, ``engine`` executes it,
``received`` receives the upstream's pictures, ``settlement`` records the outcome, and ``progress`` tracks what this
process executes.
"""
