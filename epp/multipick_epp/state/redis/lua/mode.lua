-- How well an endpoint's cache is known.
-- KEYS: log, modes
-- ARGV: entries that the log keeps, endpoint, mode, the record
if redis.call('HGET', KEYS[2], ARGV[2]) == ARGV[3] then
  return 0
end
redis.call('HSET', KEYS[2], ARGV[2], ARGV[3])
redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', 'mode', ARGV[4])
return 1
