"""NATS JetStream, for stores that survive the loss of a machine: a replicated stream is the log.

engine        the port: appends go to the stream, reads are answered by a copy on this host
session       the parts of a store, and the event loop they run on
connection    connecting, checking after each connect, requests
client        the client of nats-py, with a shorter way for messages
stream        the stream: its configuration, its identity, what must be true of it
durability    whether its nodes write to disk before they confirm
reader        events from the stream, each sequence checked
following     the copy on this host, brought up to a position
writer        appends: judged against the copy, written with the expected last sequence
appends       the queue of a process's appends: written here, or forwarded to another process
forwarding    which process writes for the others, while writers compete
accepting     the side of the process that writes for others
messages      an event as a message
request_keys  keys that were assigned to appends after they were written
buckets       records by key, beside the stream
leases        records with a holder, which the server forgets
locks         locks by name
snapshots     stored states
services      look-ups, copying, operators' tasks
failures      what a cluster or a lost connection says, as errors of the library
options       the address and the options
names         the names of streams, subjects and buckets
nodes         what the nodes of a cluster say of themselves
"""
