-- Tells every replica of a routed prompt.
-- KEYS: hints
-- ARGV: entries to keep, the record
return redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', 'expect', ARGV[2])
