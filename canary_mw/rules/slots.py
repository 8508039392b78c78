"""Slots: the unit of all shares of users. A percent is a whole number of them, so that nothing rounds differently."""

SLOTS = 1_000_000
SLOTS_PER_PERCENT = SLOTS // 100
