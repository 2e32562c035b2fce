-- Makes an endpoint's epoch known and voids what was known of its caches.
-- KEYS: log, endpoints, the endpoint's fence; then the sets of all its caches
-- ARGV: entries that the log keeps, endpoint, epoch, sequence so far, 1 to void also what the same epoch holds,
--   seconds after which a fence that nobody keeps alive expires; then the caches
-- Returns 1, 0 where a younger epoch is known, -1 where the endpoint has other caches than the caller thought.
local log, endpoints, fence = KEYS[1], KEYS[2], KEYS[3]
local SETS, CACHES = 4, 7
local epoch = tonumber(ARGV[3])
local known = whole(anew('HGET', fence, 'epoch')) or -1
if epoch < known then
  return 0
end
if epoch == known and ARGV[5] == '0' then
  return 1
end
if has_others(fence, CACHES) then
  return -1
end
for i = 0, #ARGV - CACHES do
  redis.call('UNLINK', KEYS[SETS + i])
  redis.call('HDEL', fence, ARGV[CACHES + i])
end
redis.call('HSET', fence, 'epoch', ARGV[3], 'last', ARGV[4], 'base', ARGV[4])
redis.call('EXPIRE', fence, ARGV[6])
anew('SADD', endpoints, ARGV[2])
tell(log, ARGV[1], 'begin', ARGV[2])
return 1
