-- How well an endpoint's cache is known.
-- KEYS: log, modes
-- ARGV: entries that the log keeps, endpoint, mode, the record
if anew('HGET', KEYS[2], ARGV[2]) == ARGV[3] then
  return 0
end
redis.call('HSET', KEYS[2], ARGV[2], ARGV[3])
tell(KEYS[1], ARGV[1], 'mode', ARGV[4])
return 1
