"""The generation engine: from an order to pictures that stay, bought at most once.

``orders`` makes an order a claim, ``service`` takes it in and lets clients watch, ``engine`` executes it, ``received``
takes the upstream's pictures as they come, ``settlement`` writes down how it ended, and ``jobs`` knows what this
process works on.
"""
