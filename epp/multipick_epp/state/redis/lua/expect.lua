-- Tells every replica of a routed prompt.
-- KEYS: log
-- ARGV: entries that the log keeps, the record
return redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', 'expect', ARGV[2])
