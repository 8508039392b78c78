"""Texts and bytes that nobody would write, and what must hold for all of them.

`targets` names the targets: functions of bytes that raise when something does not hold. `test_fuzz` runs each with
hypothesis, the same examples every time, in seconds; `python -m fuzz`, which is `make fuzz`, runs them under atheris,
guided by coverage, for as long as one likes.
"""
