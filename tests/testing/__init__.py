"""The testing kit that ships with the library, held against rules that are right and rules that are wrong."""
