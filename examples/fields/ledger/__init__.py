"""Finance: a ledger in double entry, of a real shop's invoices and credit notes. See docs/fields/ledger.md."""
