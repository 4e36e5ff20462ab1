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
messages      an event as a message
services      look-ups, copying, operators' tasks
failures      what a cluster or a lost connection says, as errors of the library
options       the address and the options
names         the names of streams, subjects and buckets
nodes         what the nodes of a cluster say of themselves
"""
