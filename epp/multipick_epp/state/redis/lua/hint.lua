-- Tells every replica of a routed prompt, or that one won't be computed.
-- KEYS: hints
-- ARGV: entries to keep, then kinds and records in turn
tell(KEYS[1], ARGV[1], unpack(ARGV, 2))
return 1
