"""A real job under real kills: what ``multihost demo`` runs.

``inputs`` says which files, ``measure`` is the user's function, ``story`` runs
it and kills what it can, ``proof`` counts afterwards. Everything goes through
the doors that users have: processes, the client, HTTP.
"""
