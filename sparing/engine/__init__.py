"""The decode loop: cache, sampling, verification of drafts, eviction, events and stats."""
