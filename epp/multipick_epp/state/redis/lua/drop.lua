-- Forgets an endpoint. (Its load goes with what is charged there: each picker hears of the drop by the log.)
-- KEYS: log, endpoints, modes, the endpoint's fence; then the sets of all its caches
-- ARGV: entries that the log keeps, endpoint; then the caches
-- Returns 1, or -1 where the endpoint has other caches than the caller thought.
local log, endpoints, modes, fence = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local endpoint = ARGV[2]
if has_others(fence, 3) then
  return -1
end
for i = 4, #KEYS do
  redis.call('UNLINK', KEYS[i])
end
anew('SREM', endpoints, endpoint)
anew('HDEL', modes, endpoint)
tell(log, ARGV[1], 'drop', endpoint)
return 1
