-- Forgets an endpoint. (Its load goes with what is charged there: each picker hears of the drop by the log.)
-- KEYS: log, endpoints, modes, owners' endpoints, the endpoint's fence, its notes; then the sets of all its caches
-- ARGV: entries that the log keeps, endpoint; then the caches
-- Returns 1, or -1 where the endpoint has other caches than the caller thought.
local log, endpoints, modes, holders, fence = unpack(KEYS, 1, 5)
local endpoint = ARGV[2]
if has_others(fence, 3) then
  return -1
end
for i = 5, #KEYS do
  redis.call('UNLINK', KEYS[i])
end
anew('SREM', endpoints, endpoint)
anew('HDEL', modes, endpoint)
anew('HDEL', holders, endpoint)
tell(log, ARGV[1], 'drop', endpoint)
return 1
