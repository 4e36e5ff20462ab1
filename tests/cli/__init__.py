"""The command line: every verb, on stores whose classes it does not know, in pipes and on a terminal."""
