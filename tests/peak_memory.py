"""The peak memory of a process that a test starts."""

PEAK_BYTES = (
    "1024 * int(open('/proc/self/status').read().partition('VmHWM:')[2].split(maxsplit=1)[0])"
)
"""An expression for the process itself: `ru_maxrss` begins at the peak of the parent process."""
