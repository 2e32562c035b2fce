"""The report of a study: one HTML page without anything to load, charts as inline SVG."""
