"""What the live page shows, computed of arrays alone: no file, no server, no clock.

It lies in people's wing, as only a page shows it, and imports `algorithm`, `data` and `report`;
near-duplicates, which studies leave out as well, are in `algorithm/near_duplicates.py`.
"""
