"""One module through five years, each as it was then."""
