"""E-commerce: a shop, which is part of the package: `eventfold demo shop`. See docs/fields/e-commerce.md."""
