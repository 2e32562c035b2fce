-- Forgets an endpoint and its load.
-- KEYS: log, endpoints, modes, load, dropped, the endpoint's fence; then the sets of all its caches
-- ARGV: entries that the log keeps, endpoint; then the caches
-- Returns 1, or -1 where the endpoint has other caches than the caller thought.
local log, endpoints, modes, load, dropped, fence = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local endpoint = ARGV[2]
if has_others(fence, 3) then
  return -1
end
for i = 6, #KEYS do
  redis.call('UNLINK', KEYS[i])
end
anew('SREM', endpoints, endpoint)
anew('HDEL', modes, endpoint)
anew('HDEL', load, endpoint)
if not whole(anew('HGET', dropped, endpoint)) then
  redis.call('HDEL', dropped, endpoint)  -- a count that is none
end
redis.call('HINCRBY', dropped, endpoint, 1)  -- reservations of before don't count any more
tell(log, ARGV[1], 'drop', endpoint)
return 1
