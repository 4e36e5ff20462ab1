"""Each room by itself: errors, events, records, queries, the registry, states, the flow."""
