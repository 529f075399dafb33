"""The tests of what gaiod says about itself: metrics, their collector, their endpoint."""
