-- Tells every replica of a routed prompt.
-- KEYS: hints
-- ARGV: entries to keep, the record
tell(KEYS[1], ARGV[1], 'expect', ARGV[2])
return 1
