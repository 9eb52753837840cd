"""The generation engine: turn an order into stored pictures, bought at most once.

``orders`` turns an order into a claim, ``service`` accepts it, ``watching`` reports its progress, ``engine`` executes
it, ``received`` receives the upstream's pictures, ``settlement`` records the outcome, and ``progress`` tracks what this
process executes.
"""
