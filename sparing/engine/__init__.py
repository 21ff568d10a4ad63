"""The decode loop: cache, sampling and acceptance, drafting, eviction, events and stats."""
