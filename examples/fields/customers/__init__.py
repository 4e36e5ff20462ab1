"""Analytics: what customers will buy, predicted from what was known on a day. See docs/fields/customers.md."""
