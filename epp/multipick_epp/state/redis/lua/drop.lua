-- Forgets an endpoint and its load.
-- KEYS: log, endpoints, modes, load, dropped, the endpoint's fence; then the sets of all its caches
-- ARGV: entries that the log keeps, endpoint
-- Returns 1, or -1 where the endpoint has other caches than the caller thought.
local log, endpoints, modes, load, dropped, fence = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local endpoint = ARGV[2]
local fields = redis.call('HLEN', fence)
if fields ~= 0 and fields ~= #KEYS - 3 then
  return -1
end
redis.call('UNLINK', fence, unpack(KEYS, 7))
redis.call('SREM', endpoints, endpoint)
redis.call('HDEL', modes, endpoint)
redis.call('HDEL', load, endpoint)
redis.call('HINCRBY', dropped, endpoint, 1)  -- reservations of before don't count any more
redis.call('XADD', log, 'MAXLEN', '~', ARGV[1], '*', 'drop', endpoint)
return 1
