"""Room: locks by name, across processes and colours."""
