"""What the picker tells its operators: Prometheus metrics and structured logs. Any room may call it; it calls none."""
